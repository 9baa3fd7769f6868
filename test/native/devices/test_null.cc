#include <time.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "native/devices/rig.h"

using namespace sm;
using namespace sm::test;

TEST_CASE("null has a size and, but for its beginning, no data") {
  Rig rig;
  std::unique_ptr<Device> device;
  REQUIRE_FALSE(openDevice({.name = "n", .driver = "null", .bytes = 1 << 30}, rig.threads, &device));
  sm_device* d = device->contract();
  CHECK(d->bytes == 1 << 30);
  CHECK(d->block_size == 512);
  CHECK(d->flags == 0);
  CHECK(device->facts().driver == "null");
  constexpr uint64_t kKept = 1 << 20;
  Memory memory(8192);
  uint8_t* bytes = memory.data();
  std::memset(bytes, 0x42, 8192);
  CHECK(rig.read(d, kKept, bytes, 8192) == 0);
  CHECK(bytes[0] == 0x42);
  CHECK(rig.read(d, kKept - 4096, bytes, 8192) == 0);
  CHECK((bytes[0] == 0 && bytes[4095] == 0 && bytes[4096] == 0x42));
  std::memset(bytes, 0x17, 8192);
  CHECK(rig.write(d, kKept - 4096, bytes, 8192) == 0);
  CHECK(rig.ranged(d, SM_OP_WRITE_ZEROES, kKept - 512, 1 << 20) == 0);
  std::memset(bytes, 0x42, 8192);
  CHECK(rig.read(d, kKept - 4096, bytes, 8192) == 0);
  CHECK((bytes[0] == 0x17 && bytes[3583] == 0x17 && bytes[3584] == 0 && bytes[4096] == 0x42));
  CHECK(rig.write(d, (1 << 30) - 4096, bytes, 4096) == 0);
  for (const uint8_t op : {SM_OP_DISCARD, SM_OP_WRITE_ZEROES}) CHECK(rig.ranged(d, op, 0, 1 << 30) == 0);
  CHECK(rig.ranged(d, SM_OP_FLUSH, 0, 0) == 0);
  CHECK(rig.write(d, 1 << 30, bytes, 4096) == -ENOSPC);
  CHECK(rig.read(d, 1 << 30, bytes, 4096) == -EINVAL);
  CHECK(rig.read(d, 100, bytes, 4096) == -EINVAL);
  CHECK(rig.ranged(d, 99, 0, 512) == -EINVAL);
}

TEST_CASE("segments that are not there, or add up only as they go round, are refused") {
  Rig rig;
  std::unique_ptr<Device> device;
  REQUIRE_FALSE(openDevice({.name = "n", .driver = "null", .bytes = 1 << 30}, rig.threads, &device));
  sm_device* d = device->contract();
  Memory memory(4096);
  uint8_t* at = memory.data();
  const auto run = [&](std::vector<iovec> iov) {
    return rig.run(d, {.op = SM_OP_READ, .length = 4096, .iov = std::move(iov)});
  };
  CHECK(run({{at, 2048}, {nullptr, 0}, {at + 2048, 2048}}) == 0);
  CHECK(run({{at, SIZE_MAX}, {at, 4097}}) == -EINVAL);
  CHECK(run({{at, size_t{1} << 63}, {at, size_t{1} << 63}, {at, 4096}}) == -EINVAL);
  CHECK(run({{at, 2048}, {nullptr, 2048}}) == -EINVAL);
  CHECK(run({{at, 4096}, {at, 512}}) == -EINVAL);
  CHECK(run({}) == -EINVAL);
}

TEST_CASE("null at depth 32 on one thread") {
  constexpr uint64_t kTotal = 5'000'000, kDepth = 32;
  Rig rig;
  std::unique_ptr<Device> device;
  REQUIRE_FALSE(openDevice({.name = "n", .driver = "null", .bytes = 1 << 30}, rig.threads, &device));
  struct Load {
    IoThread* thread;
    sm_device* device;
    uint64_t submitted = 0, completed = 0;
    iovec iov;
    std::atomic<bool> done{false};

    void submit() {
      ++submitted;
      sm_request* request = thread->allocate();
      request->op = SM_OP_READ;
      request->offset = submitted * 4096 % (1 << 30);
      request->length = 4096;
      request->iov = &iov;
      request->iov_count = 1;
      sm_request_push(
          request,
          [](sm_request* request, void* context, uint64_t) {
            Load* load = static_cast<Load*>(context);
            load->thread->release(request);
            if (++load->completed == kTotal) load->done = true;
            if (load->submitted < kTotal) load->submit();
          },
          this, 0);
      sm_device_submit(device, request);
    }
  } load{.thread = rig.threads[0], .device = device->contract()};
  Memory memory(4096);
  load.iov = {memory.data(), 4096};
  uint64_t cpu = 0;
  rig.on(0, [&] {
    cpu = load.thread->cpuTime();
    for (uint64_t i = 0; i < kDepth; ++i) load.submit();
  });
  while (!load.done) usleep(1000);
  rig.on(0, [&] { cpu = load.thread->cpuTime() - cpu; });
  CHECK(load.completed == kTotal);
  std::printf("null device, depth %d, one thread: %.1f ns of CPU per I/O\n", static_cast<int>(kDepth),
              static_cast<double>(cpu) / kTotal);
}
