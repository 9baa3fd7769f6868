// What a crash leaves of a stored map: cut before every call of its files, with what was not made durable by then there
// in part, torn and out of order. Each loads, all of it stale; byte for byte it tells what the map told at the last
// flush that was over, or later.
#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <random>
#include <set>

#include "native/map/store_rig.h"
#include "native/sanitized.h"

using namespace sm;
using Call = MemoryFiles::Call;

namespace {

constexpr uint64_t kUnit = 64 << 10, kUnits = 256;  // a disk of 16 MiB in 64 regions

// Unit by unit, the places of two disks: device and offset.
using Places = std::set<std::pair<std::string, uint64_t>>;
using World = std::array<Places, 2 * kUnits>;

World see(const AddressMap& map) {
  World world;
  for (DiskKey disk = 0; disk < map.diskCount(); ++disk) {
    for (const VirtualExtent& each : map.extents(disk, 0, SIZE_MAX)) {
      for (uint64_t by = 0; by < each.length; by += kUnit) {
        Places& places = world[(map.diskName(disk).disk == "a" ? 0 : kUnits) + (each.diskOffset + by) / kUnit];
        for (const Place& place : each.places) places.emplace(map.deviceName(place.device), place.offset + by);
      }
    }
  }
  return world;
}

// A map at work, and what it told at every flush.
struct History {
  struct Flush {
    size_t began, over;  // calls; over: SIZE_MAX where it failed
    World world;         // at its beginning
  };
  MemoryFiles files;
  std::vector<Flush> flushes;

  // At times a call fails, once or for a while.
  History(uint64_t seed, bool faults) {
    std::mt19937_64 random(seed);
    flushes.push_back({0, 0, {}});
    int failing = 0;
    if (faults) {
      files.fault = [&, seed](const Call&) {
        if (failing == 0 && random() % 12 == 0) failing = 1 + static_cast<int>(random() % 3);
        return failing > 0 && failing-- > 0 ? (seed % 2 != 0 ? -ENOSPC : -EIO) : 0;
      };
    }
    for (int run = 0; run < 3; ++run) {
      StoredMap stored(files);
      if (stored.failure) continue;  // its file could not be made
      for (int i = 0; i < 4; ++i) {
        work(random, stored);
        if (i == 2 && random() % 2 == 0) {
          std::lock_guard lock(stored.map->mutex());
          Changes* changes = stored.map->markIn(nullptr);
          changes->markEverything();
          stored.map->markIn(changes);
        }
        Flush flush{files.calls.size(), SIZE_MAX, see(*stored.map)};
        if (!stored.store->flush()) flush.over = files.calls.size();
        flushes.push_back(std::move(flush));
      }
      work(random, stored);
      Flush last{files.calls.size(), SIZE_MAX, see(*stored.map)};
      if (!stored.store->close()) last.over = files.calls.size();
      flushes.push_back(std::move(last));
    }
    files.fault = nullptr;
  }

  // At most two owners for a place, so that nothing is forgotten for want of room where states mix.
  static void work(std::mt19937_64& random, StoredMap& stored) {
    const DiskKey disks[] = {stored.map->internDisk({"vm", "a"}), stored.map->internDisk({"vm", "b"})};
    for (uint64_t steps = random() % 12; steps-- > 0;) {
      const uint64_t which = random() % 2, begin = random() % kUnits;
      const uint64_t count = random() % 10 == 0 ? kUnits - begin : 1 + random() % std::min<uint64_t>(kUnits - begin, 9);
      const Range virt{begin * kUnit, (begin + count) * kUnit};
      stored.remove(disks[which], virt);
      if (random() % 4 == 0) continue;
      const DeviceKey device = stored.map->internDevice(random() % 2 == 0 ? "x" : "y");
      stored.add(disks[which], virt, {device, virt.begin + random() % 1000 * kUnits * kUnit});
    }
  }

  // Whether what is left at a crash before calls[at] is right.
  void check(size_t at, uint64_t seed) const {
    const std::unique_ptr<MemoryFiles> left = files.crashed(at, seed);
    StoredMap loaded(*left);
    INFO(loaded.failure.message);
    REQUIRE_FALSE(loaded.failure);
    for (const Told& told : tell(*loaded.map)) REQUIRE(std::get<State>(told) == State::kStale);
    REQUIRE(tell(*loaded.map) == tellOwners(*loaded.map));
    // From the last flush that was over to the last that had begun.
    size_t first = 0, last = 0;
    for (size_t i = 0; i < flushes.size(); ++i) {
      if (flushes[i].over <= at) first = i;
      if (flushes[i].began <= at) last = i;
    }
    const World world = see(*loaded.map);
    for (size_t unit = 0; unit < world.size(); ++unit) {
      bool found = false;
      for (size_t i = first; i <= last && !found; ++i) found = flushes[i].world[unit] == world[unit];
      CAPTURE(unit);
      REQUIRE(found);
    }
    // And it goes on from there.
    loaded.remove(loaded.map->internDisk({"vm", "a"}), {0, kUnit});
    loaded.add(loaded.map->internDisk({"vm", "a"}), {0, kUnit}, {loaded.map->internDevice("z"), 0});
    REQUIRE_FALSE(loaded.store->flush());
    const World then = see(*loaded.map);
    REQUIRE_FALSE(loaded.store->close());
    REQUIRE(see(*StoredMap(*left).map) == then);
  }
};

// Which of the calls that were not durable came through.
constexpr uint64_t kLots = 8;

void crashEverywhere(uint64_t seeds, bool faults) {
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    CAPTURE(seed);
    const History history(seed, faults);
    for (size_t at = 0; at <= history.files.calls.size(); ++at) {
      CAPTURE(at);
      for (uint64_t lot = 0; lot < kLots; ++lot) history.check(at, seed * 1000 + lot);
    }
  }
}

}  // namespace

TEST_CASE("a crash at any instant leaves a map that loads") { crashEverywhere(test::kSanitized ? 3 : 12, false); }

TEST_CASE("and so where calls fail before it") { crashEverywhere(test::kSanitized ? 6 : 30, true); }
