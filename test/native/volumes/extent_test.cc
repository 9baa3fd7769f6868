// What is particular to the extent volume.
#include <algorithm>
#include <cstring>
#include <map>

#include "extent_rig.h"

namespace sm::test {
namespace {

TEST_CASE("neighbours in a disk are rarely neighbours on a device") {
  WorldOptions options;
  options.devices = {{4 << 20}, {4 << 20}};
  options.children = 1000;  // each write is issued when it is submitted
  for (const char* seed : {"1", "2", "77"}) {
    Rig rig(options, {{"extentSize", "8K"}, {"seed", seed}});
    REQUIRE(rig.model.create(2 << 20));
    std::map<uint64_t, uint64_t> places;
    uint64_t at = 0;
    rig.world.onSubmit = [&](const MemoryDevice& device, const sm_request& request) {
      if (request.op == SM_OP_WRITE) places[at] = request.offset + (uint64_t{device.device.id} << 40);
    };
    for (; at < 2 << 20; at += 8192) rig.write(0, at, 8192);
    rig.model.drain();
    uint64_t neighbours = 0;
    for (uint64_t i = 8192; i < 2 << 20; i += 8192) {
      const uint64_t distance =
          places[i] > places[i - 8192] ? places[i] - places[i - 8192] : places[i - 8192] - places[i];
      neighbours += distance == 8192;
    }
    REQUIRE(places.size() == 256);
    CHECK(neighbours <= 25);
    rig.world.onSubmit = nullptr;
    rig.model.close();
  }
}

TEST_CASE("a full pool fails that write alone, and a discard makes room") {
  for (uint32_t children : {1u, 64u}) {
    WorldOptions options;
    options.children = children;
    options.devices = {{500 << 10}, {500 << 10}};
    Rig rig(options);
    for (int i = 0; i < 3; ++i) REQUIRE(rig.model.create(128 << 10));
    rig.model.mayFail = ENOSPC;
    for (size_t i = 0; i < 3; ++i)
      for (uint64_t at = 0; at < 128 << 10; at += 32 << 10) rig.write(i, at, 32 << 10);
    rig.model.drain();
    CHECK(rig.model.failed > 0);
    CHECK(rig.model.failed < 6);
    rig.model.verify();
    const uint64_t failed = rig.model.failed;
    // Overwriting what is there needs no room.
    rig.write(0, 0, 64 << 10);
    rig.model.drain();
    CHECK(rig.model.failed == failed);
    // Freed, and used again by another disk without a flush of the guest's.
    rig.model.submit(rig.disk(0), SM_OP_DISCARD, 0, 0, 128 << 10);
    rig.model.drain();
    for (uint64_t at = 0; at < 128 << 10; at += 32 << 10) rig.write(2, at, 32 << 10);
    rig.model.drain();
    CHECK(rig.model.failed == failed);
    rig.model.verify();
    rig.model.close();
    rig.model.open();
    rig.model.verify();
    rig.model.close();
  }
}

TEST_CASE("a disk that can never fit is refused, one that may be is not") {
  Rig rig({});
  sm_error error{};
  for (uint64_t bytes : {uint64_t{1} << 40, UINT64_MAX - 511, uint64_t{2} << 20})
    CHECK(extentOps.disk_create(rig.model.volume, "vm", "big", bytes, &error) == -EFBIG);
  CHECK(extentOps.disk_create(rig.model.volume, "vm", "odd", 1000, &error) == -EINVAL);
  CHECK(extentOps.disk_create(rig.model.volume, "vm", "none", 0, &error) == -EINVAL);
  CHECK(extentOps.disk_create(rig.model.volume, std::string(64, 'v').c_str(), "d", 4096, &error) == -EINVAL);
  CHECK(extentOps.disk_create(rig.model.volume, "", "d", 4096, &error) == -EINVAL);
  for (int i = 0; i < 4; ++i) REQUIRE(rig.model.create(1 << 20));  // more than there is, together
  CHECK(extentOps.disk_create(rig.model.volume, rig.disk(0).vm.c_str(), rig.disk(0).name.c_str(), 4096, &error) ==
        -EEXIST);
  CHECK(extentOps.disk_resize(rig.model.volume, rig.disk(0).handle, 1 << 30, &error) == -EFBIG);
  CHECK(extentOps.disk_delete(rig.model.volume, "no", "such", &error) == -ENOENT);
  rig.model.verify();
  rig.model.close();
}

TEST_CASE("what is not allocated costs nothing to read, zero or discard") {
  Rig rig({});
  REQUIRE(rig.model.create(512 << 10));
  const uint64_t before = rig.count(SM_OP_READ), zeroed = rig.count(SM_OP_WRITE_ZEROES);  // by format
  for (uint8_t op : {SM_OP_READ, SM_OP_WRITE_ZEROES, SM_OP_DISCARD, SM_OP_READ})
    rig.model.submit(rig.disk(0), op, 0, 4096, 256 << 10), rig.model.drain();
  CHECK(rig.count(SM_OP_READ) == before);
  CHECK(rig.count(SM_OP_WRITE_ZEROES) == zeroed);
  CHECK(rig.count(SM_OP_DISCARD) == 0);
  rig.model.close();
}

TEST_CASE("clones carry the parent, fresh children do not") {
  for (const char* issue : {"clone", "fresh"}) {
    Rig rig({}, {{"extentSize", "8K"}, {"issue", issue}});
    const bool clones = !strcmp(issue, "clone");
    REQUIRE(rig.model.create(64 << 10));
    rig.write(0, 0, 64 << 10);
    rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
    rig.model.drain();
    rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
    rig.model.drain();
    std::vector<uint8_t> memory(24 << 10);
    iovec iov{memory.data(), memory.size()};
    for (uint8_t op : {SM_OP_READ, SM_OP_WRITE, SM_OP_WRITE_ZEROES, SM_OP_FLUSH, SM_OP_DISCARD}) {
      sm_request* parent = rig.world.parent();
      const bool carries = op == SM_OP_READ || op == SM_OP_WRITE;
      parent->op = op;
      parent->ioprio = 77;
      parent->private_data = &iov;
      parent->spare[2] = 42;
      static_cast<uint8_t*>(parent->extension)[5] = 9;
      parent->offset = op == SM_OP_FLUSH ? 0 : 4096;
      parent->length = op == SM_OP_FLUSH ? 0 : memory.size();
      if (carries) parent->iov = &iov, parent->iov_count = 1;
      if (op == SM_OP_WRITE) parent->flags = SM_FLAG_FUA;
      uint32_t children = 0;
      rig.world.onSubmit = [&](const MemoryDevice&, const sm_request& child) {
        ++children;
        CHECK((child.serial == parent->serial) == clones);
        CHECK(child.ioprio == (clones ? 77 : 0));
        CHECK(child.private_data == (clones ? &iov : nullptr));
        CHECK(child.spare[2] == (clones ? 42 : 0));
        CHECK(static_cast<uint8_t*>(child.extension)[5] == (clones ? 9 : 0));
        CHECK(child.flags == parent->flags);
        if (carries) {  // the parent's memory itself, not a copy
          const auto* base = static_cast<uint8_t*>(child.iov[0].iov_base);
          CHECK((base >= memory.data() && base < memory.data() + memory.size()));
        }
      };
      bool done = false;
      sm_request_push(
          parent, [](sm_request*, void* context, uint64_t) { *static_cast<bool*>(context) = true; }, &done, 0);
      extentOps.submit(rig.model.volume, rig.disk(0).handle, parent);
      rig.world.runUntil([&] { return done; });
      rig.world.onSubmit = nullptr;
      CHECK(parent->status == 0);
      CHECK(children == (op == SM_OP_FLUSH ? 2 : 4));
      rig.world.releaseParent(parent);
    }
    rig.model.close();
  }
}

TEST_CASE("a flush with nothing to commit is one flush of each device; steady writes are one child each") {
  Rig rig({});
  REQUIRE(rig.model.create(64 << 10));
  rig.write(0, 0, 64 << 10);
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  rig.model.drain();
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  rig.model.drain();
  const uint64_t flushes = rig.count(SM_OP_FLUSH), writes = rig.count(SM_OP_WRITE);
  rig.write(0, 8192, 4096, SM_FLAG_FUA);
  rig.write(0, 16384, 8192);
  rig.model.drain();
  CHECK(rig.count(SM_OP_WRITE) == writes + 2);
  CHECK(rig.count(SM_OP_FLUSH) == flushes);
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  rig.model.drain();
  CHECK(rig.count(SM_OP_WRITE) == writes + 2);
  CHECK(rig.count(SM_OP_FLUSH) == flushes + 2);
  rig.model.close();
}

TEST_CASE("overlapping writes to the same new extents leave whole blocks of one of them") {
  for (uint32_t children : {2u, 64u}) {
    WorldOptions options;
    options.seed = children;
    options.children = children;
    Rig rig(options);
    REQUIRE(rig.model.create(128 << 10));
    constexpr int kWriters = 12;
    for (int round = 0; round < 30; ++round) {
      std::vector<std::vector<uint8_t>> data(kWriters, std::vector<uint8_t>(64 << 10));
      std::vector<iovec> iov(kWriters);
      std::vector<sm_request*> requests;
      int done = 0;
      const uint64_t base = below(rig.world.random(), 2) * (32 << 10);
      for (int i = 0; i < kWriters; ++i) {
        std::fill(data[i].begin(), data[i].end(), static_cast<uint8_t>(i + 1));
        sm_request* request = rig.world.parent();
        request->op = i % 5 == 4 ? SM_OP_DISCARD : SM_OP_WRITE;
        request->offset = base + below(rig.world.random(), 32) * 512;
        request->length = 512 * (1 + below(rig.world.random(), 60));
        iov[i] = {data[i].data(), request->length};
        if (request->op == SM_OP_WRITE) request->iov = &iov[i], request->iov_count = 1;
        sm_request_push(
            request, [](sm_request*, void* context, uint64_t) { ++*static_cast<int*>(context); }, &done, 0);
        requests.push_back(request);
        extentOps.submit(rig.model.volume, rig.disk(0).handle, request);
        for (uint64_t j = below(rig.world.random(), 3); j > 0; --j) rig.world.step();
      }
      rig.world.runUntil([&] { return done == kWriters; });
      for (sm_request* request : requests) {
        CHECK(request->status == 0);
        rig.world.releaseParent(request);
      }
      std::vector<uint8_t> out(128 << 10, 0xee);
      iovec outIov{out.data(), out.size()};
      sm_request* read = rig.world.parent();
      read->op = SM_OP_READ;
      read->length = out.size();
      read->iov = &outIov;
      read->iov_count = 1;
      sm_request_push(
          read, [](sm_request*, void* context, uint64_t) { ++*static_cast<int*>(context); }, &done, 0);
      extentOps.submit(rig.model.volume, rig.disk(0).handle, read);
      rig.world.runUntil([&] { return done == kWriters + 1; });
      rig.world.releaseParent(read);
      for (uint64_t at = 0; at < out.size(); at += 512) {
        REQUIRE(out[at] <= kWriters);
        REQUIRE(std::all_of(&out[at], &out[at] + 512, [&](uint8_t byte) { return byte == out[at]; }));
      }
    }
    rig.model.close();
  }
}

}  // namespace
}  // namespace sm::test
