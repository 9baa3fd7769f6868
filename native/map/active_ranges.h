// The ranges of one disk or one device that something in flight is about: a small unordered set.
//
// Nearly every question is about a range that meets none of them, and is answered by a count for each hashed 4 KiB
// granule, however many are in flight. Only where a count is not zero, by chance now and then, are the bounds scanned.
//
// Thread contract: none; guarded by the map's lock. Invariants: the position of an entry is what its owner was last
// told; `counts_` holds one for each granule that an entry of at most kNarrow granules touches, `wide_` the number of
// all others.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

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
    countGranules(range, 1);
    begin_.push_back(range.begin);
    end_.push_back(range.end);
    ref_.push_back(ref);
    return static_cast<uint32_t>(ref_.size() - 1);
  }

  // Takes out the entry at `position`; another may take its place, whose slot `moved(slot, position)` is then told.
  template <class F>
  void remove(uint32_t position, F&& moved) {
    countGranules({begin_[position], end_[position]}, -1);
    uint32_t last = static_cast<uint32_t>(ref_.size() - 1);
    if (position != last) {
      begin_[position] = begin_[last];
      end_[position] = end_[last];
      ref_[position] = ref_[last];
      moved(ref_[position] & kSlot, position);
    }
    begin_.pop_back();
    end_.pop_back();
    ref_.pop_back();
  }

  void landed(uint32_t position) { ref_[position] &= ~kInFlight; }
  // What the map holds of the range is right again by itself.
  void decided(uint32_t position) { ref_[position] &= ~kModifies; }
  void clear() {
    begin_.clear();
    end_.clear();
    ref_.clear();
    counts_.fill(0);
    wide_ = 0;
  }

  // f(Ref, Range common) for each entry that shares bytes with `range`.
  template <class F>
  void overlapping(Range range, F&& f) const {
    if (!mayOverlap(range)) return;
    const size_t n = ref_.size();
    for (size_t i = 0; i < n; ++i) {
      if ((begin_[i] < range.end) & (end_[i] > range.begin)) f(ref_[i], intersect(range, {begin_[i], end_[i]}));
    }
  }

  // Whether a modification is about some byte of `range`.
  bool doubts(Range range) const {
    bool found = false;
    overlapping(range, [&](Ref ref, Range) { found |= (ref & kModifies) != 0; });
    return found;
  }

  size_t size() const { return ref_.size(); }
  void reserve(size_t n) {
    begin_.reserve(n);
    end_.reserve(n);
    ref_.reserve(n);
  }

 private:
  static constexpr int kGranuleBits = 12, kCountBits = 10;
  static constexpr uint64_t kNarrow = 16;  // granules that are counted one by one

  static uint64_t firstOf(Range range) { return range.begin >> kGranuleBits; }
  // Granules behind the first; meaningless for an empty range, which is wide then.
  static uint64_t moreOf(Range range) { return ((range.end - 1) >> kGranuleBits) - firstOf(range); }
  static bool isNarrow(Range range) { return !range.empty() && moreOf(range) < kNarrow; }
  // By the golden ratio: neighbours spread, and so do offsets that are multiples of one number.
  static size_t countOf(uint64_t granule) { return granule * 0x9e3779b97f4a7c15ull >> (64 - kCountBits); }

  void countGranules(Range range, int by) {
    if (!isNarrow(range)) {
      wide_ += static_cast<uint32_t>(by);
      return;
    }
    const uint64_t first = firstOf(range);
    for (uint64_t i = 0; i <= moreOf(range); ++i) counts_[countOf(first + i)] += static_cast<uint32_t>(by);
  }

  bool mayOverlap(Range range) const {
    if (ref_.empty()) return false;
    if (wide_ != 0 || !isNarrow(range)) return true;
    const uint64_t first = firstOf(range);
    uint32_t any = 0;
    for (uint64_t i = 0; i <= moreOf(range); ++i) any |= counts_[countOf(first + i)];
    return any != 0;
  }

  std::vector<uint64_t> begin_, end_;
  std::vector<Ref> ref_;
  uint32_t wide_ = 0;
  std::array<uint32_t, 1 << kCountBits> counts_{};
};

}  // namespace sm
