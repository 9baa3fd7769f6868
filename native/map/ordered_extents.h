// Extents in a balanced tree: what an ExtentMap (extent_map.h) promises, for any ranges and values, and at a price of a
// hundred bytes and several cache misses each. It holds those regions of an ExtentMap that its packed form cannot.
//
// Value needs: Value advanced(uint64_t bytes) const; bool operator==.
//
// Thread contract: none; the owner serialises. Invariants: ranges are disjoint and not empty; no two adjacent ranges
// could be one.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "map/types.h"

namespace sm {

template <class Value>
class OrderedExtents {
 public:
  // f(Range, const Value&) for each entry that meets `range`, clipped to it, in order, until f returns false. f must
  // not change the map. Returns whether it came to the end.
  template <class F>
  bool walk(Range range, F&& f) const {
    for (auto it = firstOver(range.begin); it != entries_.end() && it->first < range.end; ++it) {
      Range part = intersect(range, {it->first, it->second.end});
      if (!f(part, it->second.value.advanced(part.begin - it->first))) return false;
    }
    return true;
  }

  // The same to the end.
  template <class F>
  void each(Range range, F&& f) const {
    walk(range, [&](Range part, const Value& value) { return f(part, value), true; });
  }

  // The one entry that covers all of `range`, its value advanced to range.begin; false if no single entry does.
  bool covers(Range range, Value* value) const {
    auto it = firstOver(range.begin);
    if (it == entries_.end() || it->first > range.begin || it->second.end < range.end) return false;
    *value = it->second.value.advanced(range.begin - it->first);
    return true;
  }

  bool meets(Range range) const {
    auto it = firstOver(range.begin);
    return it != entries_.end() && it->first < range.end;
  }

  // Where the n-th entry behind `offset` begins, or UINT64_MAX: bounds how much is looked at in one go.
  uint64_t nthBegin(uint64_t offset, size_t n) const {
    auto it = entries_.upper_bound(offset);
    for (; it != entries_.end() && n > 1; --n) ++it;
    return it == entries_.end() ? UINT64_MAX : it->first;
  }

  void erase(Range range) {
    if (range.empty()) return;
    auto it = splitAt(range.begin);
    auto last = splitAt(range.end);
    entries_.erase(it, last);
  }

  void assign(Range range, const Value& value) {
    if (range.empty()) return;
    erase(range);
    auto it = join(entries_.emplace(range.begin, Entry{range.end, value}).first);
    join(std::next(it));
  }

  // f(Value&) for each entry, cut to `range`.
  template <class F>
  void update(Range range, F&& f) {
    if (!meets(range)) return;
    auto it = splitAt(range.begin);
    splitAt(range.end);
    for (; it != entries_.end() && it->first < range.end; it = std::next(it)) {
      f(it->second.value);
      it = join(it);
    }
    join(it);
  }

  // f(Value&) for every entry.
  template <class F>
  void updateAll(F&& f) {
    for (auto it = entries_.begin(); it != entries_.end();) {
      f(it->second.value);
      it = std::next(join(it));
    }
  }

  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    uint64_t end;
    Value value;
  };
  using Entries = std::map<uint64_t, Entry>;
  using Iterator = typename Entries::iterator;

  // The first entry that ends behind `offset`.
  typename Entries::const_iterator firstOver(uint64_t offset) const {
    auto it = entries_.upper_bound(offset);
    if (it != entries_.begin() && std::prev(it)->second.end > offset) --it;
    return it;
  }

  // Cuts the entry that lies across `offset`, if any; returns the first entry that begins at or behind it.
  Iterator splitAt(uint64_t offset) {
    auto it = entries_.lower_bound(offset);
    if (it == entries_.begin()) return it;
    auto before = std::prev(it);
    if (before->second.end <= offset) return it;
    Entry rest{before->second.end, before->second.value.advanced(offset - before->first)};
    before->second.end = offset;
    return entries_.emplace_hint(it, offset, rest);
  }

  // Makes `it` one with its predecessor where that continues into it; returns the entry that now holds it.
  Iterator join(Iterator it) {
    if (it == entries_.end() || it == entries_.begin()) return it;
    auto before = std::prev(it);
    if (before->second.end != it->first) return it;
    if (!(before->second.value.advanced(it->first - before->first) == it->second.value)) return it;
    before->second.end = it->second.end;
    entries_.erase(it);
    return before;
  }

  Entries entries_;
};

}  // namespace sm
