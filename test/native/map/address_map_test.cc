// The address map against plain arrays: one entry for each unit of each disk, holding its places.
#include "map/address_map.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

using namespace sm;

namespace {

constexpr uint64_t kUnits = 24;

struct Held {
  State state;
  bool moving;
};
using Key = std::pair<uint32_t, uint64_t>;  // (device, offset) or (disk, offset)

// The truth: for each (disk, unit) its places.
struct Plain {
  std::map<Key, std::map<Key, Held>> places;

  template <class F>
  void onDevice(uint32_t device, Range phys, F&& f) {
    for (auto& [virt, all] : places) {
      for (auto it = all.begin(); it != all.end();) {
        auto next = std::next(it);
        if (it->first.first == device && it->first.second >= phys.begin && it->first.second < phys.end) f(all, it);
        it = next;
      }
    }
  }
};

}  // namespace

TEST_CASE("locate, owners, extents and holds answer as plain arrays do, after any changes") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    AddressMap map;
    Plain plain;
    for (const char* name : {"a", "b"}) map.internDisk({"vm", name});
    for (const char* name : {"x", "y"}) map.internDevice(name);
    for (int step = 0; step < 150; ++step) {
      const uint32_t disk = random() % 2, device = random() % 2;
      const uint64_t length = 1 + random() % 5, v = random() % (kUnits - length), p = random() % (kUnits - length);
      const Range virt{v, v + length}, phys{p, p + length};
      auto eachUnit = [&](auto&& f) {
        for (uint64_t i = 0; i < length; ++i) f(i);
      };
      switch (random() % 8) {
        case 0:
        case 1:
        case 2: {
          // Not more places or owners than there are layers: what is forgotten then is the map's choice.
          bool fits = true;
          eachUnit([&](uint64_t i) {
            fits &= plain.places[{disk, v + i}].size() < AddressMap::kLayers - 1;
            size_t owners = 0;
            plain.onDevice(device, {p + i, p + i + 1}, [&](auto&, auto) { ++owners; });
            fits &= owners < AddressMap::kLayers - 1;
          });
          if (!fits) break;
          const State state = random() % 3 ? State::kMapped : State::kStale;
          map.add(disk, virt, {device, p}, state);
          eachUnit([&](uint64_t i) { plain.places[{disk, v + i}][{device, p + i}] = {state, false}; });
          break;
        }
        case 3:
          map.removeVirtual(disk, virt);
          eachUnit([&](uint64_t i) { plain.places[{disk, v + i}].clear(); });
          break;
        case 4:
          map.removePhysical(device, phys);
          plain.onDevice(device, phys, [](auto& all, auto it) { all.erase(it); });
          break;
        case 5:
          map.staleVirtual(disk, virt);
          eachUnit([&](uint64_t i) {
            for (auto& [place, held] : plain.places[{disk, v + i}]) held.state = State::kStale;
          });
          break;
        case 6:
          map.stalePhysical(device, phys);
          plain.onDevice(device, phys, [](auto&, auto it) { it->second.state = State::kStale; });
          break;
        case 7:
          if (random() % 10 == 0) {
            map.staleAll();
            for (auto& [unit, all] : plain.places) {
              for (auto& [place, held] : all) held.state = State::kStale;
            }
          } else {
            map.moving(device, phys);
            plain.onDevice(device, phys, [](auto&, auto it) { it->second.moving = true; });
          }
          break;
      }

      std::map<Key, int> mappedOwners;
      for (const auto& [unit, all] : plain.places) {
        for (const auto& [place, held] : all) mappedOwners[place] += held.state == State::kMapped;
      }
      for (uint32_t d = 0; d < 2; ++d) {
        uint64_t at = 0;
        uint64_t known = 0;
        for (const VirtualExtent& extent : map.locate(d, 0, kUnits)) {
          REQUIRE(extent.diskOffset == at);
          at += extent.length;
          if (extent.state != State::kUnknown) known += extent.length;
          for (uint64_t i = 0; i < extent.length; ++i) {
            State best = State::kUnknown;
            for (const auto& [place, held] : plain.places[{d, extent.diskOffset + i}])
              best = std::max(best, held.state);
            REQUIRE(extent.state == best);
            std::set<Key> expected, told;
            bool moving = false, shared = false;
            for (const auto& [place, held] : plain.places[{d, extent.diskOffset + i}]) {
              if (held.state != best) continue;
              expected.insert(place);
              moving |= held.moving;
              shared |= best == State::kMapped && mappedOwners[place] > 1;
            }
            for (const Place& place : extent.places) told.insert({place.device, place.offset + i});
            REQUIRE(told == expected);
            REQUIRE(extent.moving == moving);
            REQUIRE(extent.shared == shared);
          }
        }
        REQUIRE(at == kUnits);
        for (const VirtualExtent& extent : map.extents(d, 0, 1000)) known -= extent.length;
        REQUIRE(known == 0);
      }
      std::set<std::tuple<uint32_t, uint64_t, uint32_t, uint64_t, State, bool>> expected, told;
      for (const auto& [unit, all] : plain.places) {
        for (const auto& [place, held] : all) {
          expected.insert({place.first, place.second, unit.first, unit.second, held.state, held.moving});
        }
      }
      for (uint32_t d = 0; d < 2; ++d) {
        for (const PhysicalExtent& owner : map.owners(d, 0, kUnits)) {
          for (uint64_t i = 0; i < owner.length; ++i) {
            told.insert({d, owner.offset + i, owner.disk, owner.diskOffset + i, owner.state, owner.moving});
          }
        }
      }
      REQUIRE(told == expected);
      if (map.holds(disk, virt, {device, p})) {
        eachUnit([&](uint64_t i) {
          const auto& all = plain.places[{disk, v + i}];
          REQUIRE(all.size() == 1);
          REQUIRE(all.begin()->first == Key{device, p + i});
          REQUIRE(all.begin()->second.state == State::kMapped);
          REQUIRE_FALSE(all.begin()->second.moving);
        });
      }
    }
  }
}

TEST_CASE(
    "what continues is one extent, what is in flight is stale, one place more than there are layers is forgotten") {
  AddressMap map;
  const DiskKey disk = map.internDisk({"vm", "a"});
  const DeviceKey device = map.internDevice("x");
  for (uint64_t i = 0; i < 10; ++i) map.add(disk, {i * 8, i * 8 + 8}, {device, 1000 + i * 8}, State::kMapped);
  CHECK(map.extents(disk, 0, 100).size() == 1);
  CHECK(map.holds(disk, {8, 24}, {device, 1008}));

  const uint32_t position = map.activeOf(disk).add({16, 24}, ActiveRanges::kModifies);
  auto located = map.locate(disk, 0, 80);
  REQUIRE(located.size() == 3);
  CHECK(located[1].diskOffset == 16);
  CHECK(located[1].state == State::kStale);
  map.activeOf(disk).remove(position, [](uint32_t, uint32_t) {});
  CHECK(map.locate(disk, 0, 80).size() == 1);

  for (uint64_t i = 0; i < AddressMap::kLayers + 2; ++i)
    map.add(disk, {0, 8}, {device, 5000 + i * 100}, State::kMapped);
  CHECK(map.locate(disk, 0, 8)[0].places.size() == AddressMap::kLayers);
  uint64_t owners = 0;
  for (const auto& owner : map.owners(device, 0, 100000)) owners += owner.diskOffset < 8 ? 1 : 0;
  CHECK(owners == AddressMap::kLayers);
}
