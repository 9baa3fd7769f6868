#include "map/address_map.h"

#include <algorithm>

namespace sm {

AddressMap::AddressMap() = default;
AddressMap::~AddressMap() = default;

DiskKey AddressMap::internDisk(const DiskName& name) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < disks_.size(); ++i) {
    if (disks_[i]->name == name) return static_cast<DiskKey>(i);
  }
  disks_.push_back(std::make_unique<Disk>(pool_));
  disks_.back()->name = name;
  return static_cast<DiskKey>(disks_.size() - 1);
}

DeviceKey AddressMap::internDevice(const std::string& name) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (devices_[i]->name == name) return static_cast<DeviceKey>(i);
  }
  devices_.push_back(std::make_unique<Device>(pool_));
  devices_.back()->name = name;
  return static_cast<DeviceKey>(devices_.size() - 1);
}

DiskKey AddressMap::findDisk(const DiskName& name) const {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < disks_.size(); ++i) {
    if (disks_[i]->name == name) return static_cast<DiskKey>(i);
  }
  return kNoKey;
}

DeviceKey AddressMap::findDevice(const std::string& name) const {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (devices_[i]->name == name) return static_cast<DeviceKey>(i);
  }
  return kNoKey;
}

DiskName AddressMap::diskName(DiskKey key) const {
  std::lock_guard lock(mutex_);
  return key < disks_.size() ? disks_[key]->name : DiskName{};
}

std::string AddressMap::deviceName(DeviceKey key) const {
  std::lock_guard lock(mutex_);
  return key < devices_.size() ? devices_[key]->name : std::string();
}

size_t AddressMap::diskCount() const {
  std::lock_guard lock(mutex_);
  return disks_.size();
}

size_t AddressMap::deviceCount() const {
  std::lock_guard lock(mutex_);
  return devices_.size();
}

DeviceLedger AddressMap::deviceLedger(DeviceKey device) const {
  std::lock_guard lock(mutex_);
  feed(true);
  return device < devices_.size() ? devices_[device]->ledger : DeviceLedger{};
}

Ledger AddressMap::ledger() const {
  std::lock_guard lock(mutex_);
  feed(true);
  return ledger_;
}

bool AddressMap::watchDisk(DiskKey disk, const void* watcher) {
  if (disks_[disk]->watcher) return false;
  disks_[disk]->watcher = watcher;
  return true;
}

bool AddressMap::watchDevice(DeviceKey device, const void* watcher) {
  if (devices_[device]->watcher) return false;
  devices_[device]->watcher = watcher;
  return true;
}

bool AddressMap::inUpperLayers(DiskKey disk, Range virt, Place place) const {
  const auto& forward = disks_[disk]->layers;
  const auto& reverse = devices_[place.device]->layers;
  if (forward.upperEmpty() && reverse.upperEmpty()) [[likely]]
    return false;
  const Range phys{place.offset, place.offset + virt.length()};
  for (int i = 1; i < kLayers; ++i) {
    if (!forward[i].empty() && forward[i].meets(virt)) return true;
    if (!reverse[i].empty() && reverse[i].meets(phys)) return true;
  }
  return false;
}

bool AddressMap::alone(DiskKey disk, Range virt, Forward* value) const {
  return disks_[disk]->layers[0].covers(virt, value) && !inUpperLayers(disk, virt, value->place);
}

bool AddressMap::holds(DiskKey disk, Range virt, Place place) const {
  return disks_[disk]->layers[0].is(virt, {place, State::kMapped}) && !inUpperLayers(disk, virt, place);
}

namespace {
bool certain(const Forward& value) { return value.state == State::kMapped && !value.moving && !value.shared; }
}  // namespace

bool AddressMap::onlyPlace(DiskKey disk, Range virt, Place* place) const {
  Forward whole;
  if (!alone(disk, virt, &whole) || !certain(whole)) return false;
  *place = whole.place;
  return true;
}

