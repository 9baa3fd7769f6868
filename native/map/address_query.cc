// The questions to the map. What the layers say is cut wherever something changes, the ranges in flight are laid over
// it, and equal neighbours are put together again.
#include <algorithm>
#include <tuple>

#include "map/address_map.h"

namespace sm {

namespace {

bool continues(const VirtualExtent& a, const VirtualExtent& b) {
  if (a.diskOffset + a.length != b.diskOffset || a.state != b.state || a.moving != b.moving || a.shared != b.shared ||
      a.places.size() != b.places.size()) {
    return false;
  }
  for (size_t i = 0; i < a.places.size(); ++i) {
    if (!(Place{a.places[i].device, a.places[i].offset + a.length} == b.places[i])) return false;
  }
  return true;
}

bool continues(const PhysicalExtent& a, const PhysicalExtent& b) {
  return a.offset + a.length == b.offset && a.state == b.state && a.moving == b.moving && a.shared == b.shared &&
         a.disk == b.disk && a.diskOffset + a.length == b.diskOffset;
}

void append(std::vector<VirtualExtent>* out, VirtualExtent extent) {
  if (!out->empty() && continues(out->back(), extent)) {
    out->back().length += extent.length;
  } else {
    out->push_back(std::move(extent));
  }
}

Range clampEnd(uint64_t offset, uint64_t length) {
  return {offset, length > UINT64_MAX - offset ? UINT64_MAX : offset + length};
}

}  // namespace

bool AddressMap::inDoubt(DiskKey disk, Range virt, Place place) const {
  return disks_[disk]->active.doubts(virt) ||
         devices_[place.device]->active.doubts({place.offset, place.offset + virt.length()});
}

// More than one context's bytes stand at the place.
bool AddressMap::sharedPlace(DeviceKey device, Range phys) const {
  int mapped = 0;
  for (const auto& reverse : devices_[device]->layers) {
    reverse.each(phys, [&](Range part, const Reverse& owner) {
      for (const auto& layer : disks_[owner.disk]->layers) {
        Range virt{owner.offset, owner.offset + part.length()};
        layer.each(virt, [&](Range piece, const Forward& value) {
          mapped +=
              value.state == State::kMapped && value.place == Place{device, part.begin + (piece.begin - virt.begin)};
        });
      }
    });
  }
  return mapped > 1;
}

// Every virtual offset in `virt` at which the answer may change.
void AddressMap::cutsOf(DiskKey disk, Range virt, std::vector<uint64_t>* cuts) const {
  cuts->push_back(virt.begin);
  cuts->push_back(virt.end);
  auto cut = [&](Range part) {
    cuts->push_back(part.begin);
    cuts->push_back(part.end);
  };
  disks_[disk]->active.overlapping(virt, [&](ActiveRanges::Ref, Range part) { cut(part); });
  for (const auto& layer : disks_[disk]->layers) {
    layer.each(virt, [&](Range part, const Forward& value) {
      cut(part);
      Range phys{value.place.offset, value.place.offset + part.length()};
      auto back = [&](Range at) { cut({part.begin + (at.begin - phys.begin), part.begin + (at.end - phys.begin)}); };
      const Device& device = *devices_[value.place.device];
      device.active.overlapping(phys, [&](ActiveRanges::Ref, Range at) { back(at); });
      for (const auto& reverse : device.layers) {
        reverse.each(phys, [&](Range at, const Reverse& owner) {
          back(at);
          // Another owner's mapping may change its state in the middle.
          Range theirs{owner.offset, owner.offset + at.length()};
          for (const auto& other : disks_[owner.disk]->layers) {
            other.each(theirs, [&](Range piece, const Forward&) {
              back({at.begin + (piece.begin - theirs.begin), at.begin + (piece.end - theirs.begin)});
            });
          }
        });
      }
    });
  }
  std::sort(cuts->begin(), cuts->end());
  cuts->erase(std::unique(cuts->begin(), cuts->end()), cuts->end());
}

// One range in which nothing changes.
VirtualExtent AddressMap::describe(DiskKey disk, Range virt) const {
  VirtualExtent extent{virt.begin, virt.length(), State::kUnknown, false, false, {}};
  for (const auto& layer : disks_[disk]->layers) {
    layer.each(virt, [&](Range, const Forward& value) {
      State state = inDoubt(disk, virt, value.place) ? State::kStale : value.state;
      if (state < extent.state) return;
      if (state > extent.state) {
        extent.state = state;
        extent.places.clear();
        extent.moving = extent.shared = false;
      }
      extent.moving |= value.moving;
      extent.shared |= value.shared && state == State::kMapped;
      extent.places.push_back(value.place);
    });
  }
  if (extent.state == State::kMapped) {
    for (Place place : extent.places) {
      extent.shared |= sharedPlace(place.device, {place.offset, place.offset + virt.length()});
    }
  }
  std::sort(extent.places.begin(), extent.places.end(), [](const Place& a, const Place& b) {
    return a.device != b.device ? a.device < b.device : a.offset < b.offset;
  });
  return extent;
}

// Appends the answer for a first part of `virt`; returns where it ends.
uint64_t AddressMap::locateChunk(DiskKey disk, Range virt, std::vector<VirtualExtent>* out) const {
  std::lock_guard lock(mutex_);
  feed(true);
  for (const auto& layer : disks_[disk]->layers) virt.end = layer.nthBegin(virt.begin, kChunk, virt.end);
  std::vector<uint64_t> cuts;
  cutsOf(disk, virt, &cuts);
  for (size_t i = 0; i + 1 < cuts.size(); ++i) append(out, describe(disk, {cuts[i], cuts[i + 1]}));
  return virt.end;
}

std::vector<VirtualExtent> AddressMap::locate(DiskKey disk, uint64_t offset, uint64_t length) const {
  std::vector<VirtualExtent> out;
  Range virt = clampEnd(offset, length);
  while (!virt.empty()) virt.begin = locateChunk(disk, virt, &out);
  return out;
}

std::vector<VirtualExtent> AddressMap::extents(DiskKey disk, uint64_t offset, size_t limit) const {
  std::vector<VirtualExtent> out;
  Range virt{offset, UINT64_MAX};
  while (!virt.empty() && out.size() < limit) {
    std::vector<VirtualExtent> chunk;
    virt.begin = locateChunk(disk, virt, &chunk);
    for (auto& extent : chunk) {
      if (extent.state != State::kUnknown) append(&out, std::move(extent));
    }
  }
  if (out.size() > limit) out.resize(limit);
  return out;
}

uint64_t AddressMap::ownersChunk(DeviceKey device, Range phys, std::vector<PhysicalExtent>* out) const {
  std::lock_guard lock(mutex_);
  feed(true);
  for (const auto& layer : devices_[device]->layers) phys.end = layer.nthBegin(phys.begin, kChunk, phys.end);
  size_t first = out->size();
  std::vector<uint64_t> cuts;
  for (const auto& reverse : devices_[device]->layers) {
    reverse.each(phys, [&](Range part, const Reverse& owner) {
      Range virt{owner.offset, owner.offset + part.length()};
      cuts.clear();
      cutsOf(owner.disk, virt, &cuts);
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        Range piece{cuts[i], cuts[i + 1]};
        Place place{device, part.begin + (piece.begin - virt.begin)};
        for (const auto& layer : disks_[owner.disk]->layers) {
          layer.each(piece, [&](Range, const Forward& value) {
            if (!(value.place == place)) return;
            State state = inDoubt(owner.disk, piece, place) ? State::kStale : value.state;
            const Range all{place.offset, place.offset + piece.length()};
            const bool shared = state == State::kMapped && (value.shared || sharedPlace(device, all));
            out->push_back({place.offset, piece.length(), state, value.moving, shared, owner.disk, piece.begin});
          });
        }
      }
    });
  }
  std::sort(out->begin() + static_cast<ptrdiff_t>(first), out->end(), [](const auto& a, const auto& b) {
    return a.offset != b.offset ? a.offset < b.offset : std::tie(a.disk, a.diskOffset) < std::tie(b.disk, b.diskOffset);
  });
  return phys.end;
}

std::vector<PhysicalExtent> AddressMap::owners(DeviceKey device, uint64_t offset, uint64_t length) const {
  std::vector<PhysicalExtent> pieces, out;
  Range phys = clampEnd(offset, length);
  while (!phys.empty()) phys.begin = ownersChunk(device, phys, &pieces);
  for (const PhysicalExtent& piece : pieces) {
    if (!out.empty() && continues(out.back(), piece)) {
      out.back().length += piece.length;
    } else {
      out.push_back(piece);
    }
  }
  return out;
}

}  // namespace sm
