#include "log_map.h"

#include <algorithm>
#include <bit>

namespace sm {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr uint32_t kBits = 64;  // blocks of a word

template <typename T>
T* allocateZeroes(uint64_t count) {
  return static_cast<T*>(calloc(std::max<uint64_t>(count, 1), sizeof(T)));
}

}  // namespace

bool LogDisk::Cells::allocate(uint32_t blocks) {
  const uint64_t words = roundUp(blocks, kBits) / kBits;
  count = blocks;
  place.reset(allocateZeroes<uint32_t>(blocks));
  changed.reset(allocateZeroes<uint64_t>(words));
  next.reset(allocateZeroes<uint32_t>(words));
  return place && changed && next;
}

bool LogMap::init(sm_device* const* devices, const LogLayout& layout) {
  segments_.init(devices, layout);
  disks_.reserve(kMaxDisks);
  notes_.reset(allocateZeroes<Note>(segments_.places()));
  return notes_ != nullptr;
}

void LogMap::add(LogDisk& disk) {
  const auto unused = std::find(disks_.begin(), disks_.end(), nullptr);
  disk.slot = static_cast<uint32_t>(unused - disks_.begin());
  if (unused == disks_.end()) disks_.push_back(&disk);
  else *unused = &disk;
}

void LogMap::remove(LogDisk& disk) {
  disks_[disk.slot] = nullptr;
  changed_ -= disk.listed;
}

void LogMap::clear(LogDisk& disk, uint32_t from, uint32_t to) {
  for (uint32_t block = from; block < to; ++block) {
    uint32_t& cell = disk.cells.place.get()[block];
    if (!cell) continue;
    segments_.dropLive(cell - 1);
    --live_;
    cell = 0;
  }
}

void LogMap::grow(LogDisk& disk, LogDisk::Cells& cells) {
  const uint64_t words = roundUp(disk.cells.count, kBits) / kBits;
  std::copy_n(disk.cells.changed.get(), words, cells.changed.get());
  std::copy_n(disk.cells.next.get(), words, cells.next.get());
  std::swap(disk.cells, cells);
}

void LogMap::set(LogDisk& disk, uint32_t block, uint32_t place) {
  uint32_t& cell = disk.cells.place.get()[block];
  const uint32_t old = cell;
  if (old == place) return;
  cell = place;
  if (place) {
    Note& note = notes_.get()[place - 1];
    note.owner = disk.slot + 1;
    note.block = block;
    segments_.addLive(place - 1);
    ++live_;
  }
  if (old) {
    segments_.dropLive(old - 1);
    --live_;
  }
  mark(disk, block);
}

bool LogMap::load(LogDisk& disk, uint32_t block) {
  const uint32_t place = disk.place(block) - 1;
  Note& note = notes_.get()[place];
  if (note.owner) return false;
  note.owner = disk.slot + 1;
  note.block = block;
  segments_.addLive(place);
  ++live_;
  return true;
}

bool LogMap::ownerOf(uint32_t place, uint32_t* slot, uint32_t* block) {
  const Note& note = notes_.get()[place];
  const LogDisk* disk = note.owner ? at(note.owner - 1) : nullptr;
  if (!disk || note.block >= disk->blocks || disk->place(note.block) != place + 1) return false;
  *slot = note.owner - 1;
  *block = note.block;
  return true;
}

void LogMap::mark(LogDisk& disk, uint32_t block) {
  const uint32_t word = block / kBits;
  uint64_t& bits = disk.cells.changed.get()[word];
  if (!bits) {
    disk.cells.next.get()[word] = kNone;
    if (disk.list.tail == kNone) disk.list.head = word;
    else disk.cells.next.get()[disk.list.tail] = word;
    disk.list.tail = word;
    ++disk.listed;
    ++changed_;
  }
  bits |= uint64_t{1} << (block % kBits);
}

void LogMap::takeChanged() {
  for (LogDisk* disk : disks_) {
    if (!disk) continue;
    disk->committing = disk->list;
    disk->list = {};
    disk->listed = 0;
  }
  changed_ = 0;
}

void LogMap::drop(LogDisk& disk, LogDisk::List& list) {
  for (uint32_t word = list.head; word != kNone; word = disk.cells.next.get()[word]) disk.cells.changed.get()[word] = 0;
  list = {};
}

void LogMap::dropChanged() {
  for (LogDisk* disk : disks_) {
    if (!disk) continue;
    drop(*disk, disk->list);
    drop(*disk, disk->committing);
    disk->listed = 0;
  }
  changed_ = 0;
}

bool LogMap::nextChanged(LogDisk& disk, uint32_t* block) const {
  if (disk.committing.head == kNone) return false;
  *block = disk.committing.head * kBits +
           static_cast<uint32_t>(std::countr_zero(disk.cells.changed.get()[disk.committing.head]));
  return true;
}

void LogMap::accept(LogDisk& disk, uint32_t block) {
  const uint32_t word = block / kBits;
  uint64_t& bits = disk.cells.changed.get()[word];
  bits &= ~(uint64_t{1} << (block % kBits));
  if (bits) return;
  disk.committing.head = disk.cells.next.get()[word];
  if (disk.committing.head == kNone) disk.committing = {};
}

}  // namespace sm
