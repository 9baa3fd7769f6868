// The list of disks on devices that fail: where a change of it fails it is the old one, and what only a copy that is
// lost can know is not forgotten.
#include <algorithm>

#include "bare.h"
#include "extent_rig.h"
#include "volumes/medium.h"

namespace sm::test {
namespace {

// What an image of the devices lists.
std::map<std::string, uint64_t> listOf(const sm_volume_ops* ops, const std::vector<Bytes>& images) {
  World world({}, &images);
  Bare bare(world, ops);
  REQUIRE_MESSAGE(bare.open() == 0, bare.error.message);
  const auto disks = bare.list();
  CHECK(bare.close() == 0);
  return disks;
}

bool inDirectory(const sm_request& request) {
  return request.device->id == 1 && request.offset >= kDirectoryAt && request.offset < kTypeAt;
}

// Lets a write that is about to fail reach the medium all the same.
void land(World& world, const sm_request& request) {
  MemoryDevice& memory = world.memory(request.device->id - 1);
  uint64_t at = request.offset;
  for (uint32_t i = 0; i < request.iov_count; ++i) {
    const auto* from = static_cast<const uint8_t*>(request.iov[i].iov_base);
    memory.changes.push_back({at, Bytes(from, from + request.iov[i].iov_len), true});
    std::copy_n(from, request.iov[i].iov_len, memory.now.begin() + static_cast<long>(at));
    at += request.iov[i].iov_len;
  }
}

TEST_CASE("a change of the list that fails leaves the old list, whatever of it reached the medium") {
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps})
    for (bool atFlush : {false, true}) {
      World world({});
      formatVolume(world, ops, {});
      Bare bare(world, ops);
      REQUIRE(bare.open() == 0);
      REQUIRE(bare.create("a") == 0);
      const std::map<std::string, uint64_t> old = bare.list();
      bool written = false, failed = false;
      world.fail = [&](const MemoryDevice&, const sm_request& request) {
        const bool write = request.op == SM_OP_WRITE && inDirectory(request);
        written |= write;
        if (failed || !(atFlush ? written && request.op == SM_OP_FLUSH : write)) return 0;
        failed = true;
        if (write) land(world, request);
        return -EIO;
      };
      CHECK(bare.create("b") == -EIO);
      REQUIRE(failed);
      CHECK(bare.list() == old);
      CHECK(listOf(ops, world.durable()) == old);
      for (int i = 0; i < 20; ++i) CHECK(listOf(ops, world.crash()) == old);
      // A write that failed alone is no reason to refuse the next change; it is found again.
      CHECK(bare.create("b") == (atFlush ? -EIO : 0));
      CHECK(bare.close() == (atFlush ? -EIO : 0));
      CHECK(listOf(ops, world.durable()).size() == (atFlush ? 1 : 2));
    }
}

TEST_CASE("a change of the list fails where another flush has failed before its own succeeds") {
  Rig rig({});
  REQUIRE(rig.model.create(64 << 10));
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  rig.model.drain();
  const sm_request* flush = nullptr;  // the directory's
  bool written = false;
  rig.world.onSubmit = [&](const MemoryDevice&, const sm_request& request) {
    if (request.op == SM_OP_FLUSH && written && !flush) flush = &request;
    written |= request.op == SM_OP_WRITE && inDirectory(request);
  };
  rig.world.hold = [&](const sm_request& request) {
    return request.op == SM_OP_FLUSH && (flush ? &request == flush && rig.model.inFlight() > 0 : true);
  };
  rig.world.fail = [&](const MemoryDevice&, const sm_request& request) {
    return request.op == SM_OP_FLUSH && rig.model.inFlight() > 0 ? -EIO : 0;
  };
  rig.model.mayFail = EIO;
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  sm_error error{};
  CHECK(extentOps.disk_create(rig.model.volume, "vm", "b", 64 << 10, &error) == -EIO);
  CHECK(rig.model.failed == 1);
  CHECK(listOf(&extentOps, rig.world.durable()).size() == 1);
  extentOps.disk_close(rig.model.volume, rig.disk(0).handle);
  CHECK(extentOps.close(rig.model.volume, &error) == -EIO);
}

TEST_CASE("where the old list cannot be put back either, every further change is refused") {
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps})
    for (bool atFlush : {false, true}) {
      World world({});
      formatVolume(world, ops, {});
      Bare bare(world, ops);
      REQUIRE(bare.open() == 0);
      REQUIRE(bare.create("a") == 0);
      void* disk = bare.find("a");
      uint32_t writes = 0;
      world.fail = [&](const MemoryDevice&, const sm_request& request) {
        const bool write = request.op == SM_OP_WRITE && inDirectory(request);
        writes += write;
        if (write && writes == 1) {
          land(world, request);
          return -EIO;
        }
        return writes == 2 && (atFlush ? request.op == SM_OP_FLUSH : write) ? -EIO : 0;
      };
      CHECK(bare.create("b") == -EIO);
      CHECK(bare.says("nor put back"));
      CHECK(writes == 2);
      world.fail = nullptr;
      const uint64_t before = world.memory(0).counts[SM_OP_WRITE];
      CHECK(bare.create("c") == -EIO);
      CHECK(bare.says("open it again"));
      CHECK(ops->disk_resize(bare.volume, disk, 32 << 10, &bare.error) == -EIO);
      CHECK(bare.io(disk, SM_OP_FLUSH) == -EIO);
      ops->disk_close(bare.volume, disk);
      CHECK(ops->disk_delete(bare.volume, "vm", "a", &bare.error) == -EIO);
      CHECK(bare.close() == -EIO);
      CHECK(world.memory(0).counts[SM_OP_WRITE] == before);
      REQUIRE(bare.open() == 0);
      CHECK(bare.find("a"));
      CHECK(bare.create("c") == 0);
      CHECK(bare.close() == 0);
    }
}

