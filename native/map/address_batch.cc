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

// What offsetOf(k) lies in, of the map layerOf(k) unless that is null, for each k below `count`.
template <class Value, class LayerOf, class OffsetOf>
void fetch(size_t count, LayerOf&& layerOf, OffsetOf&& offsetOf) {
  const Region<Value>* regions[kAtOnce];
  for (size_t k = 0; k < count; ++k) {
    const ExtentMap<Value>* layer = layerOf(k);
    regions[k] = layer ? layer->prefetch(offsetOf(k)) : nullptr;
  }
  for (size_t k = 0; k < count; ++k) {
    if (regions[k]) regions[k]->prefetch(offsetOf(k));
  }
}

bool continues(const Mapping& all, const Mapping& next) {
  return all.disk == next.disk && all.virt.end == next.virt.begin && all.state == next.state &&
         all.shared == next.shared && Place{all.place.device, all.place.offset + all.virt.length()} == next.place;
}

}  // namespace

// Only in the first layers: they are nearly always the only ones.
void AddressMap::fetchForward(std::span<const Mapping> some) const {
  fetch<Forward>(
      some.size(), [&](size_t k) { return some[k].disk != kNoKey ? &disks_[some[k].disk]->layers[0] : nullptr; },
      [&](size_t k) { return some[k].virt.begin; });
}

void AddressMap::fetchReverse(std::span<const Place> places) const {
  fetch<Reverse>(
      places.size(),
      [&](size_t k) { return places[k].device != kNoKey ? &devices_[places[k].device]->layers[0] : nullptr; },
      [&](size_t k) { return places[k].offset; });
}

void AddressMap::prefetch(std::span<const Mapping> batch) const {
  inParts(batch, [&](std::span<const Mapping> some) {
    Place places[kAtOnce];
    fetchForward(some);
    for (size_t k = 0; k < some.size(); ++k) places[k] = some[k].place;
    fetchReverse({places, some.size()});
    // And where these ranges are mapped to now, which a change takes away there.
    size_t old = 0;
    for (const Mapping& each : some) {
      Forward value;
      if (disks_[each.disk]->layers[0].covers(each.virt, &value) && !(value.place == each.place)) {
        places[old++] = value.place;
      }
    }
    fetchReverse({places, old});
  });
}

void AddressMap::replace(std::span<const Mapping> batch) {
  inParts(batch, [&](std::span<const Mapping> some) {
    prefetch(some);
    for (size_t k = 0; k < some.size();) {
      // Those that continue each other, as they do in sequential writes, are one.
      Mapping all = some[k];
      for (++k; k < some.size() && continues(all, some[k]); ++k) all.virt.end = some[k].virt.end;
      removeVirtual(all.disk, all.virt);
      add(all.disk, all.virt, all.place, all.state, all.shared);
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
    fetchForward(some);
    for (Mapping& each : some) {
      each.place = {};
      complete(&each);
    }
  });
}

void AddressMap::ownersEach(std::span<Mapping> batch) const {
  inParts(batch, [&](std::span<Mapping> some) {
    Place places[kAtOnce];
    for (size_t k = 0; k < some.size(); ++k) places[k] = some[k].place;
    fetchReverse({places, some.size()});
    for (Mapping& each : some) {
      Reverse owner;
      const uint64_t length = each.virt.length();
      const bool known =
          devices_[each.place.device]->layers[0].covers({each.place.offset, each.place.offset + length}, &owner);
      each.disk = known ? owner.disk : kNoKey;
      each.virt = {owner.offset, owner.offset + length};
    }
    fetchForward(some);
    for (Mapping& each : some) complete(&each);
  });
}

}  // namespace sm
