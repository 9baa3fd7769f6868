// A map on a store, and what it tells, by name: keys differ from run to run.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "map/store/map_store.h"
#include "native/map/memory_files.h"

namespace sm {

constexpr std::chrono::hours kNever{24};

// Disk, its offset, length, state, device, its offset: extent by extent and place by place, whatever the order in which
// they came and the flags they had.
using Told = std::tuple<std::string, std::string, uint64_t, uint64_t, uint64_t, State>;

inline std::vector<Told> joined(std::vector<Told> all) {
  std::vector<Told> out;
  // By disk, device and the distance between above and below, then by offset.
  std::sort(all.begin(), all.end());
  for (Told& next : all) {
    auto& [disk, device, distance, at, length, state] = next;
    if (!out.empty()) {
      auto& [disk0, device0, distance0, at0, length0, state0] = out.back();
      if (disk0 == disk && device0 == device && distance0 == distance && state0 == state && at0 + length0 == at) {
        length0 += length;
        continue;
      }
    }
    out.push_back(std::move(next));
  }
  return out;
}

inline std::string nameOf(const DiskName& disk) { return disk.vm + "/" + disk.disk; }

inline std::vector<Told> tell(const AddressMap& map) {
  std::vector<Told> out;
  for (DiskKey disk = 0; disk < map.diskCount(); ++disk) {
    for (const VirtualExtent& each : map.extents(disk, 0, SIZE_MAX)) {
      for (const Place& place : each.places) {
        out.emplace_back(nameOf(map.diskName(disk)), map.deviceName(place.device), place.offset - each.diskOffset,
                         each.diskOffset, each.length, each.state);
      }
    }
  }
  return joined(std::move(out));
}

// The same, asked from below.
inline std::vector<Told> tellOwners(const AddressMap& map) {
  std::vector<Told> out;
  for (DeviceKey device = 0; device < map.deviceCount(); ++device) {
    for (const PhysicalExtent& each : map.owners(device, 0, UINT64_MAX)) {
      out.emplace_back(nameOf(map.diskName(each.disk)), map.deviceName(device), each.offset - each.diskOffset,
                       each.diskOffset, each.length, each.state);
    }
  }
  return joined(std::move(out));
}

struct StoredMap {
  std::shared_ptr<AddressMap> map = std::make_shared<AddressMap>();
  std::unique_ptr<MapStore> store;
  StoreFailure failure;

  // It writes when it is asked to, unless it is given an interval.
  explicit StoredMap(StoreFiles& files, const std::string& path = "map", std::chrono::milliseconds interval = kNever) {
    failure = MapStore::open({.path = path, .interval = interval, .files = files}, map, &store);
  }
  void add(DiskKey disk, Range virt, Place place) {
    std::lock_guard lock(map->mutex());
    map->add(disk, virt, place, State::kMapped);
  }
  void remove(DiskKey disk, Range virt) {
    std::lock_guard lock(map->mutex());
    map->removeVirtual(disk, virt);
  }
};

}  // namespace sm
