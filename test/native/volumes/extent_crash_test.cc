// What the extent volume owes after a crash and in overlap, one reason at a time.
#include <algorithm>
#include <cstring>

#include "extent_rig.h"
#include "volumes/crc32c.h"
#include "volumes/extent_table.h"

namespace sm::test {
namespace {

// The value of a block that recover has found.
uint32_t valueOf(const Model& model, size_t disk, uint64_t block) {
  return model.state.disks[disk].blocks[block].values.back().id;
}

// Goes on from nothing but what is durable.
struct Recovered {
  explicit Recovered(Rig& before, const WorldOptions& options = {})
      : images(before.world.durable()), world(options, &images), model(world, &extentOps, 512) {
    model.recover(before.model.state);
  }
  std::vector<Bytes> images;
  World world;
  Model model;
};

TEST_CASE("FUA: to a new extent, to one that no commit knows yet, to a hole that is not durable") {
  Rig rig({});
  REQUIRE(rig.model.create(64 << 10));
  rig.write(0, 0, 4096);  // value 1
  rig.model.drain();
  rig.write(0, 4096, 4096, SM_FLAG_FUA);
  rig.write(0, 32768, 8192, SM_FLAG_FUA);
  rig.model.drain();
  {
    Recovered after(rig);
    CHECK(valueOf(after.model, 0, 8) == 2);
    CHECK(valueOf(after.model, 0, 64) == 3);
    after.model.close();
  }
  rig.model.submit(rig.disk(0), SM_OP_DISCARD, 0, 32768, 8192);
  rig.model.drain();
  rig.model.submit(rig.disk(0), SM_OP_WRITE_ZEROES, SM_FLAG_FUA, 32768, 8192);
  rig.model.drain();
  Recovered after(rig);
  CHECK(valueOf(after.model, 0, 64) == 0);
  after.model.close();
  rig.model.close();
}

TEST_CASE("a flush that fails promises nothing, the next one that succeeds keeps its promise") {
  Rig rig({});
  rig.model.mayFail = EIO;
  REQUIRE(rig.model.create(64 << 10));
  rig.write(0, 0, 8192);
  rig.model.drain();
  rig.world.fail = [](const MemoryDevice&, const sm_request& request) {
    return request.op == SM_OP_WRITE && request.offset < 400 << 10 ? -EIO : 0;  // the table of extents
  };
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  rig.model.drain();
  CHECK(rig.model.failed == 1);
  rig.world.fail = nullptr;
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  rig.model.drain();
  CHECK(rig.model.failed == 1);
  Recovered after(rig);
  CHECK(valueOf(after.model, 0, 0) == 1);
  after.model.close();
  rig.model.close();
}

TEST_CASE("an extent is not used again while a child still touches it") {
  for (uint8_t op : {SM_OP_READ, SM_OP_WRITE}) {
    WorldOptions options;
    options.devices = {{500 << 10}, {500 << 10}};
    Rig rig(options);
    REQUIRE(rig.model.create(8192));
    REQUIRE(rig.model.create(128 << 10));
    REQUIRE(rig.model.create(256 << 10));
    // The first disk has one extent; the others take all the rest.
    rig.write(0, 0, 8192);
    rig.model.drain();
    rig.model.mayFail = ENOSPC;
    for (size_t i : {1, 2})
      for (uint64_t at = 0; at < rig.disk(i).bytes; at += 8192) rig.write(i, at, 8192);
    rig.model.drain();
    REQUIRE(rig.model.failed > 0);
    const uint64_t failed = rig.model.failed;
    rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
    rig.model.drain();
    // A slow child to that extent, which is discarded meanwhile. The model knows no overlap: by hand.
    const sm_request* slow = nullptr;
    uint64_t place = 0, device = 0;
    rig.world.onSubmit = [&](const MemoryDevice& memory, const sm_request& request) {
      if (slow) return;
      slow = &request;
      place = request.offset;
      device = memory.device.id;
    };
    rig.world.hold = [&](const sm_request& request) { return &request == slow; };
    std::vector<uint8_t> memory(8192, 0x5a);
    iovec iov{memory.data(), memory.size()};
    bool done[2] = {};
    sm_request* requests[2];
    for (int i = 0; i < 2; ++i) {
      requests[i] = rig.world.parent();
      requests[i]->op = i ? uint8_t{SM_OP_DISCARD} : op;
      requests[i]->length = 8192;
      if (i == 0) requests[i]->iov = &iov, requests[i]->iov_count = 1;
      sm_request_push(
          requests[i], [](sm_request*, void* context, uint64_t) { *static_cast<bool*>(context) = true; }, &done[i], 0);
      extentOps.submit(rig.model.volume, rig.disk(0).handle, requests[i]);
    }
    rig.world.runUntil([&] { return done[1]; });
    // Another disk needs an extent, and there is no other.
    uint32_t reused = 0;
    rig.world.onSubmit = [&](const MemoryDevice& memory, const sm_request& request) {
      reused += memory.device.id == device && request.offset == place && request.op == SM_OP_WRITE;
    };
    uint64_t hole = 0;
    while (rig.disk(2).blocks[hole].values.back().maybe == false) hole += 16;
    rig.write(2, hole * kBlock, 8192);
    while (rig.world.step()) continue;
    CHECK(reused == 0);
    CHECK(rig.model.inFlight() == 1);
    CHECK_FALSE(done[0]);
    slow = nullptr;
    rig.world.runUntil([&] { return done[0]; });
    rig.model.drain();
    CHECK(reused == 1);
    CHECK(rig.model.failed == failed);
    rig.world.hold = nullptr;
    rig.world.onSubmit = nullptr;
    for (sm_request* request : requests) rig.world.releaseParent(request);
    for (Block& block : rig.disk(0).blocks) block.values = {Value{}};  // the discard came last
    rig.model.verify();
    rig.model.close();
  }
}

TEST_CASE("what shrinking cut off does not come back, whenever the crash") {
  Rig rig({});
  REQUIRE(rig.model.create(64 << 10));
  rig.write(0, 0, 64 << 10);
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  rig.model.drain();
  rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
  rig.model.drain();
  rig.model.resize(rig.disk(0), 4096);
  Recovered shrunk(rig);  // the entries of what was cut off are still on the medium
  shrunk.model.resize(shrunk.model.state.disks[0], 64 << 10);
  const std::vector<Bytes> images = shrunk.world.durable();
  World later({}, &images);
  Model grown(later, &extentOps, 512);
  grown.recover(shrunk.model.state);
  CHECK(valueOf(grown, 0, 0) == 1);
  for (uint64_t block = 8; block < 128; ++block) CHECK(valueOf(grown, 0, block) == 0);
  grown.close();
  shrunk.model.close();
  rig.model.close();
}

// Finds the sector and entry that map an extent of a disk.
ExtentEntry* findEntry(std::vector<Bytes>& images, uint32_t index, uint8_t** sector) {
  for (Bytes& image : images)
    for (uint64_t at = kTypeAt; at < kTypeAt + extentLayout(image.size(), 8192).sectors * 512; at += 512) {
      auto* found = reinterpret_cast<ExtentSector*>(&image[at]);
      for (ExtentEntry& entry : found->entries)
        if (entry.disk == 1 && entry.index == index) {
          *sector = &image[at];
          return &entry;
        }
    }
  return nullptr;
}

TEST_CASE("of two entries for one place the newer counts, and the older never comes back") {
  for (bool first : {true, false}) {
    Rig rig({});
    REQUIRE(rig.model.create(64 << 10));
    rig.write(0, 0, 8192);     // value 1
    rig.write(0, 8192, 8192);  // value 2
    rig.model.close();
    std::vector<Bytes> images = rig.world.durable();
    // Let both extents claim to be the disk's first, one of them newer.
    uint8_t* sectors[2];
    ExtentEntry* entries[2] = {findEntry(images, 0, &sectors[0]), findEntry(images, 1, &sectors[1])};
    REQUIRE(entries[0]);
    REQUIRE(entries[1]);
    entries[1]->index = 0;
    entries[0]->sequence = first ? 901 : 900;
    entries[1]->sequence = first ? 900 : 901;
    Superblock superblock;
    memcpy(&superblock, images[0].data(), sizeof superblock);
    for (uint8_t* sector : sectors) {
      const uint32_t crc = crc32c(crc32c(0, superblock.uuid, 16), sector, 508);
      memcpy(sector + 508, &crc, sizeof crc);
    }
    World world({}, &images);
    Model model(world, &extentOps, 512);
    model.state = rig.model.state;
    for (uint64_t i = 0; i < 32; ++i) model.state.disks[0].blocks[i].values = {Value{}};
    model.open();
    // Which one it is shows by how a block of value 2 reads at offset 0: as no block of this place.
    std::vector<uint8_t> memory(512);
    iovec iov{memory.data(), memory.size()};
    sm_request* read = world.parent();
    bool done = false;
    read->op = SM_OP_READ;
    read->length = 512;
    read->iov = &iov;
    read->iov_count = 1;
    sm_request_push(
        read, [](sm_request*, void* context, uint64_t) { *static_cast<bool*>(context) = true; }, &done, 0);
    extentOps.submit(model.volume, model.state.disks[0].handle, read);
    world.runUntil([&] { return done; });
    world.releaseParent(read);
    CHECK(readBlock(memory.data(), 1, first ? 0 : 16) == (first ? 1 : 2));
    // What is written in that place's stead is newer than both; what is discarded stays so.
    model.submit(model.state.disks[0], SM_OP_DISCARD, 0, 0, 8192);
    model.drain();
    model.submit(model.state.disks[0], SM_OP_WRITE, SM_FLAG_FUA, 0, 8192);
    model.drain();
    std::vector<Bytes> written = world.durable();
    uint8_t* sector;
    const ExtentEntry* newest = findEntry(written, 0, &sector);
    REQUIRE(newest);
    CHECK(newest->sequence > 901);
    model.submit(model.state.disks[0], SM_OP_DISCARD, 0, 0, 8192);
    model.drain();
    model.submit(model.state.disks[0], SM_OP_FLUSH, 0, 0, 0);
    model.drain();
    model.verify();
    const std::vector<Bytes> after = world.durable();
    World again({}, &after);
    Model reopened(again, &extentOps, 512);
    reopened.recover(model.state);
    CHECK(valueOf(reopened, 0, 0) == 0);
    reopened.close();
    model.close();
  }
}

}  // namespace
}  // namespace sm::test
