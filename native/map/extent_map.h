// An interval map: disjoint ranges of a 64-bit address space, each with a value that runs along (`advanced`), adjacent
// ranges that continue each other told as one.
//
// It is built like a page table, so that a change or a question at random in a large map waits for memory twice and not
// once for every level of a balanced tree, and a batch of them waits once for all: `prefetch` and Region::prefetch
// fetch ahead. The bits of an offset:
//
//   … 36 | 35 … 30   | 29 … 24   | 23 … 18 | 17 … 12 | 11 … 0
//    …   | directory | directory | node    | region  | byte
//
// A region (region.h) holds what is in 256 KiB; a node the 64 regions of 16 MiB; a directory 64 slots, each for a node
// or a lower directory. The root covers as much of the address space as was needed so far. A slot over whose whole span
// one value runs holds that value instead: so long extents cost next to nothing, and a change costs what it touches.
// An extent may lie in pieces in several slots; those who ask get it as one.
//
// Bytes: 16 for each 256 KiB of 16 MiB in which there is anything; with more than one run in them, 8 more for each run,
// in steps of 16. A region with anything that does not keep to 4 KiB blocks, or whose value does not pack, costs what a
// std::map does.
//
// Value needs: Value advanced(uint64_t bytes) const; bool operator==; a default; and to be held packed what region.h
// says.
//
// Thread contract: none; the owner serialises, questions too (they remember where they were). Invariants: no node or
// directory is empty or could be one value; ranges are disjoint and not empty. Byte UINT64_MAX is nobody's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "map/region.h"

namespace sm {

template <class Value>
class ExtentMap {
 public:
  // Maps of one owner may share a pool.
  explicit ExtentMap(std::shared_ptr<Pool> pool = std::make_shared<Pool>()) : pool_(std::move(pool)) {}
  ~ExtentMap() { clear(root_, rootBits_); }
  ExtentMap(const ExtentMap&) = delete;
  ExtentMap& operator=(const ExtentMap&) = delete;

  bool empty() const { return root_.empty(); }

  // The region of `offset`, its memory on the way; null where none stands. Good until the next change.
  const Region<Value>* prefetch(uint64_t offset) const {
    const Region<Value>* region = find(offset);
    fetchLine(region);
    return region;
  }

  // Has that memory fetched which leads to the region of `offset`, without waiting for it.
  void prefetchPath(uint64_t offset) const {
    Slot slot = root_;
    for (int bits = rootBits_; bits > kNodeBits && slot.isInner(); bits -= kFanBits) {
      const Slot* next = &slot.slots()[indexOf(offset, bits)];
      if (bits - kFanBits == kNodeBits) return fetchLine(next);
      slot = *next;
    }
  }

  // f(Range, const Value&) for each entry that meets `range`, clipped to it, in order. f must not change the map.
  template <class F>
  void each(Range range, F&& f) const {
    Range all{0, 0};
    Value value;
    walk(range, [&](Range part, const Value& next) {
      if (!all.empty() && continues(all, value, part, next)) {
        all.end = part.end;
        return true;
      }
      if (!all.empty()) f(all, static_cast<const Value&>(value));
      all = part;
      value = next;
      return true;
    });
    if (!all.empty()) f(all, static_cast<const Value&>(value));
  }

  // The one entry that covers all of `range`, its value advanced to range.begin; false if no single entry does.
  bool covers(Range range, Value* value) const {
    if (const Region<Value>* region = only(range)) return region->covers(baseOf(range.begin), range, value);
    uint64_t base;
    if (const Value* spanning = this->spanning(range, &base)) {
      *value = spanning->advanced(range.begin - base);
      return true;
    }
    Range all{range.begin, range.begin};
    walk(range, [&](Range part, const Value& next) {
      if (part.begin != all.end || (!all.empty() && !continues(all, *value, part, next))) return false;
      if (all.empty()) *value = next;
      all.end = part.end;
      return true;
    });
    return !all.empty() && all.end == range.end;
  }
  // Whether one does, with `expected` there.
  [[gnu::always_inline]] bool is(Range range, const Value& expected) const {
    if (const Region<Value>* region = only(range)) return region->is(baseOf(range.begin), range, expected);
    Value value;
    return covers(range, &value) && value == expected;
  }

  bool meets(Range range) const {
    if (const Region<Value>* region = only(range)) return region->meets(baseOf(range.begin), range);
    return !walk(range, [](Range, const Value&) { return false; });
  }

