// The address map where it is full, large, asked in parts, or used by several.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "map/address_map.h"

using namespace sm;

namespace {

struct One {
  AddressMap map;
  DiskKey disk = map.internDisk({"vm", "a"});
  DeviceKey device = map.internDevice("d");
  void add(Range virt, uint64_t place) {
    std::lock_guard lock(map.mutex());
    map.add(disk, virt, {device, place}, State::kMapped);
  }
};

}  // namespace

TEST_CASE("with more places or owners than it keeps, a map forgets in both directions, and never invents") {
  std::mt19937_64 random(3);
  One one;
  std::set<std::pair<uint64_t, uint64_t>> added;
  for (int step = 0; step < 2000; ++step) {
    const uint64_t length = 1 + random() % 5, v = random() % (20 - length), p = random() % (20 - length);
    one.add({v, v + length}, p);
    for (uint64_t i = 0; i < length; ++i) added.insert({v + i, p + i});
    std::set<std::pair<uint64_t, uint64_t>> forward, reverse;
    for (const VirtualExtent& extent : one.map.locate(one.disk, 0, 20)) {
      CHECK(extent.places.size() <= AddressMap::kLayers);
      for (const Place& place : extent.places) {
        for (uint64_t i = 0; i < extent.length; ++i) forward.insert({extent.diskOffset + i, place.offset + i});
      }
    }
    for (const PhysicalExtent& extent : one.map.owners(one.device, 0, 20)) {
      for (uint64_t i = 0; i < extent.length; ++i) reverse.insert({extent.diskOffset + i, extent.offset + i});
    }
    REQUIRE(forward == reverse);
    REQUIRE(std::includes(added.begin(), added.end(), forward.begin(), forward.end()));
    for (uint64_t i = 0; i < length; ++i) REQUIRE(forward.contains({v + i, p + i}));  // the newest stands
  }
}

TEST_CASE("extents go on where the last ended, whatever the limit") {
  std::mt19937_64 random(11);
  One one;
  for (int i = 0; i < 60; ++i) one.add({random() % 500, 500 + random() % 20}, random() % 5000);
  const auto whole = one.map.extents(one.disk, 0, SIZE_MAX);
  REQUIRE(whole.size() > 10);
  for (size_t limit : {1, 2, 7}) {
    size_t seen = 0;
    for (uint64_t at = 0;;) {
      const auto some = one.map.extents(one.disk, at, limit);
      if (some.empty()) break;
      REQUIRE(some.size() <= limit);
      for (const auto& extent : some) {
        REQUIRE(seen < whole.size());
        CHECK(extent.diskOffset == whole[seen].diskOffset);
        CHECK(extent.length == whole[seen].length);
        CHECK(extent.places == whole[seen].places);
        ++seen;
      }
      at = some.back().diskOffset + some.back().length;
    }
    CHECK(seen == whole.size());
  }
}

TEST_CASE("a large map is told in chunks, and nothing is lost between them") {
  One one;
  constexpr uint64_t kExtents = 3 * AddressMap::kChunk + 17;
  for (uint64_t i = 0; i < kExtents; ++i) one.add({i * 10, i * 10 + 5}, i * 7);
  const auto extents = one.map.extents(one.disk, 0, SIZE_MAX);
  REQUIRE(extents.size() == kExtents);
  for (uint64_t i = 0; i < kExtents; ++i) {
    CHECK(extents[i].diskOffset == i * 10);
    CHECK(extents[i].places[0].offset == i * 7);
  }
  CHECK(one.map.locate(one.disk, 0, UINT64_MAX).size() == 2 * kExtents);  // and the gaps
  CHECK(one.map.owners(one.device, 0, UINT64_MAX).size() == kExtents);
}

TEST_CASE("ranges in flight are laid over both directions, and lifted again") {
  One one;
  one.add({0, 100}, 1000);
  AddressMap& map = one.map;
  auto states = [&] {
    std::string out;
    for (const auto& extent : map.locate(one.disk, 0, 100)) {
      out += (extent.state == State::kMapped ? "m" : "s") + std::to_string(extent.length) + " ";
    }
    for (const auto& extent : map.owners(one.device, 1000, 100)) {
      out += (extent.state == State::kMapped ? "M" : "S") + std::to_string(extent.length) + " ";
    }
    return out;
  };
  ActiveRanges& above = map.activeOf(one.disk);
  ActiveRanges& below = map.activeOn(one.device);
  const uint32_t write = above.add({10, 20}, 1 | ActiveRanges::kModifies);
  const uint32_t child = below.add({1050, 1060}, 2 | ActiveRanges::kModifies | ActiveRanges::kInFlight);
  above.add({70, 80}, 3);  // a read: no doubt
  const std::string inDoubt = "m10 s10 m30 s10 m40 M10 S10 M30 S10 M40 ";
  CHECK(states() == inDoubt);
  below.landed(child);
  CHECK(states() == inDoubt);
  below.decided(child);
  uint32_t slot = 0, position = 99;
  above.remove(write, [&](uint32_t s, uint32_t p) { slot = s, position = p; });
  CHECK(slot == 3);  // the last took its place
  CHECK(position == 0);
  CHECK(states() == "m100 M100 ");
}

TEST_CASE("names are found again, and watched by one") {
  AddressMap map;
  CHECK(map.findDisk({"vm", "a"}) == kNoKey);
  const DiskKey a = map.internDisk({"vm", "a"}), b = map.internDisk({"vm", "b"});
  CHECK(a != b);
  CHECK(map.internDisk({"vm", "a"}) == a);
  CHECK(map.findDisk({"vm", "b"}) == b);
  CHECK(map.diskName(b) == DiskName{"vm", "b"});
  CHECK(map.diskCount() == 2);
  const DeviceKey d = map.internDevice("d");
  CHECK(map.findDevice("d") == d);
  CHECK(map.findDevice("e") == kNoKey);
  CHECK(map.deviceName(d) == "d");
  int one = 0, other = 0;
  CHECK(map.watchDisk(a, &one));
  CHECK_FALSE(map.watchDisk(a, &other));
  map.unwatchDisk(a);
  CHECK(map.watchDisk(a, &other));
  CHECK(map.watchDevice(d, &one));
  CHECK_FALSE(map.watchDevice(d, &other));
}

TEST_CASE("questions while another thread changes the map") {
  One one;
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    std::mt19937_64 random(1);
    for (int i = 0; i < 3000; ++i) {
      const uint64_t at = random() % 100;
      {
        std::lock_guard lock(one.map.mutex());
        one.map.removeVirtual(one.disk, {at, at + 4});
      }
      one.add({at, at + 4}, 100 - at);
    }
    stop = true;
  });
  do {
    uint64_t end = 0;
    for (const auto& extent : one.map.locate(one.disk, 0, 200)) {
      CHECK(extent.diskOffset == end);
      end += extent.length;
    }
    CHECK(end == 200);
    for (const auto& extent : one.map.owners(one.device, 0, 200)) CHECK(extent.disk == one.disk);
  } while (!stop);
  writer.join();
}
