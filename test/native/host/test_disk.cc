// Bounds, and the door for other threads.
#include <doctest/doctest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "support.h"

using namespace sm;
using namespace sm::test;

TEST_CASE("what lies outside the disk, is unaligned or does not add up is refused before the volume sees it") {
  MemoryDisk fixture(1 << 20);
  VirtualDisk& disk = *fixture.disk;
  int seen = 0;
  fixture.volume.first = [&](sm_request*) { return ++seen, 0; };
  std::vector<uint8_t> data(2 << 20, 0x5a);

  struct Case {
    uint8_t op;
    uint64_t offset, length;
  };
  for (const Case& wrong : std::initializer_list<Case>{{SM_OP_READ, 1, 512},
                                                       {SM_OP_READ, 0, 513},
                                                       {SM_OP_READ, 0, 0},
                                                       {SM_OP_WRITE, 1 << 20, 512},
                                                       {SM_OP_WRITE, (1 << 20) - 512, 1024},
                                                       {SM_OP_WRITE, UINT64_MAX - 511, 512},
                                                       {SM_OP_READ, 512, UINT64_MAX - 511},
                                                       {SM_OP_DISCARD, 512, 1 << 20},
                                                       {SM_OP_WRITE_ZEROES, 0, 100},
                                                       {SM_OP_FLUSH, 512, 0},
                                                       {SM_OP_FLUSH, 0, 512},
                                                       {0, 0, 512},
                                                       {6, 0, 512}}) {
    CAPTURE(int{wrong.op});
    CAPTURE(wrong.offset);
    CAPTURE(wrong.length);
    const Failure failure = disk.check(wrong.op, wrong.offset, wrong.length);
    CHECK(failure.error == EINVAL);
    CHECK(failure.code == "ERR_OUT_OF_RANGE");
    CHECK(failure.vm == "vm-1");
    CHECK(failure.disk == "vda");
    CHECK(failure.message.find("vm-1/vda (1048576 bytes") != std::string::npos);
    CHECK(diskIo(disk, wrong.op, wrong.offset, data.data(), wrong.length) == -EINVAL);
  }
  CHECK(seen == 0);
  CHECK_FALSE(disk.check(SM_OP_WRITE, (1 << 20) - 512, 512));
  CHECK(diskIo(disk, SM_OP_WRITE, (1 << 20) - 512, data.data(), 512) == 0);
  CHECK(diskIo(disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  CHECK(diskIo(disk, SM_OP_DISCARD, 0, nullptr, 1 << 20) == 0);
  CHECK(seen == 3);

  SUBCASE("segments") {
    AwaitedIo io;
    io.io.op = SM_OP_WRITE;
    io.io.length = 1024;
    io.io.iovCount = 2;
    io.io.iov[0] = {data.data(), 1024};
    io.io.iov[1] = {data.data(), 512};
    io.io.done = [](DiskIo* io) { reinterpret_cast<AwaitedIo*>(io)->promise.set_value(io->status); };
    disk.submit(&io.io);
    CHECK(io.done.get() == -EINVAL);
    CHECK(diskIo(disk, SM_OP_READ, 0, nullptr, 512) == -EINVAL);
    AwaitedIo nowhere;
    nowhere.io.op = SM_OP_WRITE;
    nowhere.io.length = 512;
    nowhere.io.iovCount = 1;
    nowhere.io.iov[0] = {nullptr, 512};
    nowhere.io.done = io.io.done;
    disk.submit(&nowhere.io);
    CHECK(nowhere.done.get() == -EINVAL);
    CHECK(seen == 3);
  }
}

TEST_CASE("a request that carries more than 1 MiB is refused, a discard as long as the disk is not") {
  MemoryDisk fixture(4 << 20);
  std::vector<uint8_t> data(2 << 20);
  CHECK(diskIo(*fixture.disk, SM_OP_WRITE, 0, data.data(), kMaxTransfer) == 0);
  CHECK(diskIo(*fixture.disk, SM_OP_WRITE, 0, data.data(), kMaxTransfer + 512) == -EINVAL);
  CHECK(diskIo(*fixture.disk, SM_OP_WRITE_ZEROES, 0, nullptr, 4 << 20) == 0);
}

TEST_CASE("more I/O than the thread has requests waits its turn, in order, and leaves requests for children") {
  MemoryDisk fixture(1 << 20, 64);
  std::vector<uint64_t> order;
  uint32_t most = 0, now = 0;
  fixture.volume.instead = [&](MemoryVolume&, sm_request* request) {
    order.push_back(request->offset);
    // A child for each, as a volume would need: there is always one.
    sm_request* child = fixture.thread.allocate();
    CHECK(child);
    fixture.thread.release(child);
    now = static_cast<uint32_t>(fixture.disk->inFlight());
    most = std::max(most, now);
  };
  std::deque<AwaitedIo> ios(1000);
  std::vector<uint8_t> data(512);
  for (size_t i = 0; i < ios.size(); ++i) ios[i].submit(*fixture.disk, SM_OP_WRITE, i * 512, data.data(), 512);
  for (AwaitedIo& io : ios) CHECK(io.done.get() == 0);
  REQUIRE(order.size() == ios.size());
  for (size_t i = 0; i < order.size(); ++i) CHECK(order[i] == i * 512);
  CHECK(most <= 32);
  CHECK(most > 1);
}

TEST_CASE("closing waits for what is in flight and refuses what comes later") {
  MemoryDisk fixture;
  std::vector<uint8_t> data(512);
  onThread(fixture.thread, [&] { fixture.volume.hold = true; });
  AwaitedIo io, late;
  io.submit(*fixture.disk, SM_OP_WRITE, 0, data.data(), 512);
  while (fixture.disk->inFlight() == 0) std::this_thread::yield();
  std::atomic<bool> closed{false};
  std::thread closer([&] {
    fixture.disk->quiesce(VirtualDisk::Quiesce::kClose);
    closed = true;
  });
  // The gate closes on the home thread: once a late I/O is refused it is closed, and the first is still in flight.
  int32_t status = 0;
  do {
    AwaitedIo probe;
    probe.submit(*fixture.disk, SM_OP_FLUSH, 4096, nullptr, 0);  // never reaches the volume
    status = probe.done.get();
  } while (status == -EINVAL);
  CHECK(status == -ESHUTDOWN);
  CHECK_FALSE(closed.load());
  onThread(fixture.thread, [&] {
    fixture.volume.hold = false;
    for (sm_request* request : fixture.volume.held) sm_request_complete(request, 0);
  });
  CHECK(io.done.get() == 0);
  closer.join();
  CHECK(closed.load());
  late.submit(*fixture.disk, SM_OP_READ, 0, data.data(), 512);
  CHECK(late.done.get() == -ESHUTDOWN);
}

TEST_CASE("a resize holds what arrives meanwhile, and judges it by the new size") {
  MemoryDisk fixture(1 << 20);
  std::vector<uint8_t> data(512, 1);
  fixture.disk->quiesce(VirtualDisk::Quiesce::kResize);
  AwaitedIo inside, outside;
  inside.submit(*fixture.disk, SM_OP_WRITE, 0, data.data(), 512);
  outside.submit(*fixture.disk, SM_OP_WRITE, (1 << 20) - 512, data.data(), 512);
  // One that enters as a request of its own, as a workload's do.
  std::promise<int32_t> entered;
  onThread(fixture.thread, [&] {
    sm_request* request = fixture.disk->allocate();
    request->op = SM_OP_FLUSH;
    sm_request_push(
        request,
        [](sm_request* request, void* context, uint64_t disk) {
          static_cast<std::promise<int32_t>*>(context)->set_value(request->status);
          reinterpret_cast<VirtualDisk*>(disk)->release(request);
        },
        &entered, reinterpret_cast<uint64_t>(fixture.disk.get()));
    fixture.disk->enter(request);
  });
  CHECK(fixture.disk->inFlight() == 0);
  fixture.disk->proceed(1 << 19);
  CHECK(inside.done.get() == 0);
  CHECK(outside.done.get() == -EINVAL);
  CHECK(entered.get_future().get() == 0);
  CHECK(fixture.disk->bytes() == 1 << 19);
}
