// What a volume owes when its devices fail: no use of what is freed, and no durability that it may not have.
#include "bare.h"
#include "extent_rig.h"
#include "volumes/extent_table.h"

namespace sm::test {
namespace {

TEST_CASE("close waits for a commit that nobody waits for") {
  WorldOptions options;
  options.devices = {{500 << 10}, {500 << 10}};
  options.immediate = 0;
  Rig rig(options);
  for (int i = 0; i < 2; ++i) REQUIRE(rig.model.create(256 << 10));
  rig.model.mayFail = ENOSPC;
  for (size_t i : {0, 1})
    for (uint64_t at = 0; at < 256 << 10; at += 8192) rig.write(i, at, 8192);
  rig.model.drain();
  REQUIRE(rig.model.failed > 1);
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  rig.model.drain();
  // A write without an extent asks for a commit, which clears what a discard gave up; a second write asks for one more
  // while that runs. The extent of the first commit serves both, as they fail; so nobody waits for the second one.
  uint64_t flushes = 0;
  std::set<const sm_request*> held;
  rig.world.onSubmit = [&](const MemoryDevice&, const sm_request& request) {
    if (request.op == SM_OP_FLUSH && (++flushes <= 2 || flushes > 4)) held.insert(&request);
  };
  rig.world.hold = [&](const sm_request& request) { return held.count(&request) > 0; };
  rig.world.fail = [&](const MemoryDevice& device, const sm_request& request) {
    const uint64_t dataAt = extentLayout(device.device.bytes, 8192).dataAt;
    return request.op == SM_OP_WRITE && request.offset >= dataAt ? -EIO : 0;
  };
  rig.model.mayFail = EIO;
  std::vector<uint64_t> holes;
  for (uint64_t block = 0; block < rig.disk(1).blocks.size(); block += 16)
    if (rig.disk(1).blocks[block].values.back().maybe) holes.push_back(block * kBlock);
  REQUIRE(holes.size() >= 2);
  for (uint64_t i : {0, 1}) {
    rig.model.submit(rig.disk(0), SM_OP_DISCARD, 0, i * 8192, 8192);
    rig.world.runUntil([&] { return rig.model.inFlight() == i; });
    rig.write(1, holes[i], 8192);
    REQUIRE(rig.model.inFlight() == i + 1);
  }
  REQUIRE(flushes == 2);
  held.clear();
  rig.model.drain();
  REQUIRE(flushes == 6);
  REQUIRE(held.size() == 2);
  REQUIRE(rig.world.live() == 2);
  // It fails, too, and is made up for: nothing that was discarded comes back.
  rig.world.hold = nullptr;
  bool failed = false;
  rig.world.fail = [&](const MemoryDevice&, const sm_request& request) {
    if (failed || request.op != SM_OP_WRITE) return 0;
    failed = true;
    return -EIO;
  };
  sm_error error{};
  for (ModelDisk& disk : rig.model.state.disks) extentOps.disk_close(rig.model.volume, disk.handle);
  CHECK(extentOps.close(rig.model.volume, &error) == 0);
  CHECK(rig.world.live() == 0);
  rig.world.runUntil([&] { return rig.world.live() == 0; });
  CHECK(failed);
  rig.model.open();
  rig.model.verify();
  rig.model.close();
}

TEST_CASE("once a flush has failed, no extent that was given up is used again") {
  WorldOptions options;
  options.devices = {{500 << 10}, {500 << 10}};
  Rig rig(options);
  for (int i = 0; i < 2; ++i) REQUIRE(rig.model.create(256 << 10));
  rig.model.mayFail = ENOSPC;
  for (size_t i : {0, 1})
    for (uint64_t at = 0; at < 256 << 10; at += 8192) rig.write(i, at, 8192);
  rig.model.drain();
  uint64_t hole = 0;
  while (!rig.disk(1).blocks[hole].values.back().maybe) hole += 16;
  for (int i = 0; i < 2; ++i) {  // the second time there is nothing to commit
    if (i == 1)
      rig.world.fail = [](const MemoryDevice&, const sm_request& request) {
        return request.op == SM_OP_FLUSH ? -EIO : 0;
      };
    rig.model.mayFail = EIO;
    rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
    rig.model.drain();
  }
  rig.world.fail = nullptr;
  const uint64_t failed = rig.model.failed;
  rig.model.submit(rig.disk(0), SM_OP_DISCARD, 0, 0, 8192);
  rig.model.drain();
  rig.write(1, hole * kBlock, 8192);
  rig.model.drain();
  CHECK(rig.model.failed == failed + 1);
  rig.model.verify();
  sm_error error{};
  for (ModelDisk& disk : rig.model.state.disks) extentOps.disk_close(rig.model.volume, disk.handle);
  CHECK(extentOps.close(rig.model.volume, &error) == -EIO);
}

TEST_CASE("whichever flush fails, nothing is durable from then on until the volume is opened again") {
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps}) {
    bool failed = true;
    for (uint64_t n = 0; failed; ++n) {
      World world({n + 1});
      formatVolume(world, ops, {});
      Bare bare(world, ops);
      REQUIRE(bare.open() == 0);
      uint64_t flushes = 0;
      failed = false;
      world.fail = [&](const MemoryDevice&, const sm_request& request) {
        if (request.op != SM_OP_FLUSH || flushes++ != n) return 0;
        failed = true;
        return -EIO;
      };
      int32_t first = 0;  // failure
      const auto note = [&](int32_t status) {
        CHECK((status == 0 || status == -EIO));
        CHECK((status == -EIO) == failed);
        if (!first) first = status;
        return status == 0;
      };
      // All that flushes: adding, growing, shrinking and deleting a disk, flushes with and without a commit, FUA.
      void* disk = nullptr;
      const auto run = [&] {
        if (!note(bare.create("a"))) return;
        disk = bare.find("a");
        CHECK(bare.io(disk, SM_OP_WRITE, 0, 0, 8192) == 0);
        for (int i = 0; i < 2; ++i)
          if (!note(bare.io(disk, SM_OP_FLUSH))) return;
        const uint32_t fua = SM_FLAG_FUA;
        CHECK((bare.io(disk, SM_OP_WRITE, 0, 0, 4096) == 0));
        if (ops != &stripeOps && !note(bare.io(disk, SM_OP_WRITE, fua, 0, 64 << 10))) return;
        for (uint64_t bytes : {192 << 10, 64 << 10})
          if (!note(ops->disk_resize(bare.volume, disk, bytes, &bare.error))) return;
        if (!note(bare.create("b"))) return;
        if (!note(ops->disk_delete(bare.volume, "vm", "b", &bare.error))) return;
      };
      run();
      CHECK(failed == (first != 0));
      if (failed) {
        if (disk) {
          CHECK(bare.io(disk, SM_OP_FLUSH) == -EIO);
          CHECK(bare.io(disk, SM_OP_WRITE, 0, 0, 4096) == 0);
          CHECK(bare.io(disk, SM_OP_WRITE, SM_FLAG_FUA, 0, 4096) == -EIO);
          CHECK(bare.io(disk, SM_OP_WRITE_ZEROES, SM_FLAG_FUA, 32768, 4096) == -EIO);
          CHECK(bare.io(disk, SM_OP_READ, 0, 0, 4096) == 0);
          CHECK(bare.io(disk, SM_OP_FLUSH) == -EIO);
          CHECK(ops->disk_resize(bare.volume, disk, 32 << 10, &bare.error) == -EIO);
        }
        CHECK(bare.create("c") == -EIO);
        CHECK(bare.says("open it again"));
        if (disk) ops->disk_close(bare.volume, disk);
        CHECK(bare.close() == -EIO);
        REQUIRE_MESSAGE(bare.open() == 0, bare.error.message);
        REQUIRE(bare.create("c") == 0);
        disk = bare.find("c");
        CHECK(bare.io(disk, SM_OP_WRITE, SM_FLAG_FUA, 0, 4096) == 0);
        CHECK(bare.io(disk, SM_OP_FLUSH) == 0);
      } else {
        CHECK(n >= 8);
      }
      ops->disk_close(bare.volume, disk);
      CHECK(bare.close() == 0);
    }
  }
}