  // Where the n-th entry behind `offset` begins, or `end`, if that is before: bounds how much is looked at in one go.
  uint64_t nthBegin(uint64_t offset, size_t n, uint64_t end = UINT64_MAX) const {
    Range all{0, 0};
    Value value;
    uint64_t found = end;
    walk({offset, end}, [&](Range part, const Value& next) {
      const bool more = !all.empty() && continues(all, value, part, next);
      // What lies over `offset` began before it or begins there: it is not behind it.
      if (!more && part.begin > offset && --n == 0) {
        found = part.begin;
        return false;
      }
      all = part;
      value = next;
      return true;
    });
    return found;
  }

  void erase(Range range) { put(range, nullptr); }
  void assign(Range range, const Value& value) { put(range, &value); }

  // f(Value&) for each entry, cut to `range`. f goes by the value alone, does to it what it does to every value that
  // continues it, and may be called more often than there are entries.
  template <class F>
  void update(Range range, F&& f) {
    if (range.empty()) return;
    if (Region<Value>* region = only(range)) {
      settle(region->update(*pool_, baseOf(range.begin), range, f), range.begin);
    } else if (reaches(&range)) {
      change(&root_, rootBits_, 0, range, Update<F>{f});
    }
  }

  // f(Value&) for every entry.
  template <class F>
  void updateAll(F&& f) {
    update({0, UINT64_MAX}, f);
  }

  // Counts: it takes as long as `each` of everything.
  size_t size() const {
    size_t count = 0;
    each({0, UINT64_MAX}, [&](Range, const Value&) { ++count; });
    return count;
  }

 private:
  using Fill = typename Region<Value>::Fill;
  static constexpr int kNodeBits = kRegionBits + kFanBits;
  static constexpr size_t kNodeBytes = kFan * sizeof(Region<Value>);
  static_assert(kNodeBytes <= Pool::kLargest && sizeof(Value) <= Pool::kLargest);
  static_assert(std::is_trivially_destructible_v<Value> && alignof(Value) <= 16);

  // What is in a span of 2^bits bytes: nothing; one value from end to end; or a node, where bits == kNodeBits, or else
  // a directory.
  struct Slot {
    uintptr_t word = 0;
    bool empty() const { return word == 0; }
    bool isValue() const { return (word & 1) != 0; }
    bool isInner() const { return word != 0 && !isValue(); }
    Value* value() const { return reinterpret_cast<Value*>(word - 1); }
    Region<Value>* regions() const { return reinterpret_cast<Region<Value>*>(word); }
    Slot* slots() const { return reinterpret_cast<Slot*>(word); }
  };

  // What `change` does to a slot that lies in its range (false: go into it), and to a part of a region.
  struct Put {
    const Value* value;  // null: nothing
    uint64_t at;         // where *value stands
    bool fills() const { return value != nullptr; }
    bool whole(ExtentMap* map, Slot* slot, int bits, uint64_t base) const {
      map->clear(*slot, bits);
      *slot = value ? map->valueSlot(value->advanced(base - at)) : Slot{};
      return true;
    }
    void part(Pool& pool, Region<Value>* region, uint64_t base, Range range) const {
      const Value here = value ? value->advanced(range.begin - at) : Value{};
      region->put(pool, base, range, value ? &here : nullptr);
    }
  };
  template <class F>
  struct Update {
    F& f;
    bool fills() const { return false; }
    bool whole(ExtentMap*, Slot* slot, int, uint64_t) const {
      if (slot->isValue()) f(*slot->value());
      return !slot->isInner();
    }
    void part(Pool& pool, Region<Value>* region, uint64_t base, Range range) const {
      region->update(pool, base, range, f);
    }
  };

  static uint64_t baseOf(uint64_t offset) { return offset >> kRegionBits << kRegionBits; }
  static unsigned indexOf(uint64_t offset, int bits) { return (offset >> (bits - kFanBits)) & (kFan - 1); }
  static uint64_t spanEnd(uint64_t base, int bits) { return bits < 64 ? endOf(base, uint64_t{1} << bits) : UINT64_MAX; }
  static bool continues(Range all, const Value& value, Range part, const Value& next) {
    return all.end == part.begin && value.advanced(part.begin - all.begin) == next;
  }

