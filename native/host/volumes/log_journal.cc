#include "log_journal.h"

#include <algorithm>
#include <random>

namespace sm {

LogJournal::LogJournal(LogMap& map, sm_device* device, const LogLayout& layout, const uint8_t uuid[16])
    : map_(map),
      device_(device),
      areaAt_{layout.areaAt(0), layout.areaAt(1)},
      areaPages_(layout.areaPages),
      buffers_(allocatePages(uint64_t{kCommitWrites} * kSlotPages * kPage)),
      salt_(std::random_device()() & ((1u << kSaltBits) - 1)) {
  if (!buffers_) throw std::bad_alloc();
  memcpy(uuid_, uuid, sizeof uuid_);
}

void LogJournal::begin() {
  map_.segments().begin();
  const bool whole = wholeNext_ || nextPage_ >= areaPages_;
  wholeNext_ = false;
  if (whole) return beginWhole();
  whole_ = false;
  map_.takeChanged();
  number_ = nextPage_;
  slot_ = 0;
  page_.count = 0;
  exhausted_ = overflow_ = sealed_ = retired_ = false;
}

void LogJournal::beginWhole() {
  whole_ = true;
  generation_ = ((generation_ >> kSaltBits) + 1) << kSaltBits | salt_;
  map_.dropChanged();
  number_ = slot_ = block_ = 0;
  page_.count = 0;
  exhausted_ = overflow_ = erased_ = sealed_ = retired_ = false;
}

CommitSource::Next LogJournal::next(uint32_t stage, uint32_t slot, uint64_t longest, Run* out) {
  switch (stage) {
    case 0:
      if (whole_ && stale_) return nextErasure(1 - area_, slot, &erased_, out);
      return nextPages(slot, longest, out);
    case 1:
      if (whole_ && stale_) {
        stale_ = false;
        return Next::kAgain;
      }
      if (overflow_) {  // more has changed meanwhile than there is room for
        stale_ |= whole_;
        beginWhole();
        return Next::kAgain;
      }
      if (sealed_ || (!whole_ && number_ == nextPage_ && !page_.count)) return Next::kNone;
      sealed_ = true;
      *out = {device_, areaAt_[whole_ ? 1 - area_ : area_] + number_ * kPage, kPage, slotPages(slot)};
      finishPage(true, slotPages(slot));
      return Next::kRun;
    case 2:
      if (!whole_) return Next::kNone;
      if (!retired_) area_ = 1 - area_;  // from now on the truth is there, also where the old area cannot be erased
      return nextErasure(1 - area_, slot, &retired_, out);
    default:
      return Next::kNone;
  }
}

CommitSource::Next LogJournal::nextErasure(uint32_t area, uint32_t slot, bool* done, Run* out) {
  if (*done) return Next::kNone;
  *done = true;
  memset(slotPages(slot), 0, kPage);
  *out = {device_, areaAt_[area], kPage, slotPages(slot)};
  return Next::kRun;
}

CommitSource::Next LogJournal::nextPages(uint32_t slot, uint64_t longest, Run* out) {
  const uint64_t most = std::clamp<uint64_t>(longest / kPage, 1, kSlotPages);
  const uint32_t first = number_;
  while (number_ - first < most && !exhausted_ && !overflow_) {
    const Fill filled = fill();
    exhausted_ = filled == Fill::kExhausted;
    if (exhausted_ || (filled == Fill::kPause && number_ > first)) break;
    overflow_ = number_ + 1 >= areaPages_;  // the last page must fit, too
    if (!overflow_) finishPage(false, slotPages(slot) + (number_ - first));
  }
  if (number_ == first) return Next::kNone;
  *out = {device_, areaAt_[whole_ ? 1 - area_ : area_] + first * kPage, (number_ - first) * kPage, slotPages(slot)};
  return Next::kRun;
}

// Goes on with the page until it is full, nothing is left, or so many blocks were passed over that others must have
// their turn: then the page goes as it is, and the write is the pause.
LogJournal::Fill LogJournal::fill() {
  for (uint32_t budget = kBudget; budget > 0; --budget) {
    if (slot_ >= map_.slots()) return Fill::kExhausted;
    LogDisk* disk = map_.at(slot_);
    uint32_t block = block_;
    if (!disk || (whole_ ? block >= disk->blocks : !map_.nextChanged(*disk, &block))) {
      ++slot_;
      block_ = 0;
      continue;
    }
    const uint32_t place = disk->place(block);
    if ((place || !whole_) && !append(disk->id, block, place)) return Fill::kFull;
    if (whole_) ++block_;
    else map_.accept(*disk, block);
  }
  return Fill::kPause;
}

bool LogJournal::append(uint32_t disk, uint32_t block, uint32_t place) {
  if (page_.count) {
    LogRecord& before = page_.records[page_.count - 1];
    const bool follows = before.place ? before.place + before.count == place : place == 0;
    if (before.disk == disk && before.first + before.count == block && follows) {
      ++before.count;
      return true;
    }
  }
  if (page_.count == kRecordsPerPage) return false;
  page_.records[page_.count++] = {disk, block, 1, place};
  return true;
}

void LogJournal::finishPage(bool last, LogPage* to) {
  page_.magic = kLogMagic;
  page_.generation = generation_;
  memcpy(page_.uuid, uuid_, sizeof page_.uuid);
  page_.number = number_++;
  page_.area = static_cast<uint8_t>(whole_ ? 1 - area_ : area_);
  page_.last = last;
  memset(page_.records + page_.count, 0, (kRecordsPerPage - page_.count) * sizeof(LogRecord));
  page_.crc = logChecksum(page_);
  memcpy(to, &page_, sizeof page_);
  page_.count = 0;
}

void LogJournal::end(bool durable) {
  map_.segments().end(durable);
  unsaved_ = !durable;
  if (!durable) {
    stale_ |= whole_;
    wholeNext_ = true;
    return;
  }
  nextPage_ = number_;
}

}  // namespace sm
