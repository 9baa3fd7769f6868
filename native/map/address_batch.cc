// Batches of changes and questions: one after the other as they would be without, but for the memory, which is fetched
// for many at once before it is needed: first all regions, then all runs.
#include <algorithm>

#include "map/address_map.h"

namespace sm {

namespace {

constexpr size_t kAtOnce = 32;  // about as many as a core can wait for

// f(part) for each part of a batch.
template <class T, class F>
void inParts(std::span<T> batch, F&& f) {
  for (; batch.size() > kAtOnce; batch = batch.subspan(kAtOnce)) f(batch.first(kAtOnce));
  f(batch);
}

// What offsetOf(k) lies in, of the map layerOf(k) unless that is null, for each k below `count`, to ask or to change.
template <class Value, class LayerOf, class OffsetOf>
void fetch(size_t count, bool change, LayerOf&& layerOf, OffsetOf&& offsetOf) {
  const Region<Value>* regions[kAtOnce];
  bool any = false;
  for (size_t k = 0; k < count; ++k) {
    const ExtentMap<Value>* layer = layerOf(k);
    regions[k] = layer && !layer->empty() ? layer->prefetch(offsetOf(k)) : nullptr;
    any |= regions[k] != nullptr;
  }
  for (size_t k = 0; any && k < count; ++k) {
    if (!regions[k]) continue;
    if (change) {
      regions[k]->prefetchAll();
    } else {
      regions[k]->prefetch(offsetOf(k));
    }
  }
}

bool continues(const Mapping& all, const Mapping& next) {
  return all.disk == next.disk && all.virt.end == next.virt.begin && all.state == next.state &&
         all.shared == next.shared && Place{all.place.device, all.place.offset + all.virt.length()} == next.place;
}

}  // namespace

void AddressMap::fetchForward(std::span<const Mapping> some, bool change) const {
  const bool upper = std::any_of(some.begin(), some.end(), [&](const Mapping& each) {
    return each.disk != kNoKey && !disks_[each.disk]->layers.upperEmpty();
  });
  for (int layer = 0; layer < (upper ? kLayers : 1); ++layer) {
    auto layerOf = [&](size_t k) { return some[k].disk != kNoKey ? &disks_[some[k].disk]->layers[layer] : nullptr; };
    fetch<Forward>(some.size(), change, layerOf, [&](size_t k) { return some[k].virt.begin; });
  }
}

void AddressMap::fetchReverse(std::span<const Place> places, int layer, bool change) const {
  const bool upper = std::any_of(places.begin(), places.end(), [&](Place place) {
    return place.device != kNoKey && !devices_[place.device]->layers.upperEmpty();
  });
  for (; layer < (upper ? kLayers : 1); ++layer) {
    auto layerOf = [&](size_t k) {
      return places[k].device != kNoKey ? &devices_[places[k].device]->layers[layer] : nullptr;
    };
    fetch<Reverse>(places.size(), change, layerOf, [&](size_t k) { return places[k].offset; });
  }
}

void AddressMap::prefetch(std::span<const Mapping> batch) const {
  inParts(batch, [&](std::span<const Mapping> some) {
    Place places[kAtOnce];
    fetchForward(some, true);
    for (size_t k = 0; k < some.size(); ++k) places[k] = some[k].place;
    fetchReverse({places, some.size()}, 0, true);
    // And where these ranges are mapped to now, which a change takes away there.
    size_t old = 0;
    for (const Mapping& each : some) {
      Forward value;
      if (disks_[each.disk]->layers[0].covers(each.virt, &value) && !(value.place == each.place)) {
        places[old++] = value.place;
      }
    }
    fetchReverse({places, old}, 0, true);
  });
}

void AddressMap::fetchPaths(DiskKey disk, uint64_t offset, Place place) const {
  disks_[disk]->layers[0].prefetchPath(offset);
  if (place.device != kNoKey) devices_[place.device]->layers[0].prefetchPath(place.offset);
}

void AddressMap::fetchRegions(DiskKey disk, uint64_t offset, Place place) const {
  disks_[disk]->layers[0].prefetch(offset);
  if (place.device != kNoKey) devices_[place.device]->layers[0].prefetch(place.offset);
}

void AddressMap::fetchRuns(DiskKey disk, uint64_t offset, Place place) const {
  const auto fetchAll = [](const auto& layer, uint64_t at) {
    if (const auto* region = layer.prefetch(at)) region->prefetchAll();
  };
  fetchAll(disks_[disk]->layers[0], offset);
  if (place.device != kNoKey) fetchAll(devices_[place.device]->layers[0], place.offset);
}

void AddressMap::replace(std::span<const Mapping> batch) {
  inParts(batch, [&](std::span<const Mapping> some) {
    // Those that continue each other, as they do in sequential writes, are one.
    Mapping joined[kAtOnce];
    size_t count = 0;
    for (const Mapping& each : some) {
      if (count > 0 && continues(joined[count - 1], each)) {
        joined[count - 1].virt.end = each.virt.end;
      } else {
        joined[count++] = each;
      }
    }
    prefetch({joined, count});
    for (size_t k = 0; k < count; ++k) {
      const Mapping& each = joined[k];
      removeVirtual(each.disk, each.virt);
      changed(each.disk, each.virt);
      disks_[each.disk]->layers[0].assign(each.virt, {each.place, each.state, false, each.shared});
      addReverse(each.disk, each.virt, each.place);
    }
  });
}

void AddressMap::complete(Mapping* mapping) const {
  Forward value;
  mapping->state = State::kUnknown;
  if (mapping->disk == kNoKey || !alone(mapping->disk, mapping->virt, &value)) return;
  if (mapping->place.device != kNoKey && !(value.place == mapping->place)) return;
  mapping->place = value.place;
  mapping->state = inDoubt(mapping->disk, mapping->virt, value.place) ? State::kStale : value.state;
  mapping->moving = value.moving;
  mapping->shared = value.shared && mapping->state == State::kMapped;
}

void AddressMap::locateEach(std::span<Mapping> batch) const {
  inParts(batch, [&](std::span<Mapping> some) {
    fetchForward(some, false);
    // And where other owners of the places would be.
    Place places[kAtOnce];
    for (size_t k = 0; k < some.size(); ++k) {
      Forward value;
      if (disks_[some[k].disk]->layers[0].covers(some[k].virt, &value)) places[k] = value.place;
      some[k].place = {};
    }
    fetchReverse({places, some.size()}, 1, false);
    for (Mapping& each : some) complete(&each);
  });
}

void AddressMap::ownersEach(std::span<Mapping> batch) const {
  inParts(batch, [&](std::span<Mapping> some) {
    Place places[kAtOnce];
    for (size_t k = 0; k < some.size(); ++k) places[k] = some[k].place;
    fetchReverse({places, some.size()}, 0, false);
    for (Mapping& each : some) {
      Reverse owner;
      const uint64_t length = each.virt.length();
      const bool known =
          devices_[each.place.device]->layers[0].covers({each.place.offset, each.place.offset + length}, &owner);
      each.disk = known ? owner.disk : kNoKey;
      each.virt = {owner.offset, owner.offset + length};
    }
    fetchForward(some, false);
    for (Mapping& each : some) complete(&each);
  });
}

}  // namespace sm
