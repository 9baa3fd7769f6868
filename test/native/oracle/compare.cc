// What an observer answers, against what its oracle says; and against the bytes themselves.
#include <algorithm>
#include <cstring>
#include <sstream>

#include "world_parts.h"

namespace truth {

namespace {

using oracle::Mapping;
using Mappings = std::vector<std::shared_ptr<Mapping>>;

oracle::State stateOf(sm::State state) { return static_cast<oracle::State>(state); }
const char* nameOf(oracle::State state) {
  static const char* const kNames[] = {"unknown", "stale", "mapped"};
  return kNames[static_cast<int>(state)];
}
std::string nameOf(Unit unit) { return std::to_string(unit.space) + ":" + std::to_string(unit.block); }

std::string describe(const Mappings& mappings) {
  std::string out;
  for (const auto& each : mappings) {
    out += " " + nameOf(each->virt) + "->" + nameOf(each->place) + "=" + nameOf(each->state) +
           (each->moving == Mapping::kYes ? "+moving" : "") + (each->crowded ? "+crowded" : "");
  }
  return out.empty() ? " nothing" : out;
}

// One block of a disk or a device as the observer tells it.
struct Told {
  oracle::State state = oracle::State::kUnknown;
  bool moving = false, shared = false;
  Unit virt, place;
};

const Mapping* find(const Mappings& mappings, Unit virt, Unit place) {
  for (const auto& each : mappings) {
    if (each->virt == virt && each->place == place) return each.get();
  }
  return nullptr;
}

// Whether the place holds what the block was last acknowledged to hold, and who wrote that.
std::string checkBytes(Watch& watch, const Told& told, Counts* counts) {
  World& world = watch.world;
  if (told.state != oracle::State::kMapped) return {};
  ++counts->mappedBlocks;
  if (world.content().modifying(told.virt)) return {};
  const Bytes* held = world.content().acknowledged(told.virt);
  if (!held) return "bytes: mapped, though nothing is certain of its content";
  const std::byte* device = world.deviceBlock(told.place.space * world.options().deviceBlocks + told.place.block);
  counts->comparedBytes += kBlock;
  if (std::memcmp(device, held->data(), kBlock) != 0) return "bytes: the place holds other bytes";
  const auto signer = oracle::signerOf(oracle::copyOf(device));
  if (signer && world.options().wild == 0) {
    ++counts->owners;
    if (!(*signer == told.virt)) return "owner: the place holds bytes that " + nameOf(*signer) + " wrote";
  }
  return {};
}

// The flag has to be set where a place is mapped for several, and clear where it has one owner. In between, where other
// owners are in doubt, it may be either.
std::string checkShared(Watch& watch, bool shared, oracle::State state, const std::vector<Unit>& places) {
  if (!watch.exact) return {};
  if (state != oracle::State::kMapped) return shared ? "shared: set for what is not mapped" : "";
  bool must = false, may = false;
  for (Unit place : places) {
    const Mappings& owners = watch.truth.owners(place);
    const bool crowded = std::any_of(owners.begin(), owners.end(), [](auto& o) { return o->crowded; });
    must |= !crowded &&
            std::count_if(owners.begin(), owners.end(), [](auto& o) { return o->state == oracle::State::kMapped; }) > 1;
    may |= owners.size() > 1;
  }
  if (must && !shared) return "shared: not set";
  return shared && !may ? "shared: set for one owner" : "";
}

// Whether what is told of one mapping is what the oracle says of it.
std::string checkMapping(Watch& watch, const Told& told, const Mappings& expected) {
  const Mapping* mapping = find(expected, told.virt, told.place);
  if (!mapping) return "place: not one of its places";
  const bool exact = watch.exact;
  if (mapping->state != told.state && (exact || told.state > mapping->state)) {
    return std::string("state: told ") + nameOf(told.state) + ", is " + nameOf(mapping->state);
  }
  return {};
}

std::string explain(const char* where, Unit unit, const std::string& what, const Mappings& expected) {
  return std::string(where) + " " + nameOf(unit) + ": " + what + "; the oracle says" + describe(expected);
}

std::string checkDiskBlock(Watch& watch, Unit virt, const sm::VirtualExtent& extent, uint64_t delta, Counts* counts) {
  const Mappings& expected = watch.truth.places(virt);
  const bool exact = watch.exact, onlyWrong = watch.onlyWrong;
  oracle::State top = oracle::State::kUnknown;
  size_t atTop = 0;
  bool crowded = false;
  for (const auto& each : expected) {
    if (each->state > top) top = each->state, atTop = 0;
    atTop += each->state == top;
    crowded |= each->crowded;
  }
  const oracle::State state = stateOf(extent.state);
  bool mustMove = false, mayMove = false;
  std::vector<Unit> places;
  for (const sm::Place& place : extent.places) {
    Told told{state, extent.moving, extent.shared, virt, {UINT32_MAX, (place.offset + delta) / kBlock}};
    for (uint32_t i = 0; i < watch.deviceKeys.size(); ++i) {
      if (watch.deviceKeys[i] == place.device) told.place.space = i;
    }
    if (told.place.space == UINT32_MAX) return explain("disk block", virt, "a place on no device", expected);
    places.push_back(told.place);
    std::string wrong = checkBytes(watch, told, counts);
    if (wrong.empty() && !onlyWrong) wrong = checkMapping(watch, told, expected);
    if (wrong.empty() && !onlyWrong) {
      const Mapping* mapping = find(expected, virt, told.place);
      mustMove |= mapping->moving == Mapping::kYes;
      mayMove |= mapping->moving != Mapping::kNo;
    }
    if (!wrong.empty()) return explain("disk block", virt, wrong + " at " + nameOf(told.place), expected);
  }
  if (onlyWrong) return {};
  const std::string wrong = checkShared(watch, extent.shared, state, places);
  if (!wrong.empty()) return explain("disk block", virt, wrong, expected);
  if (state == oracle::State::kUnknown && !extent.places.empty())
    return explain("disk block", virt, "unknown, with places", expected);
  if (state != top || extent.places.size() != atTop) {
    ++counts->saidLess;
    if (exact && !crowded) {
      return explain(
          "disk block", virt,
          std::string("state: told ") + nameOf(state) + " with " + std::to_string(extent.places.size()) + " places",
          expected);
    }
  }
  if (exact && extent.moving && !mayMove) return explain("disk block", virt, "moving: set", expected);
  if (exact && !extent.moving && mustMove) return explain("disk block", virt, "moving: not set", expected);
  if (!extent.places.empty()) return {};
  ++counts->unmappedBlocks;
  return {};
}

}  // namespace

std::string compareDisk(Watch& watch, Unit first, uint64_t blocks, Counts* counts) {
  const uint64_t begin = first.block * kBlock, end = begin + blocks * kBlock;
  uint64_t at = begin;
  for (const sm::VirtualExtent& extent : watch.map->locate(watch.diskKeys[first.space], begin, end - begin)) {
    if (extent.diskOffset != at || extent.length == 0 || extent.length % kBlock != 0) return "locate leaves a gap";
    for (uint64_t delta = 0; delta < extent.length; delta += kBlock) {
      std::string wrong = checkDiskBlock(watch, {first.space, (at + delta) / kBlock}, extent, delta, counts);
      if (!wrong.empty()) return wrong;
    }
    at += extent.length;
  }
  return at == end ? "" : "locate does not cover what was asked";
}

std::string compareDevice(Watch& watch, Unit first, uint64_t blocks, Counts* counts) {
  const uint64_t begin = first.block * kBlock, end = begin + blocks * kBlock;
  std::vector<std::vector<Told>> told(blocks);
  for (const sm::PhysicalExtent& extent : watch.map->owners(watch.deviceKeys[first.space], begin, end - begin)) {
    if (extent.offset < begin || extent.offset + extent.length > end || (extent.offset | extent.length) % kBlock != 0) {
      return "owners tells of what was not asked";
    }
    uint32_t disk = 0;
    while (disk < watch.diskKeys.size() && watch.diskKeys[disk] != extent.disk) ++disk;
    if (disk == watch.diskKeys.size()) return "owners tells of no disk";
    for (uint64_t delta = 0; delta < extent.length; delta += kBlock) {
      const Unit place{first.space, (extent.offset + delta) / kBlock};
      const Unit virt{disk, (extent.diskOffset + delta) / kBlock};
      if (virt.block >= watch.world.options().diskBlocks) return "owners tells of a block beyond the disk";
      told[place.block - first.block].push_back({stateOf(extent.state), extent.moving, extent.shared, virt, place});
    }
  }
  const bool exact = watch.exact, onlyWrong = watch.onlyWrong;
  for (uint64_t i = 0; i < blocks; ++i) {
    const Unit place{first.space, first.block + i};
    const Mappings& expected = watch.truth.owners(place);
    bool crowded = false;
    for (const auto& each : expected) crowded |= each->crowded;
    for (size_t k = 0; k < told[i].size(); ++k) {
      const Told& each = told[i][k];
      if (k > 0 && told[i][k - 1].virt == each.virt)
        return explain("device block", place, "one owner told twice", expected);
      std::string wrong = checkBytes(watch, each, counts);
      if (wrong.empty() && !onlyWrong) wrong = checkMapping(watch, each, expected);
      if (wrong.empty() && !onlyWrong) wrong = checkShared(watch, each.shared, each.state, {place});
      if (wrong.empty() && exact && !onlyWrong) {
        const Mapping* mapping = find(expected, each.virt, place);
        if (each.moving && mapping->moving == Mapping::kNo) wrong = "moving: set";
        if (!each.moving && mapping->moving == Mapping::kYes) wrong = "moving: not set";
      }
      if (!wrong.empty()) return explain("device block", place, wrong + ", owner " + nameOf(each.virt), expected);
    }
    if (told[i].size() != expected.size() && exact && !crowded && !onlyWrong) {
      return explain("device block", place, "owner: " + std::to_string(told[i].size()) + " told", expected);
    }
  }
  return {};
}

std::string compareExtents(Watch& watch, uint32_t disk) {
  const sm::DiskKey key = watch.diskKeys[disk];
  auto same = [](const sm::VirtualExtent& a, const sm::VirtualExtent& b) {
    return a.diskOffset == b.diskOffset && a.length == b.length && a.state == b.state && a.moving == b.moving &&
           a.shared == b.shared && a.places == b.places;
  };
  std::vector<sm::VirtualExtent> known;
  for (auto& extent : watch.map->locate(key, 0, watch.world.options().diskBlocks * kBlock)) {
    if (extent.state != sm::State::kUnknown) known.push_back(std::move(extent));
  }
  const auto whole = watch.map->extents(key, 0, SIZE_MAX);
  if (!std::equal(whole.begin(), whole.end(), known.begin(), known.end(), same)) return "extents differ from locate";
  const size_t limit = 1 + watch.world.below(4);
  uint64_t from = 0;
  size_t seen = 0;
  while (true) {
    const auto some = watch.map->extents(key, from, limit);
    if (some.size() > limit) return "extents gives more than it was asked for";
    for (const auto& extent : some) {
      if (seen >= known.size() || !same(extent, known[seen++]))
        return "extents in parts differ from extents as a whole";
    }
    if (some.empty()) break;
    from = some.back().diskOffset + some.back().length;
  }
  return seen == known.size() ? "" : "extents in parts leave something out";
}

std::string compareLedger(Watch& watch) {
  for (uint32_t i = 0; i < watch.deviceKeys.size(); ++i) {
    const sm::DeviceLedger ledger = watch.map->deviceLedger(watch.deviceKeys[i]);
    const oracle::DeviceTally& truth = watch.truth.tally(i);
    uint64_t operations = 0, bytes = 0;
    for (const sm::Tally& tally : ledger.fates) operations += tally.operations, bytes += tally.bytes;
    std::ostringstream out;
    if (operations != watch.below[i].operations || bytes != watch.below[i].bytes) {
      out << "ledger: device " << i << " sums to " << operations << " operations, " << bytes
          << " bytes; the driver saw " << watch.below[i].operations << ", " << watch.below[i].bytes;
      return out.str();
    }
    auto differs = [&](sm::Fate fate, const oracle::Tally& expected) {
      const sm::Tally& got = ledger.fates[static_cast<int>(fate)];
      if (got.operations == expected.operations && got.bytes == expected.bytes) return false;
      out << "ledger: device " << i << " " << sm::kFateNames[static_cast<int>(fate)] << " " << got.operations
          << " operations, " << got.bytes << " bytes; the oracle says " << expected.operations << ", "
          << expected.bytes;
      return true;
    };
    if (!watch.exact) continue;
    if (differs(sm::Fate::kAttributed, truth.attributed) || differs(sm::Fate::kUnattributed, truth.unattributed) ||
        differs(sm::Fate::kControl, truth.control) || differs(sm::Fate::kAmbiguous, {})) {
      return out.str();
    }
  }
  const sm::Ledger ledger = watch.map->ledger();
  uint64_t all = 0;
  for (const sm::Tally& tally : ledger.unmapped) all += tally.bytes;
  auto bytes = [&](sm::Unmapped reason) { return ledger.unmapped[static_cast<int>(reason)].bytes; };
  const oracle::UnmappedTally& truth = watch.truth.unmapped();
  const bool exact = watch.exact;
  if (exact ? all != truth.all : all < truth.all) {
    return "ledger: " + std::to_string(all) + " bytes left unmapped; the oracle says " + std::to_string(truth.all);
  }
  if (exact && bytes(sm::Unmapped::kOverlap) != truth.overlap) {
    return "ledger: " + std::to_string(bytes(sm::Unmapped::kOverlap)) +
           " bytes unmapped for overlap; the oracle says " + std::to_string(truth.overlap);
  }
  if (exact && bytes(sm::Unmapped::kSettling) != truth.settling) {
    return "ledger: " + std::to_string(bytes(sm::Unmapped::kSettling)) +
           " bytes unmapped while settling; the oracle says " + std::to_string(truth.settling);
  }
  return {};
}

std::string compareEvents(Watch& watch, Counts* counts) {
  using Words = sm::EventWords;
  if (!watch.ring) return {};
  std::vector<double> words(1 << 14);
  const size_t size = watch.ring->drain(words.data(), words.size());
  for (size_t at = 0; at < size; at += static_cast<size_t>(words[at + Words::kWords])) {
    const double* event = words.data() + at;
    auto matches = [&](const Watch::Completion& each) {
      return event[Words::kOp] == each.op && event[Words::kStatus] == each.status &&
             static_cast<sm::DiskKey>(event[Words::kDisk]) == watch.diskKeys[each.disk] &&
             static_cast<uint64_t>(event[Words::kDiskOffset]) == each.offset &&
             static_cast<uint64_t>(event[Words::kLength]) == each.length;
    };
    // Who had no slot is not told of.
    while (!watch.exact && !watch.expected.empty() && !matches(watch.expected.front())) {
      watch.expected.pop_front();
    }
    if (watch.expected.empty()) return "event: one that nothing caused";
    const Watch::Completion expected = watch.expected.front();
    const size_t pieces = static_cast<size_t>(event[Words::kPieces]);
    if (!matches(expected) || static_cast<size_t>(event[Words::kWords]) != Words::kHead + pieces * Words::kPiece ||
        event[Words::kCompleted] < event[Words::kSubmitted] ||
        (event[Words::kLastCompleted] != 0 && event[Words::kLastCompleted] < event[Words::kFirstIssued])) {
      return "event: not that of the request that completed";
    }
    for (size_t i = 0; i < pieces; ++i) {
      const double* piece = event + Words::kHead + i * Words::kPiece;
      const auto device = static_cast<sm::DeviceKey>(piece[Words::kDevice]);
      const double end = piece[Words::kOffset] + piece[Words::kPieceLength];
      if (std::find(watch.deviceKeys.begin(), watch.deviceKeys.end(), device) == watch.deviceKeys.end() ||
          end > static_cast<double>(watch.world.options().deviceBlocks * kBlock)) {
        return "event: a piece on no device";
      }
      const double position = piece[Words::kPosition];
      if (position >= 0 && position + piece[Words::kPieceLength] > static_cast<double>(expected.length)) {
        return "event: a piece outside its request";
      }
    }
    watch.expected.pop_front();
    ++counts->events;
  }
  if (watch.ring->dropped() != 0) return "event: dropped";
  return watch.expected.empty() || !watch.exact ? "" : "event: missing";
}

void World::check(Watch& watch, bool all) {
  if (!difference_.empty() || watch.diskKeys.size() != disks_.size() || watch.deviceKeys.size() != devices_.size()) {
    watch.dirtyDisk.clear();
    watch.dirtyDevice.clear();
    return;
  }
  std::string wrong;
  auto note = [&](std::string what) {
    if (wrong.empty()) wrong = std::move(what);
  };
  if (all) {
    for (uint32_t i = 0; i < disks_.size(); ++i) {
      note(compareDisk(watch, {i, 0}, options_.diskBlocks, &counts_));
      if (!watch.onlyWrong) note(compareExtents(watch, i));
    }
    for (uint32_t i = 0; i < devices_.size(); ++i) note(compareDevice(watch, {i, 0}, options_.deviceBlocks, &counts_));
  } else {
    std::vector<Unit> virt = watch.dirtyDisk, places = watch.dirtyDevice;
    for (Unit unit : watch.dirtyDisk) {
      for (const auto& mapping : watch.truth.places(unit)) places.push_back(mapping->place);
    }
    for (Unit unit : watch.dirtyDevice) {
      for (const auto& mapping : watch.truth.owners(unit)) virt.push_back(mapping->virt);
    }
    auto inRuns = [](std::vector<Unit>& units, auto&& compare) {
      std::sort(units.begin(), units.end());
      units.erase(std::unique(units.begin(), units.end()), units.end());
      for (size_t i = 0; i < units.size();) {
        size_t n = 1;
        while (i + n < units.size() && units[i + n] == Unit{units[i].space, units[i].block + n}) ++n;
        compare(units[i], n);
        i += n;
      }
    };
    inRuns(virt, [&](Unit first, uint64_t n) { note(compareDisk(watch, first, n, &counts_)); });
    inRuns(places, [&](Unit first, uint64_t n) { note(compareDevice(watch, first, n, &counts_)); });
  }
  if (!watch.onlyWrong) {
    note(compareLedger(watch));
    if (watch.probe) note(compareEvents(watch, &counts_));
  }
  watch.dirtyDisk.clear();
  watch.dirtyDevice.clear();
  if (!wrong.empty()) differ(watch.options.association + "/" + watch.options.correlation + ": " + wrong);
}

void World::compareAll() {
  for (auto& watch : watches_) check(*watch, true);
}

}  // namespace truth