// Fails the reads of a copy of the directory.
auto unreadable(uint32_t copies) {  // bits
  return [copies](const MemoryDevice&, const sm_request& request) {
    const auto copy = static_cast<uint32_t>((request.offset - kDirectoryAt) / kDirectoryBytes);
    return request.op == SM_OP_READ && inDirectory(request) && (copies >> copy & 1) ? -EIO : 0;
  };
}

TEST_CASE("one copy of the directory that cannot be read does not matter, both do") {
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps}) {
    World world({});
    formatVolume(world, ops, {});
    Bare bare(world, ops);
    REQUIRE(bare.open() == 0);
    for (const char* name : {"a", "b"}) REQUIRE(bare.create(name) == 0);  // the list is in the first copy
    REQUIRE(bare.close() == 0);
    world.fail = unreadable(3);
    CHECK(bare.open() == -EIO);
    CHECK(bare.says("cannot read device 'd0'"));
    world.fail = unreadable(2);
    REQUIRE(bare.open() == 0);
    CHECK(bare.list().size() == 2);
    REQUIRE(bare.close() == 0);
    REQUIRE(world.log.size() == 1);
    world.fail = unreadable(1);
    REQUIRE(bare.open() == 0);
    CHECK(bare.list().size() == 1);
    REQUIRE(world.log.size() == 2);
    CHECK(world.log[1].find("may lack the last change") != std::string::npos);
    CHECK(bare.create("c") == 0);  // over the copy that cannot be read
    REQUIRE(bare.close() == 0);
    world.fail = nullptr;
    REQUIRE(bare.open() == 0);
    CHECK(bare.list().size() == 2);
    CHECK(bare.find("c"));
    REQUIRE(bare.close() == 0);
  }
}

TEST_CASE("extents that only an unreadable list knows are not given up") {
  for (bool grown : {false, true}) {
    World world({});
    formatVolume(world, &extentOps, {});
    Bare bare(world, &extentOps);
    REQUIRE(bare.open() == 0);
    REQUIRE(bare.create("a") == 0);
    void* disk = bare.find("a");
    if (grown) REQUIRE(extentOps.disk_resize(bare.volume, disk, 128 << 10, &bare.error) == 0);
    else REQUIRE(bare.create("b") == 0);
    if (!grown) disk = bare.find("b");
    REQUIRE(bare.io(disk, SM_OP_WRITE, SM_FLAG_FUA, grown ? 64 << 10 : 0, 64 << 10) == 0);
    REQUIRE(bare.close() == 0);
    world.fail = unreadable(1);
    CHECK(bare.open() == -EBADMSG);
    CHECK_MESSAGE(bare.says(grown ? "extent 1 of disk 1 is in use" : "extent 0 of disk 2 is in use"),
                  bare.error.message);
    world.fail = nullptr;
    REQUIRE(bare.open() == 0);
    CHECK(bare.list().size() == (grown ? 1 : 2));
    REQUIRE(bare.close() == 0);
  }
}

TEST_CASE("extents of a disk that was deleted are given up, whichever copy of the list is left") {
  World world({});
  formatVolume(world, &extentOps, {});
  Bare bare(world, &extentOps);
  REQUIRE(bare.open() == 0);
  for (const char* name : {"a", "b"}) {
    REQUIRE(bare.create(name) == 0);
    REQUIRE(bare.io(bare.find(name), SM_OP_WRITE, SM_FLAG_FUA, 0, 64 << 10) == 0);
  }
  for (const char* name : {"b", "a"}) REQUIRE(extentOps.disk_delete(bare.volume, "vm", name, &bare.error) == 0);
  const std::vector<Bytes> images = world.durable();  // before the commit that clears their entries
  REQUIRE(bare.close() == 0);
  for (uint32_t copy : {0u, 1u}) {
    World later({}, &images);
    Bare left(later, &extentOps);
    later.fail = unreadable(1 << copy);
    REQUIRE_MESSAGE(left.open() == 0, left.error.message);
    later.fail = nullptr;
    CHECK(left.list().size() == (copy == 0 ? 1 : 0));
    REQUIRE(left.close() == 0);
  }
}

}  // namespace
}  // namespace sm::test
