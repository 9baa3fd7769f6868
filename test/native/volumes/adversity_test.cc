// What each adversary does to the requests below is what its name says.
#include <cstring>

#include "adversary.h"

namespace sm::test {
namespace {

TEST_CASE("copying and anonymizing: no child uses its parent's memory; the one's is a clone, the other's is not") {
  for (const char* name : {"copying", "anonymizing"}) {
    Scene scene(name);
    Bytes data = pattern(1, 16384), back(16384);
    const bool clones = !std::strcmp(name, "copying");
    for (uint8_t op : {SM_OP_WRITE, SM_OP_READ}) {
      Bytes& memory = op == SM_OP_WRITE ? data : back;
      const uint64_t serial = scene.run(op, 8192, memory);
      REQUIRE(scene.below.size() == 1);
      CHECK_FALSE(scene.uses(memory));
      CHECK((scene.below[0].serial == serial) == clones);
      if (op == SM_OP_WRITE) CHECK(scene.has(data));
    }
    CHECK(back == data);
  }
}

TEST_CASE("encrypting: other bytes below, the same above, zeroes among them; reads in place or not") {
  for (const char* read : {"place", "copy"}) {
    Scene scene("encrypting", {{"read", read}});
    Bytes data = pattern(2, 8192), back(8192), again = data;
    scene.run(SM_OP_WRITE, 0, data);
    CHECK_FALSE(scene.uses(data));
    CHECK_FALSE(scene.has(Bytes(data.begin(), data.begin() + 16)));
    const Bytes first = scene.below[0].data;
    scene.run(SM_OP_READ, 0, back);
    CHECK(scene.uses(back) == !std::strcmp(read, "place"));
    CHECK(back == data);
    scene.run(SM_OP_WRITE, 65536, again);
    CHECK(scene.below[0].data != first);  // the place is in it
    scene.run(SM_OP_DISCARD, 0, data);
    REQUIRE(scene.below.size() == 1);
    CHECK(scene.below[0].op == SM_OP_WRITE);
    CHECK_FALSE(scene.has(Bytes(16)));
    scene.run(SM_OP_READ, 0, back);
    CHECK(back == Bytes(8192));
  }
}

TEST_CASE("deferring: nothing below until the next request; acknowledged early, a clone comes after its parent") {
  for (const char* ack : {"late", "early"}) {
    const bool early = !std::strcmp(ack, "early");
    Scene scene("deferring", {{"ack", ack}});
    Bytes data = pattern(3, 8192), back(8192), elsewhere(512);
    bool written = false, read = false, other = false;
    const uint64_t serial = scene.submit(SM_OP_WRITE, 4096, data, &written);
    CHECK(scene.below.empty());
    CHECK(written == early);
    if (early) std::fill(data.begin(), data.end(), 0);  // its own again
    scene.submit(SM_OP_READ, 65536, elsewhere, &other);
    REQUIRE(scene.below.size() >= 2);
    CHECK(scene.below[0].op == SM_OP_WRITE);
    CHECK(scene.below[0].serial == serial);
    CHECK(scene.has(pattern(3, 8192)));
    CHECK(scene.uses(data) == !early);
    scene.submit(SM_OP_READ, 4096, back, &read);
    scene.world.runUntil([&] { return written && read && other; });
    CHECK(back == pattern(3, 8192));
  }
}

TEST_CASE("mirroring: two writes, on one device each; acknowledged early, after the first") {
  for (const char* ack : {"late", "early"}) {
    const bool early = !std::strcmp(ack, "early");
    Scene scene("mirroring", {{"ack", ack}});
    Bytes data = pattern(4, 8192), back(8192);
    scene.world.hold = [](const sm_request& request) { return request.op == SM_OP_WRITE && request.device->id == 2; };
    bool done = false;
    const uint64_t serial = scene.submit(SM_OP_WRITE, 4096, data, &done);
    while (scene.world.step()) {
    }
    CHECK(done == early);
    scene.world.hold = nullptr;
    scene.world.runUntil([&] { return done && scene.world.quiet(); });
    REQUIRE(scene.below.size() == 2);
    CHECK(scene.below[0].data == data);
    CHECK(scene.below[1].data == data);
    CHECK(scene.below[0].device != scene.below[1].device);
    CHECK(scene.below[0].serial == serial);
    CHECK(scene.below[1].serial == serial);
    std::set<uint32_t> legs;
    for (int i = 0; i < 4; ++i) {
      scene.run(SM_OP_READ, 4096, back);
      legs.insert(scene.below[0].device);
      CHECK(back == data);
    }
    CHECK(legs.size() == 2);
  }
}

TEST_CASE("mirroring goes on with one leg, whichever it is, also after it was closed") {
  for (uint32_t broken : {1u, 2u}) {
    Scene scene("mirroring");
    Bytes data = pattern(5, 8192), old = pattern(6, 8192), back(8192);
    scene.run(SM_OP_WRITE, 0, old);
    scene.world.fail = [&](const MemoryDevice& device, const sm_request& request) {
      return device.device.id == broken && request.op == SM_OP_WRITE && request.offset >= 65536 ? -EIO : 0;
    };
    scene.run(SM_OP_WRITE, 0, data);
    for (int round = 0; round < 2; ++round) {
      for (int i = 0; i < 4; ++i) {
        scene.run(SM_OP_READ, 0, back);
        CHECK(back == data);
      }
      scene.world.onSubmit = nullptr;
      scene.model.close();
      scene.model.open();
    }
  }
}

TEST_CASE("dedup: a hit issues nothing and shares the place; what is written over stays with the others") {
  Scene scene("dedup", {{"zero", "1"}});
  Bytes data = pattern(7, 4096), other = pattern(8, 4096), back(4096), none(4096);
  scene.run(SM_OP_WRITE, 0, data);
  REQUIRE(scene.below.size() == 1);
  const uint64_t place = scene.below[0].offset;
  for (uint64_t at : {4096, 65536, 131072}) {
    scene.run(SM_OP_WRITE, at, data);
    CHECK(scene.below.empty());
    scene.run(SM_OP_READ, at, back);
    REQUIRE(scene.below.size() == 1);
    CHECK(scene.below[0].offset == place);
    CHECK(back == data);
  }
  scene.run(SM_OP_WRITE, 65536, other);
  REQUIRE(scene.below.size() == 1);
  CHECK(scene.below[0].offset != place);
  Bytes part = pattern(9, 512);
  scene.run(SM_OP_WRITE, 131072 + 512, part);
  REQUIRE(scene.below.size() == 2);
  CHECK(scene.below[0].offset == place);
  CHECK(scene.below[1].op == SM_OP_WRITE);
  CHECK(scene.below[1].offset != place);
  scene.run(SM_OP_WRITE, 8192, none);
  CHECK(scene.below.empty());
  scene.run(SM_OP_READ, 0, back);
  CHECK(back == data);
}

TEST_CASE("dedup: what was written over is not found again, and places are given back") {
  Scene scene("dedup");
  Bytes back(4096);
  std::set<uint64_t> places;
  for (uint64_t round = 0; round < 50; ++round) {
    Bytes data = pattern(100 + round, 4096), other = pattern(200 + round, 4096);
    for (uint64_t at : {0, 4096}) {
      scene.run(SM_OP_WRITE, at, data);
      for (const Below& child : scene.below) places.insert(child.offset);
    }
    CHECK(scene.below.empty());
    scene.run(SM_OP_WRITE, 4096, other);  // gets a place of its own
    for (const Below& child : scene.below) places.insert(child.offset);
    scene.run(SM_OP_WRITE, 0, other);  // hits, and gives its place back
    CHECK(scene.below.empty());
    scene.run(SM_OP_WRITE, 0, data);
    CHECK(scene.below.size() == 1);   // what was given back is not found
    scene.run(SM_OP_WRITE, 0, back);  // over it: no unit has those bytes any more
    scene.run(SM_OP_WRITE, 8192, data);
    CHECK(scene.below.size() == 1);
    scene.run(SM_OP_READ, 8192, data);
    CHECK(data == pattern(100 + round, 4096));
  }
  CHECK(places.size() <= 4);
}

TEST_CASE("journalling: two writes of equal bytes, the first not in its place; acknowledged early, after that") {
  for (const char* ack : {"late", "early"}) {
    const bool early = !std::strcmp(ack, "early");
    Scene scene("journalling", {{"ack", ack}});
    Bytes data = pattern(10, 8192), back(8192);
    bool done = false, read = false;
    const uint64_t serial = scene.submit(SM_OP_WRITE, 4096, data, &done);
    scene.world.runUntil([&] { return done; });
    CHECK(scene.below.size() == (early ? 1 : 2));
    scene.submit(SM_OP_READ, 4096, back, &read);
    scene.world.runUntil([&] { return read && scene.world.quiet(); });
    CHECK(back == data);
    REQUIRE(scene.below.size() == 3);
    CHECK(scene.below[0].data == data);
    CHECK(scene.below[1].data == data);
    CHECK(scene.below[0].offset != scene.below[1].offset);
    CHECK(scene.below[0].serial == serial);
    CHECK(scene.below[1].serial == serial);
    CHECK(scene.below[2].offset == scene.below[1].offset);
  }
}

TEST_CASE("rmw: a child is longer than its parent, and holds the parent's memory or a copy of it") {
  for (const char* copy : {"0", "1"}) {
    for (uint64_t block : {4096, 65536}) {
      Scene scene("rmw", {{"copy", copy}, {"block", block == 4096 ? "4K" : "64K"}});
      Bytes all = pattern(11, 131072), data = pattern(12, 1024), back(131072);
      scene.run(SM_OP_WRITE, 0, all);
      CHECK(scene.below.size() == 1);
      scene.run(SM_OP_WRITE, 1536, data);
      REQUIRE(scene.below.size() == 2);
      CHECK(scene.below[0].op == SM_OP_READ);
      CHECK(scene.below[1].op == SM_OP_WRITE);
      CHECK(scene.below[1].data.size() == block);
      CHECK(scene.has(data));
      CHECK(scene.uses(data) == !std::strcmp(copy, "0"));
      std::copy(data.begin(), data.end(), all.begin() + 1536);
      scene.run(SM_OP_READ, 0, back);
      CHECK(back == all);
    }
  }
}

}  // namespace
}  // namespace sm::test