TEST_CASE("a FUA write that fails, fails alone") {
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps}) {
    World world({});
    formatVolume(world, ops, {});
    Bare bare(world, ops);
    REQUIRE(bare.open() == 0);
    REQUIRE(bare.create("a") == 0);
    void* disk = bare.find("a");
    world.fail = [](const MemoryDevice&, const sm_request& request) { return request.flags & SM_FLAG_FUA ? -EIO : 0; };
    CHECK(bare.io(disk, SM_OP_WRITE, SM_FLAG_FUA, 0, 4096) == -EIO);
    CHECK(bare.io(disk, SM_OP_FLUSH) == 0);
    world.fail = nullptr;
    CHECK(bare.io(disk, SM_OP_WRITE, SM_FLAG_FUA, 0, 4096) == 0);
    CHECK(bare.create("b") == 0);
    ops->disk_close(bare.volume, disk);
    CHECK(bare.close() == 0);
  }
}

TEST_CASE("who waits for the I/O thread issues no flush of their own") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Rig rig({seed});
    REQUIRE(rig.model.create(64 << 10));
    const uint64_t before = rig.count(SM_OP_FLUSH);
    rig.model.resize(rig.disk(0), 128 << 10);
    CHECK(rig.count(SM_OP_FLUSH) == before + 3);  // a commit without changes on two devices, and the directory
    rig.model.close();
  }
}

}  // namespace
}  // namespace sm::test
