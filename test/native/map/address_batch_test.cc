// The address map where its mappings are whole blocks, as they are in use, and where they come in batches.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <tuple>
#include <vector>

#include "map/address_map.h"

using namespace sm;

namespace {

constexpr uint64_t kUnits = 24;

// Two disks and two devices, in units of some bytes, from some offset on.
struct World {
  uint64_t unit, base;
  AddressMap map;
  World(uint64_t unit, uint64_t base) : unit(unit), base(base) {
    for (const char* name : {"a", "b"}) map.internDisk({"vm", name});
    for (const char* name : {"x", "y"}) map.internDevice(name);
  }
  uint64_t at(uint64_t units) const { return base + units * unit; }
  Range range(uint64_t begin, uint64_t length) const { return {at(begin), at(begin + length)}; }

  using Told = std::tuple<bool, uint32_t, uint64_t, State, bool, bool, uint32_t, uint64_t>;
  // All that it tells, unit by unit: where several own a range, how owners are cut depends on who came first.
  std::vector<Told> tell() const {
    std::vector<Told> out;
    for (uint32_t key : {0, 1}) {
      for (const auto& each : map.locate(key, base, kUnits * unit)) {
        for (uint64_t by = 0; by < each.length; by += unit) {
          for (Place place : each.places) {
            out.push_back({true, key, each.diskOffset + by - base, each.state, each.moving, each.shared, place.device,
                           place.offset + by - base});
          }
        }
      }
      for (const auto& each : map.owners(key, base, kUnits * unit)) {
        for (uint64_t by = 0; by < each.length; by += unit) {
          out.push_back({false, key, each.offset + by - base, each.state, each.moving, each.shared, each.disk,
                         each.diskOffset + by - base});
        }
      }
    }
    for (Told& told : out) {
      std::get<2>(told) /= unit;
      std::get<7>(told) /= unit;
    }
    std::sort(out.begin(), out.end());
    return out;
  }
};

}  // namespace

TEST_CASE("in blocks an address map answers as it does in bytes, whatever is fetched ahead") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    // Across a region's border, a node's, and out of what packs.
    const uint64_t base = std::vector<uint64_t>{0, (16 << 20) - 8 * 4096, (uint64_t{1} << 49) - 70 * 4096}[seed % 3];
    World bytes(1, 0), blocks(4096, base), sectors(512, base);
    for (int step = 0; step < 150; ++step) {
      const uint32_t disk = random() % 2, device = random() % 2;
      const uint64_t length = 1 + random() % 5, v = random() % (kUnits - length), p = random() % (kUnits - length);
      const uint64_t kind = random() % 8;
      const bool shared = random() % 8 == 0;
      const uint64_t ahead = random() % 4 ? random() % (2 * kUnits) : random();
      for (World* world : {&bytes, &blocks, &sectors}) {
        AddressMap& map = world->map;
        if (world != &bytes) {
          const Place place{step % 3 ? device : kNoKey, world->at(ahead)};
          map.fetchPaths(disk, world->at(ahead), place);
          map.fetchRegions(disk, world->at(ahead), place);
          map.fetchRuns(disk, world->at(ahead), place);
        }
        const Range virt = world->range(v, length), phys = world->range(p, length);
        std::lock_guard lock(map.mutex());
        switch (kind) {
          case 0:
            map.removeVirtual(disk, virt);
            break;
          case 1:
            map.removePhysical(device, phys);
            break;
          case 2:
            map.staleVirtual(disk, virt);
            break;
          case 3:
            map.stalePhysical(device, phys);
            break;
          case 4:
            map.moving(device, phys);
            break;
          default:
            map.add(disk, virt, {device, phys.begin}, State::kMapped, shared);
            break;
        }
      }
      const auto told = bytes.tell();
      REQUIRE(blocks.tell() == told);
      REQUIRE(sectors.tell() == told);
    }
  }
}

TEST_CASE("a batch does what its mappings do one by one, and is told what locate and owners tell") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    World one(4096, 0), batched(4096, 0);
    size_t known = 0;
    for (int step = 0; step < 30; ++step) {
      std::vector<Mapping> batch;
      for (size_t n = random() % 70; n > 0; --n) {
        // At most four could share a place: a map that has to forget may forget others in a batch.
        const uint64_t length = 1 + random() % 3, v = random() % (kUnits - length - 3);
        Mapping mapping{
            0, one.range(v, length), {static_cast<DeviceKey>(random() % 2), one.at(v + random() % 4)}, State::kMapped};
        // Often one that continues the last.
        if (!batch.empty() && random() % 2 == 0 && batch.back().virt.end < one.at(kUnits - 4)) {
          mapping = batch.back();
          mapping.place.offset += mapping.virt.length();
          mapping.virt = {mapping.virt.end, mapping.virt.end + 4096};
        }
        batch.push_back(mapping);
      }
      {
        std::lock_guard lock(one.map.mutex());
        for (const Mapping& each : batch) {
          one.map.removeVirtual(each.disk, each.virt);
          one.map.add(each.disk, each.virt, each.place, each.state);
        }
      }
      {
        std::lock_guard lock(batched.map.mutex());
        batched.map.replace(batch);
      }
      REQUIRE(batched.tell() == one.tell());

      std::vector<Mapping> byDisk, byDevice;
      for (uint32_t key : {0, 1}) {
        for (uint64_t at = 0; at < kUnits; ++at) {
          byDisk.push_back({key, one.range(at, 1), {}});
          byDevice.push_back({kNoKey, {0, 4096}, {key, one.at(at)}});
        }
      }
      {
        std::lock_guard lock(batched.map.mutex());
        batched.map.locateEach(byDisk);
        batched.map.ownersEach(byDevice);
      }
      for (const Mapping& each : byDisk) {
        const auto told = one.map.locate(each.disk, each.virt.begin, 4096);
        REQUIRE(told.size() == 1);
        if (each.state == State::kUnknown) continue;
        ++known;
        CHECK(told[0].state == each.state);
        CHECK(told[0].places == std::vector<Place>{each.place});
      }
      for (const Mapping& each : byDevice) {
        const auto told = one.map.owners(each.place.device, each.place.offset, 4096);
        if (each.state == State::kUnknown) continue;
        REQUIRE(told.size() == 1);
        CHECK(told[0].state == each.state);
        CHECK(told[0].disk == each.disk);
        CHECK(told[0].diskOffset == each.virt.begin);
      }
    }
    CHECK(known > 30);
  }
}