bool AddressMap::mappedPlaces(DiskKey disk, Range virt, std::vector<Mapping>* out) const {
  bool all = true;
  for (const auto& layer : disks_[disk]->layers) {
    layer.each(virt, [&](Range part, const Forward& value) {
      all &= certain(value);
      const Range phys{value.place.offset, value.place.offset + part.length()};
      const auto& owners = devices_[value.place.device]->layers;
      for (int i = 1; i < kLayers; ++i) all &= !owners[i].meets(phys);
      out->push_back({disk, part, value.place, value.state});
    });
  }
  return all;
}

namespace {

// State and flags do not make it another mapping.
bool same(const Forward& a, const Forward& b) { return a.place == b.place; }
bool same(const Reverse& a, const Reverse& b) { return a == b; }

// Erases those entries of `range` in a layer that are `value`, which runs along from the beginning of `range`.
template <class Value>
void eraseEqual(ExtentMap<Value>* layer, Range range, const Value& value, std::vector<Range>* found) {
  Value only;
  if (layer->covers(range, &only)) {
    if (same(only, value)) layer->erase(range);
    return;
  }
  found->clear();
  layer->each(range, [&](Range part, const Value& here) {
    if (same(here, value.advanced(part.begin - range.begin))) found->push_back(part);
  });
  for (Range part : *found) layer->erase(part);
}

}  // namespace

void AddressMap::eraseForward(DiskKey disk, Range virt, Place place) {
  for (auto& layer : disks_[disk]->layers) eraseEqual(&layer, virt, Forward{place}, &found_);
}

void AddressMap::eraseReverse(DeviceKey device, Range phys, Reverse owner) {
  for (auto& layer : devices_[device]->layers) eraseEqual(&layer, phys, owner, &found_);
}

namespace {

// What of `ranges` lies in no entry of `layer`, and what does.
template <class Value>
void divide(const ExtentMap<Value>& layer, const std::vector<Range>& ranges, std::vector<Range>* free,
            std::vector<Range>* taken) {
  free->clear();
  taken->clear();
  for (Range range : ranges) {
    uint64_t at = range.begin;
    layer.each(range, [&](Range part, const Value&) {
      if (part.begin > at) free->push_back({at, part.begin});
      taken->push_back(part);
      at = part.end;
    });
    if (at < range.end) free->push_back({at, range.end});
  }
}

}  // namespace

void AddressMap::insertForward(DiskKey disk, Range virt, const Forward& value) {
  auto& layers = disks_[disk]->layers;
  std::vector<Range> rest{virt}, free, taken;
  for (auto& layer : layers) {
    divide(layer, rest, &free, &taken);
    for (Range part : free) layer.assign(part, value.advanced(part.begin - virt.begin));
    rest = taken;
    if (rest.empty()) return;
  }
  auto& last = layers.back();
  for (Range part : rest) {
    last.each(part, [&](Range old, const Forward& occupant) {
      eraseReverse(occupant.place.device, {occupant.place.offset, occupant.place.offset + old.length()},
                   {disk, old.begin});
    });
    last.assign(part, value.advanced(part.begin - virt.begin));
  }
}

void AddressMap::insertReverse(DeviceKey device, Range phys, const Reverse& value) {
  auto& layers = devices_[device]->layers;
  std::vector<Range> rest{phys}, free, taken;
  for (auto& layer : layers) {
    divide(layer, rest, &free, &taken);
    for (Range part : free) layer.assign(part, value.advanced(part.begin - phys.begin));
    rest = taken;
    if (rest.empty()) return;
  }
  auto& last = layers.back();
  for (Range part : rest) {
    last.each(part, [&](Range old, const Reverse& occupant) {
      changed(occupant.disk, {occupant.offset, occupant.offset + old.length()});
      eraseForward(occupant.disk, {occupant.offset, occupant.offset + old.length()}, {device, old.begin});
    });
    last.assign(part, value.advanced(part.begin - phys.begin));
  }
}

namespace {
template <class Layers>
bool anyMeets(const Layers& layers, Range range) {
  return layers[0].meets(range) ||
         (!layers.upperEmpty() &&
          std::any_of(layers.begin() + 1, layers.end(), [&](const auto& layer) { return layer.meets(range); }));
}
}  // namespace

