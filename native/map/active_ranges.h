// The ranges of one disk or one device that something in flight is about: a small unordered set.
//
// Nearly every question is about a range that meets none of them, and is answered by a count for each hashed 4 KiB
// granule, however many are in flight. Only where a count is not zero, by chance now and then, are the bounds scanned.
//
// Thread contract: none; guarded by the map's lock. Invariants: the position of an entry is what its owner was last
// told; `counts_` holds one for each granule that an entry of at most kNarrow granules touches, once among all and once
// among those that are in doubt, and `wide_` the numbers of the others. What is in flight is in doubt.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "map/types.h"

namespace sm {

class ActiveRanges {
 public:
  using Ref = uint32_t;                       // the owner's slot, with the two bits below
  static constexpr Ref kModifies = 1u << 31;  // the range is in doubt as long as the entry stands or until `decided`
  static constexpr Ref kInFlight = 1u << 30;  // a modification that has not completed
  static constexpr Ref kSlot = kInFlight - 1;

  // Returns the entry's position, which `moved` reports anew when it changes.
  uint32_t add(Range range, Ref ref) {
    count(range, weightOf(ref));
    if (size_ == capacity_) grow();
    // One after the other: put together first, they would be read back before they are written.
    Entry& entry = entries_[size_];
    entry.range.begin = range.begin;
    entry.range.end = range.end;
    entry.ref = ref;
    return size_++;
  }

  // Takes out the entry at `position`; another may take its place, whose slot `moved(slot, position)` is then told.
  template <class F>
  void remove(uint32_t position, F&& moved) {
    Entry& entry = entries_[position];
    count(entry.range, -weightOf(entry.ref));
    if (position == --size_) return;
    entry = entries_[size_];
    moved(entry.ref & kSlot, position);
  }

  void landed(uint32_t position) { entries_[position].ref &= ~kInFlight; }
  // What the map holds of the range is right again by itself.
  void decided(uint32_t position) {
    Entry& entry = entries_[position];
    if (entry.ref & kModifies) count(entry.range, -kDoubtful);
    entry.ref &= ~kModifies;
  }
  void clear() {
    size_ = 0;
    counts_.fill(0);
    wide_ = 0;
  }

  // f(Ref, Range common) for each entry that shares bytes with `range`.
  template <class F>
  void overlapping(Range range, F&& f) const {
    if (counted(range) != 0) scan(range, f);
  }
  // The same for those that have kModifies.
  template <class F>
  void doubtful(Range range, F&& f) const {
    if (counted(range) < kDoubtful) return;
    scan(range, [&](Ref ref, Range common) {
      if (ref & kModifies) f(ref, common);
    });
  }

  // Whether a modification is about some byte of `range`.
  bool doubts(Range range) const {
    bool found = false;
    doubtful(range, [&](Ref, Range) { found = true; });
    return found;
  }

  size_t size() const { return size_; }

 private:
  struct Entry {
    Range range;
    Ref ref = 0;
  };
  static constexpr int kGranuleBits = 12, kCountBits = 10;
  static constexpr uint64_t kNarrow = 16;                      // granules that are counted one by one
  static constexpr uint64_t kAny = 1, kDoubtful = kAny << 32;  // a count: all in the lower half, the doubtful above

  static uint64_t firstOf(Range range) { return range.begin >> kGranuleBits; }
  static uint64_t lastOf(Range range) { return (range.end - 1) >> kGranuleBits; }
  static bool inOneGranule(Range range) { return firstOf(range) == lastOf(range) && !range.empty(); }
  // By the golden ratio: neighbours spread, and so do offsets that are multiples of one number.
  uint64_t& countOf(uint64_t granule) { return counts_[granule * 0x9e3779b97f4a7c15ull >> (64 - kCountBits)]; }
  uint64_t countOf(uint64_t granule) const { return const_cast<ActiveRanges*>(this)->countOf(granule); }

  void count(Range range, uint64_t by) {
    if (inOneGranule(range)) [[likely]] {
      countOf(firstOf(range)) += by;
    } else {
      countMany(range, by);
    }
  }
  [[gnu::noinline]] void countMany(Range range, uint64_t by) {
    if (range.empty() || lastOf(range) - firstOf(range) >= kNarrow) {
      wide_ += by;
      return;
    }
    for (uint64_t at = firstOf(range); at <= lastOf(range); ++at) countOf(at) += by;
  }
  static uint64_t weightOf(Ref ref) { return ref & kModifies ? kAny | kDoubtful : kAny; }

  // 0: nothing meets `range`; below kDoubtful: nothing that is doubtful does.
  uint64_t counted(Range range) const {
    if (inOneGranule(range)) [[likely]]
      return wide_ | countOf(firstOf(range));
    return countedMany(range);
  }
  [[gnu::noinline]] uint64_t countedMany(Range range) const {
    if (size_ == 0) return 0;
    if (range.empty() || lastOf(range) - firstOf(range) >= kNarrow) return UINT64_MAX;
    uint64_t any = wide_;
    for (uint64_t at = firstOf(range); at <= lastOf(range); ++at) any |= countOf(at);
    return any;
  }

  template <class F>
  void scan(Range range, F&& f) const {
    for (uint32_t i = 0; i < size_; ++i) {
      const Entry& entry = entries_[i];
      if ((entry.range.begin < range.end) & (entry.range.end > range.begin)) {
        f(entry.ref, intersect(range, entry.range));
      }
    }
  }

  [[gnu::noinline]] void grow() {
    capacity_ = std::max(64u, 2 * capacity_);
    auto more = std::make_unique<Entry[]>(capacity_);
    std::copy_n(entries_.get(), size_, more.get());
    entries_ = std::move(more);
  }

  std::unique_ptr<Entry[]> entries_;
  uint32_t size_ = 0, capacity_ = 0;
  uint64_t wide_ = 0;
  std::array<uint64_t, 1 << kCountBits> counts_{};
};

}  // namespace sm
