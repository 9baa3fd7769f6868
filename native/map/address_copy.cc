// The map as its store takes it, and gives it back.
#include "map/address_map.h"

namespace sm {

uint64_t AddressMap::copy(DiskKey disk, Range virt, std::vector<Mapping>* out) const {
  for (const auto& layer : disks_[disk]->layers) virt.end = layer.nthBegin(virt.begin, kChunk, virt.end);
  const size_t first = out->size();
  for (const auto& layer : disks_[disk]->layers) {
    layer.each(virt, [&](Range part, const Forward& value) {
      Mapping* last = out->size() > first ? &out->back() : nullptr;
      if (last && last->virt.end == part.begin &&
          Place{last->place.device, last->place.offset + last->virt.length()} == value.place) {
        last->virt.end = part.end;
      } else {
        out->push_back({disk, part, value.place});
      }
    });
  }
  return virt.end;
}

void AddressMap::restore(DiskKey disk, Range virt, std::span<const Mapping> mappings) {
  for (auto& layer : disks_[disk]->layers) layer.erase(virt);
  for (const Mapping& each : mappings) addForward(disk, each.virt, {each.place, State::kStale});
}

void AddressMap::restored() {
  std::vector<Mapping> some;
  for (DiskKey disk = 0; disk < disks_.size(); ++disk) {
    for (Range rest{0, UINT64_MAX}; !rest.empty();) {
      some.clear();
      rest.begin = copy(disk, rest, &some);
      for (const Mapping& each : some) addReverse(disk, each.virt, each.place);
    }
  }
}

}  // namespace sm