void AddressMap::addForward(DiskKey disk, Range virt, const Forward& value) {
  auto& layers = disks_[disk]->layers;
  if (anyMeets(layers, virt)) {
    eraseForward(disk, virt, value.place);
    insertForward(disk, virt, value);
  } else {
    layers[0].assign(virt, value);
  }
}

void AddressMap::addReverse(DiskKey disk, Range virt, Place place) {
  const Range phys{place.offset, place.offset + virt.length()};
  auto& layers = devices_[place.device]->layers;
  if (anyMeets(layers, phys)) {
    eraseReverse(place.device, phys, {disk, virt.begin});
    insertReverse(place.device, phys, {disk, virt.begin});
  } else {
    layers[0].assign(phys, {disk, virt.begin});
  }
}

void AddressMap::add(DiskKey disk, Range virt, Place place, State state, bool shared) {
  if (virt.empty()) return;
  Forward now;
  // Where it stands there already its state alone changes.
  if (changes_ && !(disks_[disk]->layers[0].covers(virt, &now) && now.place == place)) changed(disk, virt);
  addForward(disk, virt, {place, state, false, shared});
  addReverse(disk, virt, place);
}

void AddressMap::removeVirtual(DiskKey disk, Range virt) {
  for (auto& layer : disks_[disk]->layers) {
    if (layer.empty()) continue;
    bool any = false;
    layer.each(virt, [&](Range part, const Forward& value) {
      any = true;
      eraseReverse(value.place.device, {value.place.offset, value.place.offset + part.length()}, {disk, part.begin});
    });
    if (!any) continue;
    changed(disk, virt);
    layer.erase(virt);
  }
}

void AddressMap::removePhysical(DeviceKey device, Range phys) {
  for (auto& layer : devices_[device]->layers) {
    layer.each(phys, [&](Range part, const Reverse& owner) {
      changed(owner.disk, {owner.offset, owner.offset + part.length()});
      eraseForward(owner.disk, {owner.offset, owner.offset + part.length()}, {device, part.begin});
    });
    layer.erase(phys);
  }
}

void AddressMap::staleVirtual(DiskKey disk, Range virt) {
  for (auto& layer : disks_[disk]->layers) {
    layer.update(virt, [](Forward& value) { value.state = State::kStale; });
  }
}

template <class F>
void AddressMap::updatePhysical(DeviceKey device, Range phys, F&& f) {
  for (const auto& reverse : devices_[device]->layers) {
    reverse.each(phys, [&](Range part, const Reverse& owner) {
      Range virt{owner.offset, owner.offset + part.length()};
      for (auto& layer : disks_[owner.disk]->layers) {
        found_.clear();
        layer.each(virt, [&](Range piece, const Forward& value) {
          if (value.place == Place{device, part.begin + (piece.begin - virt.begin)}) found_.push_back(piece);
        });
        for (Range piece : found_) layer.update(piece, f);
      }
    });
  }
}

void AddressMap::stalePhysical(DeviceKey device, Range phys) {
  updatePhysical(device, phys, [](Forward& value) { value.state = State::kStale; });
}

void AddressMap::moving(DeviceKey device, Range phys) {
  updatePhysical(device, phys, [](Forward& value) { value.moving = true; });
}

void AddressMap::staleDisk(DiskKey disk) {
  for (auto& layer : disks_[disk]->layers) layer.updateAll([](Forward& value) { value.state = State::kStale; });
}

void AddressMap::staleDevice(DeviceKey device) {
  for (auto& disk : disks_) {
    for (auto& layer : disk->layers) {
      layer.updateAll([device](Forward& value) {
        if (value.place.device == device) value.state = State::kStale;
      });
    }
  }
}

void AddressMap::staleAll() {
  for (auto& disk : disks_) {
    for (auto& layer : disk->layers) layer.updateAll([](Forward& value) { value.state = State::kStale; });
  }
}

}  // namespace sm