  Region<Value>* find(uint64_t offset) const {
    if (offset >> kNodeBits == seenAt_) return &seen_[indexOf(offset, kNodeBits)];
    if (rootBits_ < 64 && offset >> rootBits_ != 0) return nullptr;
    Slot slot = root_;
    for (int bits = rootBits_; bits > kNodeBits && slot.isInner(); bits -= kFanBits) {
      slot = slot.slots()[indexOf(offset, bits)];
    }
    if (!slot.isInner()) return nullptr;
    seenAt_ = offset >> kNodeBits;
    seen_ = slot.regions();
    return &seen_[indexOf(offset, kNodeBits)];
  }

  // What runs over all of a slot's span from `base` on in which the range lies; null where nothing does.
  const Value* spanning(Range range, uint64_t* base) const {
    Slot slot = root_;
    int bits = rootBits_;
    if (range.empty() || bits >= 64 || (range.end - 1) >> bits != 0) return nullptr;
    for (; bits > kNodeBits && slot.isInner(); bits -= kFanBits) slot = slot.slots()[indexOf(range.begin, bits)];
    if (!slot.isValue() || (range.begin ^ (range.end - 1)) >> bits != 0) return nullptr;
    *base = range.begin >> bits << bits;
    return slot.value();
  }

  // The region that a range lies in, if it lies in one, and that stands in a node.
  [[gnu::always_inline]] Region<Value>* only(Range range) const {
    if (range.empty() || root_.empty() || range.begin >> kRegionBits != (range.end - 1) >> kRegionBits) return nullptr;
    return find(range.begin);
  }

  // f(Range, const Value&) for each piece that meets `range`, clipped to it, in order, until f returns false. Returns
  // whether it came to the end.
  template <class F>
  bool walk(Range range, F&& f) const {
    if (range.empty() || root_.empty()) return true;
    if (const Region<Value>* region = only(range)) return region->walk(baseOf(range.begin), range, f);
    return !reaches(&range) || walk(root_, rootBits_, 0, range, f);
  }

  template <class F>
  bool walk(Slot slot, int bits, uint64_t base, Range range, F& f) const {
    if (slot.empty()) return true;
    if (slot.isValue()) return f(range, slot.value()->advanced(range.begin - base));
    return eachIn(bits, base, range, [&](unsigned i, uint64_t from, Range part) {
      if (bits == kNodeBits) return slot.regions()[i].walk(from, part, f);
      return walk(slot.slots()[i], bits - kFanBits, from, part, f);
    });
  }

  // f(index, base, part of `range`) for each of the 64 parts of a span that `range`, which lies in it, meets.
  template <class F>
  static bool eachIn(int bits, uint64_t base, Range range, F&& f) {
    const unsigned last = indexOf(range.end - 1, bits);
    for (unsigned i = indexOf(range.begin, bits); i <= last; ++i) {
      const uint64_t from = base + (static_cast<uint64_t>(i) << (bits - kFanBits));
      if (!f(i, from, intersect(range, {from, spanEnd(from, bits - kFanBits)}))) return false;
    }
    return true;
  }

  // Cuts `range` to what the root covers; false if nothing is left.
  bool reaches(Range* range) const {
    range->end = std::min(range->end, spanEnd(0, rootBits_));
    return !range->empty();
  }

  void put(Range range, const Value* value) {
    if (range.empty()) return;
    if (Region<Value>* region = only(range)) {
      settle(region->put(*pool_, baseOf(range.begin), range, value), range.begin);
      return;
    }
    if (value) grow(range.end - 1);
    if (reaches(&range)) change(&root_, rootBits_, 0, range, Put{value, range.begin});
    shrink();
  }

  void grow(uint64_t offset) {
    for (; rootBits_ < 64 && offset >> rootBits_ != 0; rootBits_ += kFanBits) {
      if (root_.empty()) continue;
      const Slot below = root_;
      root_ = newInner(rootBits_ + kFanBits);
      root_.slots()[0] = below;
    }
  }

  void shrink() {
    if (root_.empty()) rootBits_ = kNodeBits;
  }

  // Does `op` to `range`, which lies in the slot's span.
  template <class Op>
  void change(Slot* slot, int bits, uint64_t base, Range range, const Op& op) {
    if (range.begin == base && range.end == spanEnd(base, bits) && op.whole(this, slot, bits, base)) return;
    if (slot->empty() && !op.fills()) return;
    if (!slot->isInner()) divide(slot, bits, base);
    eachIn(bits, base, range, [&](unsigned i, uint64_t from, Range part) {
      if (bits == kNodeBits) {
        op.part(*pool_, &slot->regions()[i], from, part);
      } else {
        change(&slot->slots()[i], bits - kFanBits, from, part, op);
      }
      return true;
    });
    tidy(slot, bits, base);
  }

