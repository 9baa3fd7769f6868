#include "extent_table.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <numeric>

#include "crc32c.h"

namespace sm {
namespace {

constexpr uint64_t kFormatPiece = 1 << 20;  // bytes written at once
constexpr uint64_t kAlignment = 1 << 20;    // bytes: larger extents are aligned to this

// No use of a volume counts so far: of two entries the newer is always known.
constexpr uint64_t kLastSequence = UINT64_MAX / 2;

uint32_t checksum(const ExtentSector& sector, const uint8_t uuid[16]) {
  return crc32c(crc32c(0, uuid, 16), &sector, offsetof(ExtentSector, crc));
}

}  // namespace

ExtentLayout extentLayout(uint64_t bytes, uint64_t extentBytes) {
  ExtentLayout layout{};
  const uint64_t most = std::min<uint64_t>(bytes / extentBytes, 1u << 30);
  layout.tableAt = kTypeAt;
  layout.sectors = static_cast<uint32_t>(roundUp(most, kEntriesPerSector) / kEntriesPerSector);
  layout.sectors = static_cast<uint32_t>(roundUp(layout.sectors, kSectorsPerPage));
  layout.dataAt = roundUp(layout.tableAt + layout.sectors * sizeof(ExtentSector), std::min(extentBytes, kAlignment));
  layout.extents =
      bytes > layout.dataAt ? static_cast<uint32_t>(std::min(most, (bytes - layout.dataAt) / extentBytes)) : 0;
  if (layout.extents == 0) layout.sectors = 0;  // a table might not fit either
  return layout;
}

int32_t ExtentTable::format(const sm_services* services, sm_device* const* devices, const Superblock& superblock,
                            uint64_t extentBytes, sm_error* error) {
  const PageMemory memory = allocatePages(kFormatPiece);
  if (!memory) return report(error, -ENOMEM, "no memory for the table of extents");
  auto* sectors = reinterpret_cast<ExtentSector*>(memory.get());
  for (uint32_t i = 0; i < superblock.deviceCount; ++i) {
    const ExtentLayout layout = extentLayout(devices[i]->bytes, extentBytes);
    for (uint32_t done = 0; done < layout.sectors;) {
      const uint32_t count = std::min<uint32_t>(layout.sectors - done, kFormatPiece / sizeof(ExtentSector));
      for (uint32_t j = 0; j < count; ++j) {
        sectors[j].number = done + j;
        sectors[j].device = i;
        sectors[j].crc = checksum(sectors[j], superblock.uuid);
      }
      const uint64_t at = layout.tableAt + done * sizeof(ExtentSector);
      const uint64_t length = count * sizeof(ExtentSector);
      if (int32_t status = mediumIo(services, devices[i], SM_OP_WRITE, at, sectors, length, error)) return status;
      done += count;
    }
  }
  return 0;
}

int32_t ExtentTable::load(const sm_services* services, sm_device* const* devices, const Superblock* superblocks,
                          uint64_t extentBytes, sm_error* error) {
  shift_ = static_cast<uint32_t>(std::countr_zero(extentBytes));
  memcpy(uuid_, superblocks[0].uuid, sizeof uuid_);
  uint64_t total = 0;
  for (uint32_t i = 0; i < superblocks[0].deviceCount; ++i) {
    Part part{
        devices[i], extentLayout(superblocks[i].deviceBytes, extentBytes), static_cast<uint32_t>(total), nullptr, {},
        {}};
    const uint64_t bytes = part.layout.sectors * sizeof(ExtentSector);
    part.image = allocatePages(bytes);
    if (!part.image) return report(error, -ENOMEM, "no memory for the table of extents");
    part.dirty.resize(part.layout.sectors / kSectorsPerPage);
    part.writing.resize(part.dirty.size());
    total += part.layout.extents;
    if (total >= 1u << 31) return report(error, -EFBIG, "the volume has too many extents: give larger ones at format");
    parts_.push_back(std::move(part));
  }
  extents_.resize(total);
  free_.reserve(total);
  for (uint32_t i = 0; i < parts_.size(); ++i)
    if (int32_t status = loadPart(services, i, error)) return status;
  return 0;
}

int32_t ExtentTable::loadPart(const sm_services* services, uint32_t device, sm_error* error) {
  Part& part = parts_[device];
  const uint64_t length = part.layout.sectors * sizeof(ExtentSector);
  if (length)
    if (int32_t status =
            mediumIo(services, part.device, SM_OP_READ, part.layout.tableAt, part.image.get(), length, error))
      return status;
  for (uint32_t i = 0; i < part.layout.sectors; ++i) {
    const ExtentSector& sector = part.sector(i);
    if (sector.crc != checksum(sector, uuid_) || sector.number != i || sector.device != device)
      return report(
          error, -EBADMSG,
          "sector %u of the table of extents on device '%s' (offset %llu) is damaged: restore the device from "
          "a backup, or format the volume anew",
          i, part.device->name, static_cast<unsigned long long>(part.layout.tableAt + i * sizeof(ExtentSector)));
  }
  for (uint32_t i = 0; i < part.layout.extents; ++i) {
    extents_[part.first + i].device = static_cast<uint16_t>(device);  // by which entryOf finds it
    const ExtentEntry& entry = entryOf(part.first + i);
    if (entry.sequence > kLastSequence)
      return report(error, -EBADMSG,
                    "the table of extents on device '%s' is whole but makes no sense: it was not written by this "
                    "program; restore the device from a backup, or format the volume anew",
                    part.device->name);
    extents_[part.first + i] = {entry.disk, entry.index, 0, static_cast<uint16_t>(device),
                                entry.disk ? ExtentState::kDurable : ExtentState::kFree};
    nextSequence_ = std::max(nextSequence_, entry.sequence + 1);
  }
  return 0;
}

ExtentEntry& ExtentTable::entryOf(uint32_t extent) {
  Part& part = parts_[extents_[extent].device];
  const uint32_t place = extent - part.first;
  return part.sector(place / kEntriesPerSector).entries[place % kEntriesPerSector];
}

// splitmix64 (Vigna, public domain).
uint64_t ExtentTable::random() {
  uint64_t value = random_ += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

void ExtentTable::fillFree(uint64_t seed) {
  random_ = seed;
  for (Extent& extent : extents_)
    if (extent.state == ExtentState::kFree) free(extent);
}

Extent* ExtentTable::take() {
  if (free_.empty()) return nullptr;
  Extent& extent = extents_[free_.back()];
  free_.pop_back();
  extent.state = ExtentState::kAllocating;
  return &extent;
}

// Puts it at a random place of the list, which so stays shuffled.
bool ExtentTable::free(Extent& extent) {
  if (extent.state == ExtentState::kCleared) --cleared_;
  extent.state = ExtentState::kFree;
  free_.push_back(numberOf(extent));
  std::swap(free_[random() % free_.size()], free_.back());
  return true;
}

void ExtentTable::publish(Extent& extent, uint32_t disk, uint32_t index) {
  extent.disk = disk;
  extent.index = index;
  extent.state = ExtentState::kMapped;
  markDirty(extent);
}

void ExtentTable::giveUp(Extent& extent) {
  extent.state = ExtentState::kFreeing;
  ++freeing_;
  markDirty(extent);
}

void ExtentTable::markDirty(const Extent& extent) {
  Part& part = parts_[extent.device];
  const uint32_t number = (numberOf(extent) - part.first) / kEntriesPerSector;
  const auto bit = static_cast<uint8_t>(1u << (number % kSectorsPerPage));
  uint8_t& page = part.dirty[number / kSectorsPerPage];
  if (page & bit) return;
  page |= bit;
  ++dirtySectors_;
}

void ExtentTable::begin() {
  for (Part& part : parts_) {
    part.writing.swap(part.dirty);  // what was written last is all 0
    for (uint32_t page = 0; page < part.writing.size(); ++page)
      for (uint32_t bits = part.writing[page]; bits; bits &= bits - 1)
        build(part, page * kSectorsPerPage + static_cast<uint32_t>(std::countr_zero(bits)));
  }
  dirtySectors_ = 0;
  runPart_ = runPage_ = 0;
}

void ExtentTable::build(Part& part, uint32_t number) {
  ExtentSector& sector = part.sector(number);
  const uint32_t first = number * kEntriesPerSector;
  const uint32_t count = std::min(kEntriesPerSector, part.layout.extents - first);
  for (uint32_t i = 0; i < count; ++i) {
    Extent& extent = extents_[part.first + first + i];
    ExtentEntry& entry = sector.entries[i];
    switch (extent.state) {
      case ExtentState::kMapped:
        extent.state = ExtentState::kCommitting;
        entry = {extent.disk, extent.index, nextSequence_++};
        break;
      case ExtentState::kFreeing:
        extent.state = ExtentState::kClearing;
        --freeing_;
        ++clearing_;
        entry = {};
        break;
      default:
        break;  // durable: stays as it is; free, being allocated, cleared: is 0
    }
  }
  sector.crc = checksum(sector, uuid_);
}

CommitSource::Next ExtentTable::next(uint32_t stage, uint32_t, uint64_t longest, Run* out) {
  if (stage == 0) return Next::kNone;  // the devices are flushed before anything is written
  const uint32_t most = static_cast<uint32_t>(std::max<uint64_t>(1, longest / kPage));
  for (; runPart_ < parts_.size(); ++runPart_, runPage_ = 0) {
    Part& part = parts_[runPart_];
    const auto pages = static_cast<uint32_t>(part.writing.size());
    while (runPage_ < pages && !part.writing[runPage_]) ++runPage_;
    if (runPage_ == pages) continue;
    const uint32_t from = runPage_;
    while (runPage_ < pages && part.writing[runPage_] && runPage_ - from < most) ++runPage_;
    *out = {part.device, part.layout.tableAt + from * kPage, (runPage_ - from) * kPage,
            part.image.get() + from * kPage};
    return Next::kRun;
  }
  return Next::kNone;
}

void ExtentTable::end(bool durable) {
  for (Part& part : parts_)
    for (uint32_t page = 0; page < part.writing.size(); ++page) {
      for (uint32_t bits = part.writing[page]; bits; bits &= bits - 1)
        settle(part, page * kSectorsPerPage + static_cast<uint32_t>(std::countr_zero(bits)), durable);
      part.writing[page] = 0;
    }
}

void ExtentTable::settle(Part& part, uint32_t number, bool durable) {
  const uint32_t first = number * kEntriesPerSector;
  const uint32_t count = std::min(kEntriesPerSector, part.layout.extents - first);
  for (uint32_t i = 0; i < count; ++i) {
    Extent& extent = extents_[part.first + first + i];
    if (extent.state == ExtentState::kCommitting) {
      extent.state = durable ? ExtentState::kDurable : ExtentState::kMapped;
      if (!durable) markDirty(extent);
    } else if (extent.state == ExtentState::kClearing) {
      --clearing_;
      if (!durable) {
        giveUp(extent);
      } else {
        extent.state = ExtentState::kCleared;
        ++cleared_;
        if (extent.users == 0) free(extent);
      }
    }
  }
}

}  // namespace sm
