// The ranges of one disk or one device that something in flight is about: a small unordered set, scanned whole. With a
// queue depth of some tens, two arrays of bounds that fit a few cache lines beat any tree.
//
// Thread contract: none; guarded by the map's lock. Invariant: position_ of an entry is what its owner was last told.
#pragma once

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
    begin_.push_back(range.begin);
    end_.push_back(range.end);
    ref_.push_back(ref);
    return static_cast<uint32_t>(ref_.size() - 1);
  }

  // Takes out the entry at `position`; another may take its place, whose slot `moved(slot, position)` is then told.
  template <class F>
  void remove(uint32_t position, F&& moved) {
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
  }

  // f(Ref, Range common) for each entry that shares bytes with `range`.
  template <class F>
  void overlapping(Range range, F&& f) const {
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
  std::vector<uint64_t> begin_, end_;
  std::vector<Ref> ref_;
};

}  // namespace sm
