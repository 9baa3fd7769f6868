#include "oracle.h"

#include <algorithm>
#include <cstring>

namespace oracle {

Oracle::Oracle(const OracleOptions& options) : options_(options) {
  for (uint64_t blocks : options.diskBlocks) disks_.emplace_back().blocks.resize(blocks);
  for (size_t i = 0; i < options.deviceBlocks.size(); ++i) {
    devices_.emplace_back().blocks.resize(options.deviceBlocks[i]);
    devices_[i].shared = options.sharedDevice[i];
  }
}

// --- rule 7: watching has a beginning and an end

void Oracle::attach() {
  above_.clear();
  below_.clear();
  for (Disk& disk : disks_) {
    for (DiskBlock& block : disk.blocks) block.modifications.clear();
  }
  for (Device& device : devices_) {
    for (DeviceBlock& block : device.blocks) block.modifications.clear();
  }
  for (uint32_t i = 0; i < disks_.size(); ++i) watchDisk(i);
  for (uint32_t i = 0; i < devices_.size(); ++i) watchDevice(i);
  waiting_ = inFlight_;
  closing_ = false;
}

void Oracle::watchDisk(uint32_t disk) {
  disks_[disk].watched = true;
  disks_[disk].waiting = inFlight_;
  staleDisk(disk);
}

void Oracle::watchDevice(uint32_t device) {
  devices_[device].watched = true;
  devices_[device].waiting = inFlight_;
  staleDevice(device);
}

void Oracle::leaveDisk(uint32_t disk) {
  disks_[disk].watched = false;
  staleDisk(disk);
  for (auto& [_, above] : above_) {
    if (above->first.space == disk) above->learns = false;
  }
}

void Oracle::leaveDevice(uint32_t device) {
  devices_[device].watched = false;
  staleDevice(device);
  for (auto& [_, below] : below_) {
    if (below->first.space == device) below->fit = false;
  }
  for (auto& [_, above] : above_) {
    for (auto& child : above->children) {
      if (child->first.space == device) child->fit = false;
    }
  }
}

void Oracle::abandonDisk(uint32_t disk) {
  for (auto& [_, above] : above_) {
    if (above->first.space != disk) continue;
    above->followed = false;
    for (uint64_t i = 0; i < above->blocks; ++i)
      std::erase(disks_[disk].blocks[above->first.block + i].modifications, above.get());
  }
}

void Oracle::lost() {
  for (uint32_t i = 0; i < disks_.size(); ++i) staleDisk(i);
  for (auto& [_, above] : above_) above->learns = false;
  waiting_ = inFlight_;
}

void Oracle::close() {
  lost();
  closing_ = true;
}

void Oracle::allocated(const sm_request* child) {
  inFlight_.insert(child);
  held_.insert(child);
}

void Oracle::released(const sm_request* child) {
  held_.erase(child);
  ended(child);
}

void Oracle::ended(const sm_request* request) {
  if (held_.count(request)) return;
  inFlight_.erase(request);
  waiting_.erase(request);
  for (Disk& disk : disks_) disk.waiting.erase(request);
  for (Device& device : devices_) device.waiting.erase(request);
}

// --- the map

void Oracle::staleDisk(uint32_t disk) {
  for (DiskBlock& block : disks_[disk].blocks) {
    for (auto& mapping : block.places) mapping->state = State::kStale;
  }
}

void Oracle::staleDevice(uint32_t device) {
  for (DeviceBlock& block : devices_[device].blocks) {
    for (auto& mapping : block.owners) mapping->state = State::kStale;
  }
}

void Oracle::stale(Unit place) {
  for (auto& mapping : devices_[place.space].blocks[place.block].owners) mapping->state = State::kStale;
}

void Oracle::unmapOwners(Unit place) {
  auto& owners = devices_[place.space].blocks[place.block].owners;
  for (auto& mapping : owners) std::erase(disks_[mapping->virt.space].blocks[mapping->virt.block].places, mapping);
  owners.clear();
}

void Oracle::unmapPlaces(Unit virt) {
  auto& places = disks_[virt.space].blocks[virt.block].places;
  for (auto& mapping : places) std::erase(devices_[mapping->place.space].blocks[mapping->place.block].owners, mapping);
  places.clear();
}

void Oracle::map(Unit virt, Unit place, const Below& by) {
  auto& places = disks_[virt.space].blocks[virt.block].places;
  auto& owners = devices_[place.space].blocks[place.block].owners;
  auto found = std::find_if(places.begin(), places.end(), [&](const auto& each) { return each->place == place; });
  if (found == places.end()) {
    places.push_back(std::make_shared<Mapping>(Mapping{virt, place}));
    owners.push_back(places.back());
    found = places.end() - 1;
  }
  Mapping& mapping = **found;
  const bool late = by.op == SM_OP_READ && mapping.moving != Mapping::kNo && mapping.movingSince > by.landedAt;
  mapping.moving = late ? Mapping::kMaybe : Mapping::kNo;
  mapping.state = devices_[place.space].shared ? State::kStale : State::kMapped;
  ++mappings_;
  if (places.size() > kPlaces) {
    for (auto& each : places) each->crowded = true;
  }
  if (owners.size() > kPlaces) {
    for (auto& each : owners) each->crowded = true;
  }
}

// --- above

void Oracle::submitted(const sm_request* request, uint32_t disk, bool blind) {
  inFlight_.insert(request);
  if (!disks_[disk].watched) return;
  ++clock_;
  auto owned = std::make_unique<Above>();
  Above& above = *owned;
  above.op = request->op;
  above.first = {disk, request->offset / kBlock};
  above.blocks = request->length / kBlock;
  above.request = request;
  above.serial = request->serial;
  above.memory = memoryOf(request);
  above.over.resize(above.blocks);
  above.learns = !closing_ && waiting_.empty() && disks_[disk].waiting.empty();
  if (above.op == SM_OP_WRITE) {
    for (const std::byte* memory : above.memory) above.data.push_back(copyOf(memory));
  }

  // Rule 9: recorded while there is room, and while the field that a tag needs is not in use.
  const uint64_t recorded = static_cast<uint64_t>(
      std::count_if(above_.begin(), above_.end(), [](const auto& each) { return each.second->recorded; }));
  above.recorded = recorded < options_.capacity && (options_.carrier == Carrier::kSerial || !inUse(request));

  // Rule 6: a buffer that two live requests share, or that has two of one request's blocks.
  const std::set<const std::byte*> mine(above.memory.begin(), above.memory.end());
  above.aliased = mine.size() != above.memory.size();
  above.sharedBuffer = above.aliased;
  for (auto& [_, other] : above_) {
    if (std::none_of(other->memory.begin(), other->memory.end(),
                     [&](const std::byte* m) { return mine.contains(m); })) {
      continue;
    }
    other->sharedBuffer = above.sharedBuffer = true;
  }

  // Rules 2, 3 and 5: in doubt, and out with all that overlap.
  for (uint64_t i = 0; i < above.blocks; ++i) {
    DiskBlock& block = disks_[disk].blocks[above.first.block + i];
    for (Above* other : block.modifications) {
      above.over[i] = true;
      if (!sm_op_modifies(above.op)) continue;
      other->over[above.first.block + i - other->first.block] = true;
      ++overlaps_;
    }
    if (!sm_op_modifies(above.op)) continue;
    for (auto& [_, other] : above_) {
      const uint64_t at = above.first.block + i - other->first.block;
      if (other->op == SM_OP_READ && other->first.space == disk && at < other->blocks) other->over[at] = true;
    }
    block.modifications.push_back(&above);
    for (auto& mapping : block.places) mapping->state = State::kStale;
  }
  above_[request] = std::move(owned);
  if (blind) {
    finish(&above, true);
    above_.erase(request);
    lost();
  }
}

void Oracle::completed(const sm_request* request) {
  ++clock_;
  auto found = above_.find(request);
  if (found != above_.end()) {
    Above& above = *found->second;
    if (above.op == SM_OP_READ) {
      for (const std::byte* memory : above.memory) above.data.push_back(copyOf(memory));
    }
    if (above.followed) finish(&above, request->status == 0);
    above_.erase(found);
  }
  ended(request);
}

// --- below

// What the host leaves alone, and the carrier is in: as the parent's, wherever in it.
std::span<const std::byte> Oracle::fieldOf(const sm_request* request) const {
  if (options_.carrier == Carrier::kSpare) return std::as_bytes(std::span(request->spare));
  if (options_.carrier == Carrier::kExtension) return {static_cast<const std::byte*>(request->extension), SM_EXTENSION};
  return std::as_bytes(std::span(&request->private_data, 1));
}

bool Oracle::inUse(const sm_request* request) const {
  const auto field = fieldOf(request);
  return std::any_of(field.begin(), field.end(), [](std::byte each) { return each != std::byte{}; });
}

Oracle::Above* Oracle::parentOf(const sm_request* child) {
  for (auto& [_, above] : above_) {
    if (!above->recorded) continue;
    if (options_.carrier == Carrier::kSerial) {
      if (above->serial == child->serial) return above.get();
    } else {
      const auto own = fieldOf(child), parents = fieldOf(above->request);
      if (inUse(child) && std::equal(own.begin(), own.end(), parents.begin())) return above.get();
    }
  }
  return nullptr;
}

void Oracle::issued(const sm_request* request, uint32_t device, bool blind) {
  inFlight_.insert(request);
  Device& on = devices_[device];
  if (!on.watched) return;
  ++clock_;
  if (request->op == SM_OP_FLUSH) {
    ++on.tally.control.operations;
    return;
  }
  Above* parent = parentOf(request);
  Tally& tally = parent ? on.tally.attributed : on.tally.unattributed;
  ++tally.operations;
  tally.bytes += request->length;

  auto child = std::make_shared<Below>();
  child->op = request->op;
  child->first = {device, request->offset / kBlock};
  child->blocks = request->length / kBlock;
  child->stamp = clock_;
  child->memory = memoryOf(request);
  child->fit = on.waiting.empty();
  if (child->op == SM_OP_WRITE) {
    for (const std::byte* memory : child->memory) child->data.push_back(copyOf(memory));
  }
  for (uint64_t i = 0; i < child->blocks; ++i) {
    const Unit place{device, child->first.block + i};
    DeviceBlock& block = on.blocks[place.block];
    child->raced.push_back(!block.modifications.empty());
    if (sm_op_modifies(child->op)) {  // rule 4: below decides
      block.lastModified = clock_;
      block.modifications.insert(child.get());
      if (child->op == SM_OP_DISCARD && !parent) unmapOwners(place);
      else stale(place);
    } else if (!parent) {  // rule 5
      for (auto& mapping : block.owners) mapping->moving = Mapping::kYes, mapping->movingSince = clock_;
    }
  }
  if (parent) parent->children.push_back(child);
  below_[request] = child;
  if (blind && (parent || sm_op_modifies(child->op))) {
    landed(request, 0);
    inFlight_.insert(request);
    lost();
  }
}

void Oracle::landed(const sm_request* request, int32_t status) {
  ++clock_;
  auto found = below_.find(request);
  if (found != below_.end()) {
    Below& child = *found->second;
    child.done = true;
    child.ok = status == 0;
    child.landedAt = clock_;
    if (child.op == SM_OP_READ) {
      for (const std::byte* memory : child.memory) child.data.push_back(copyOf(memory));
    }
    for (uint64_t i = 0; i < child.blocks; ++i) {
      devices_[child.first.space].blocks[child.first.block + i].modifications.erase(&child);
    }
    below_.erase(found);
  }
  ended(request);
}

// --- what a request taught

// Rule 6: which blocks of the child carry which of the parent's.
std::vector<Oracle::Pair> Oracle::carried(const Below& child, const Above& parent) const {
  std::vector<Pair> pairs, out;
  if (child.op != parent.op || child.op == SM_OP_DISCARD) return out;
  if (child.op == SM_OP_READ) {
    const std::set<const std::byte*> once(child.memory.begin(), child.memory.end());
    if (parent.sharedBuffer || once.size() != child.memory.size()) return out;
  }
  if (!parent.aliased) {
    for (uint64_t i = 0; i < child.memory.size(); ++i) {
      auto at = std::find(parent.memory.begin(), parent.memory.end(), child.memory[i]);
      if (at != parent.memory.end()) pairs.push_back({i, static_cast<uint64_t>(at - parent.memory.begin())});
    }
  }
  if (pairs.empty() && child.blocks == parent.blocks) {
    for (uint64_t i = 0; i < child.blocks; ++i) pairs.push_back({i, i});
  } else if (pairs.empty()) {
    for (uint64_t i = 0; i < child.data.size(); ++i) {
      // Once in the parent, and once in the child: of two blocks that are alike, only one is the parent's.
      if (std::count(parent.data.begin(), parent.data.end(), child.data[i]) != 1) continue;
      if (std::count(child.data.begin(), child.data.end(), child.data[i]) != 1) continue;
      auto at = std::find(parent.data.begin(), parent.data.end(), child.data[i]);
      pairs.push_back({i, static_cast<uint64_t>(at - parent.data.begin())});
    }
  }
  size_t runs = 0;
  for (const Pair& pair : pairs) {
    if (!child.data.empty() && child.data[pair.child] != parent.data[pair.parent]) continue;
    const bool goesOn = !out.empty() && out.back().child + 1 == pair.child && out.back().parent + 1 == pair.parent;
    if (!goesOn && ++runs > kPieces) break;
    out.push_back(pair);
  }
  return out;
}

void Oracle::finish(Above* above, bool ok) {
  struct Found {
    uint64_t at;
    Unit place;
    std::shared_ptr<Below> by;
  };
  std::vector<Found> found;
  for (auto& child : above->children) {
    if (!above->learns || !above->recorded || !ok || !child->done || !child->ok || !child->fit) continue;
    for (const Pair& pair : carried(*child, *above)) {
      const Unit place{child->first.space, child->first.block + pair.child};
      const bool clean =
          !child->raced[pair.child] && devices_[place.space].blocks[place.block].lastModified <= child->stamp;
      if (clean && !above->over[pair.parent]) found.push_back({pair.parent, place, child});
    }
  }
  if (sm_op_modifies(above->op)) {
    std::vector<bool> mapped(above->blocks);
    for (const Found& each : found) mapped[each.at] = mapped[each.at] || !devices_[each.place.space].shared;
    for (uint64_t i = 0; i < above->blocks; ++i) {
      const Unit virt = blockOf(*above, i);
      DiskBlock& block = disks_[virt.space].blocks[virt.block];
      std::erase(block.modifications, above);
      if (ok) unmapPlaces(virt);
      for (auto& mapping : block.places) mapping->state = State::kStale;
      if (above->op == SM_OP_DISCARD || mapped[i]) continue;
      unmapped_.all += kBlock;
      if (ok && !above->learns) unmapped_.settling += kBlock;
      else if (ok && above->over[i]) unmapped_.overlap += kBlock;
    }
  }
  for (const Found& each : found) map(blockOf(*above, each.at), each.place, *each.by);
}

}  // namespace oracle