  // Gives a slot a node or directory, with the same in it.
  void divide(Slot* slot, int bits, uint64_t base) {
    const Slot old = *slot;
    *slot = newInner(bits);
    if (old.empty()) return;
    for (unsigned i = 0; i < kFan; ++i) {
      const uint64_t by = static_cast<uint64_t>(i) << (bits - kFanBits);
      if (by >> (bits - kFanBits) != i) break;  // behind the end of the address space
      const Value value = old.value()->advanced(by);
      if (bits == kNodeBits) {
        slot->regions()[i].put(*pool_, base + by, {base + by, endOf(base + by, Region<Value>::kBytes)}, &value);
      } else {
        slot->slots()[i] = valueSlot(value);
      }
    }
    pool_->give(old.value(), sizeof(Value));
  }

  // After a change of the region of `offset`: what is empty or one value now goes, from below.
  void settle(Fill fill, uint64_t offset) {
    if (fill == Fill::kSome) return;
    settle(&root_, rootBits_, 0, offset);
    shrink();
  }

  void settle(Slot* slot, int bits, uint64_t base, uint64_t offset) {
    if (bits > kNodeBits) {
      const unsigned i = indexOf(offset, bits);
      Slot* below = &slot->slots()[i];
      settle(below, bits - kFanBits, base + (static_cast<uint64_t>(i) << (bits - kFanBits)), offset);
      if (below->isInner()) return;
    }
    tidy(slot, bits, base);
  }

  // Whether part i of a node or directory is one value; which.
  static bool wholeIn(Slot slot, int bits, uint64_t base, unsigned i, Value* value) {
    if (bits == kNodeBits) return slot.regions()[i].whole(base + (static_cast<uint64_t>(i) << kRegionBits), value);
    if (!slot.slots()[i].isValue()) return false;
    *value = *slot.slots()[i].value();
    return true;
  }

  void tidy(Slot* slot, int bits, uint64_t base) {
    auto emptyIn = [&](unsigned i) {
      return bits == kNodeBits ? slot->regions()[i].empty() : slot->slots()[i].empty();
    };
    Value first, next;
    if (emptyIn(0) && emptyIn(kFan - 1)) {
      for (unsigned i = 1; i < kFan - 1; ++i) {
        if (!emptyIn(i)) return;
      }
      clear(*slot, bits);
      *slot = {};
    } else if (wholeIn(*slot, bits, base, kFan - 1, &next) && wholeIn(*slot, bits, base, 0, &first)) {
      // The last was asked first: what is filled in order is complete with it.
      for (unsigned i = 1; i < kFan; ++i) {
        if (!wholeIn(*slot, bits, base, i, &next)) return;
        if (!(first.advanced(static_cast<uint64_t>(i) << (bits - kFanBits)) == next)) return;
      }
      clear(*slot, bits);
      *slot = valueSlot(first);
    }
  }

  Slot valueSlot(const Value& value) {
    return {reinterpret_cast<uintptr_t>(new (pool_->take(sizeof(Value))) Value(value)) + 1};
  }

  Slot newInner(int bits) {
    if (bits == kNodeBits) return {reinterpret_cast<uintptr_t>(new (pool_->take(kNodeBytes)) Region<Value>[kFan])};
    return {reinterpret_cast<uintptr_t>(new (pool_->take(kFan * sizeof(Slot))) Slot[kFan])};
  }

  // Gives back all that is in a slot.
  void clear(Slot slot, int bits) {
    if (slot.isValue()) pool_->give(slot.value(), sizeof(Value));
    if (!slot.isInner()) return;
    if (bits == kNodeBits) {
      for (unsigned i = 0; i < kFan; ++i) slot.regions()[i].clear(*pool_);
      if (slot.regions() == seen_) seenAt_ = UINT64_MAX;
      pool_->give(slot.regions(), kNodeBytes);
    } else {
      for (unsigned i = 0; i < kFan; ++i) clear(slot.slots()[i], bits - kFanBits);
      pool_->give(slot.slots(), kFan * sizeof(Slot));
    }
  }

  std::shared_ptr<Pool> pool_;
  Slot root_;
  int rootBits_ = kNodeBits;  // the root covers [0, 2^rootBits_)
  // The node that was found last: what comes next is often near.
  mutable uint64_t seenAt_ = UINT64_MAX;
  mutable Region<Value>* seen_ = nullptr;
};

}  // namespace sm
