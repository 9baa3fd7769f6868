// 256 KiB of an extent map's address space, in 16 bytes and, where there is more than one run, an array beside them.
//
// A run is a stretch of 4 KiB blocks whose values continue. It takes one word: its length in blocks less one in the low
// 6 bits, its value, packed, in the other 58. Bit b of starts_ says that a run begins at block b; so the run over a
// block is found by counting bits, without a search, and of the array only that one word is touched.
//
//   starts_        word_
//   0              0: nothing is here. Else an OrderedExtents*: something here does not keep to blocks, or does not
//   pack one bit        the run n > 1 bits     pointer to n runs, in order, in a block for capacityOf(n)
//
// Value may have, besides what every extent map's has (extent_map.h), a packed form:
//   bool pack(uint64_t* bits) const;      false where it does not fit into 58 bits
//   static Value unpack(uint64_t bits);
//   static constexpr uint64_t kBlockStep; a value that packs has one that does behind each of the next 63 blocks, and
//                                         those of two successive blocks differ by this
//
// Thread contract: none; the owner serialises. Invariants: runs are disjoint, and no two adjacent ones could be one; a
// region whose content could be packed is. That is looked at while there are few enough extents, so a region that was
// odd for a while is not odd for good.
//
// Byte UINT64_MAX is nobody's: a range that ends there ends with the address space.
#pragma once

#include <bit>
#include <concepts>
#include <cstring>

#include "map/ordered_extents.h"
#include "map/pool.h"
#include "map/types.h"

namespace sm {

constexpr int kFanBits = 6, kBlockBits = 12, kRegionBits = kBlockBits + kFanBits;
constexpr unsigned kFan = 1u << kFanBits;

// The end of `bytes` from `begin`, which may be the end of the address space.
inline uint64_t endOf(uint64_t begin, uint64_t bytes) {
  return bytes > UINT64_MAX - begin ? UINT64_MAX : begin + bytes;
}

// Has the line of `where` fetched. The empty statement is an effect: a function that only prefetches has none, says
// gcc, and leaves out calls of it.
inline void fetchLine(const void* where) {
  __builtin_prefetch(where, 1);
  asm volatile("" : : "r"(where));
}

// std::popcount is a call where the instruction cannot be relied on.
[[gnu::always_inline]] inline unsigned bitsIn(uint64_t word) {
  word -= word >> 1 & 0x5555555555555555;
  word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
  return static_cast<unsigned>(((word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56);
}

// How Value packs, if it does.
template <class Value>
struct Packing {
  static constexpr uint64_t kBlockStep = 0;
  static bool pack(const Value&, uint64_t*) { return false; }
  static Value unpack(uint64_t) { return {}; }
};

template <class Value>
requires requires(const Value value, uint64_t* bits) {
  { value.pack(bits) } -> std::same_as<bool>;
}
struct Packing<Value> {
  static constexpr uint64_t kBlockStep = Value::kBlockStep;
  static bool pack(const Value& value, uint64_t* bits) { return value.pack(bits); }
  static Value unpack(uint64_t bits) { return Value::unpack(bits); }
};

template <class Value>
class Region {
 public:
  static constexpr uint64_t kBytes = uint64_t{1} << kRegionBits;
  // What a change left: nothing at all, something, one run over all of the region. kSome too where nothing was changed.
  enum class Fill { kNothing, kSome, kWhole };

  bool empty() const { return (starts_ | word_) == 0; }

  // What a question about `offset` will read besides this; what a change may move.
  void prefetch(uint64_t offset) const {
    if ((starts_ & (starts_ - 1)) != 0) fetchLine(runs() + bitsIn(starts_ & through(blockOf(offset))) - 1);
  }
  void prefetchAll() const {
    if ((starts_ & (starts_ - 1)) == 0) return;
    const size_t last = countOf(starts_) - 1;
    for (size_t i = 0; i < last; i += 8) fetchLine(runs() + i);  // of 64 bytes
    fetchLine(runs() + last);
  }

  // In what follows `base` is where the region begins, and `range` is not empty and lies in it.

  // f(Range, const Value&) for each extent that meets `range`, clipped to it, in order, until f returns false. Returns
  // whether it came to the end.
  template <class F>
  bool walk(uint64_t base, Range range, F&& f) const {
    if (starts_ == 0) return word_ == 0 || ordered()->walk(range, f);
    const unsigned first = blockOf(range.begin), last = blockOf(range.end - 1);
    const uint64_t before = starts_ & through(first);
    // The run that begins last of those at or before `first` may end before it.
    size_t i = before ? bitsIn(before) - 1 : 0;
    uint64_t todo = starts_ & through(last);
    if (before) todo &= ~uint64_t{0} << highest(before);
    for (; todo != 0; todo &= todo - 1, ++i) {
      const uint64_t word = runs()[i], begin = base + (static_cast<uint64_t>(std::countr_zero(todo)) << kBlockBits);
      const Range part = intersect(range, {begin, endOf(begin, lengthOf(word) << kBlockBits)});
      if (part.empty()) continue;
      if (!f(part, Packed::unpack(word >> kFanBits).advanced(part.begin - begin))) return false;
    }
    return true;
  }

  bool meets(uint64_t base, Range range) const {
    if (starts_ == 0) return word_ != 0 && ordered()->meets(range);
    const unsigned first = blockOf(range.begin);
    const uint64_t upTo = starts_ & through(blockOf(range.end - 1));
    if (upTo == 0) return false;
    const unsigned begin = highest(upTo);
    return begin >= first || runAt(bitsIn(upTo) - 1, begin).end > first;
  }

  // Whether one extent covers all of `range`; its value at range.begin.
  bool covers(uint64_t base, Range range, Value* value) const {
    if (starts_ == 0) return word_ != 0 && ordered()->covers(range, value);
    const uint64_t before = starts_ & through(blockOf(range.begin));
    if (before == 0) return false;
    const Run run = runAt(bitsIn(before) - 1, highest(before));
    if (run.end <= blockOf(range.end - 1)) return false;
    *value = Packed::unpack(run.bits).advanced(range.begin - base - (static_cast<uint64_t>(run.begin) << kBlockBits));
    return true;
  }

  // Whether one extent covers all of `range`, and has `value` at range.begin; as `covers` says, but quicker.
  [[gnu::always_inline]] bool is(uint64_t base, Range range, const Value& value) const {
    uint64_t bits = 0;
    if (starts_ == 0 || !inBlocks(range) || !Packed::pack(value, &bits)) [[unlikely]] {
      Value found;
      return covers(base, range, &found) && found == value;
    }
    const unsigned first = blockOf(range.begin);
    const uint64_t before = starts_ & through(first);
    if (before == 0) return false;
    const unsigned begin = highest(before);
    const uint64_t word = runs()[bitsIn(before) - 1];
    return begin + lengthOf(word) > blockOf(range.end - 1) &&
           (word >> kFanBits) + (first - begin) * Packed::kBlockStep == bits;
  }

  // Whether one extent is all that there is, over all of the region.
  bool whole(uint64_t base, Value* value) const {
    if (starts_ != 0) {
      if (starts_ != 1 || lengthOf(word_) != kFan) return false;
      *value = Packed::unpack(word_ >> kFanBits);
      return true;
    }
    return word_ != 0 && ordered()->covers({base, endOf(base, kBytes)}, value);
  }

  // Puts *value, which is that of range.begin, in the place of all that is in `range`; nothing if it is null.
  Fill put(Pool& pool, uint64_t base, Range range, const Value* value) {
    if (!value && !meets(base, range)) return Fill::kSome;
    uint64_t bits = 0;
    if ((starts_ != 0 || word_ == 0) && inBlocks(range) && (!value || Packed::pack(*value, &bits))) {
      const Run run{blockOf(range.begin), blockOf(range.end - 1) + 1, bits};
      if (starts_ == 0) {
        starts_ = uint64_t{1} << run.begin;
        word_ = wordOf(run);
      } else {
        replace(pool, run.begin, run.end, &run, value ? 1 : 0);
      }
    } else {
      order(pool, base);
      if (value) {
        ordered()->assign(range, *value);
      } else {
        ordered()->erase(range);
      }
      packAgain(pool, base);
    }
    return fill(base);
  }

  // f(Value&) for each extent, cut to `range`. f may be called more than once for it: it goes by the value alone.
  template <class F>
  Fill update(Pool& pool, uint64_t base, Range range, F&& f) {
    if (!meets(base, range)) return Fill::kSome;
    Run changed[kFan] = {};
    size_t count = 0;
    const bool packs = starts_ != 0 && inBlocks(range) && walk(base, range, [&](Range part, Value value) {
                         f(value);
                         changed[count] = {blockOf(part.begin), blockOf(part.end - 1) + 1, 0};
                         return Packed::pack(value, &changed[count++].bits);
                       });
    if (packs) {
      replace(pool, blockOf(range.begin), blockOf(range.end - 1) + 1, changed, count);
    } else {
      order(pool, base);
      ordered()->update(range, f);
      packAgain(pool, base);
    }
    return fill(base);
  }

  void clear(Pool& pool) {
    if (starts_ == 0) {
      delete ordered();
    } else {
      release(pool, countOf(starts_));
    }
    starts_ = word_ = 0;
  }

 private:
  using Packed = Packing<Value>;
  using Ordered = OrderedExtents<Value>;
  struct Run {
    unsigned begin, end;  // blocks
    uint64_t bits;
  };

  static unsigned blockOf(uint64_t offset) { return (offset >> kBlockBits) & (kFan - 1); }
  static bool inBlocks(Range range) {
    constexpr uint64_t mask = (uint64_t{1} << kBlockBits) - 1;
    return (range.begin & mask) == 0 && ((range.end & mask) == 0 || range.end == UINT64_MAX);
  }
  static uint64_t through(unsigned block) { return ~uint64_t{0} >> (kFan - 1 - block); }  // bits 0 … block
  static unsigned highest(uint64_t bits) { return 63 - static_cast<unsigned>(std::countl_zero(bits)); }
  static uint64_t lengthOf(uint64_t word) { return (word & (kFan - 1)) + 1; }
  static size_t countOf(uint64_t starts) { return bitsIn(starts); }
  static uint64_t wordOf(Run run) { return run.bits << kFanBits | (run.end - run.begin - 1); }
  // Small steps while runs are few, as in a sparse map nearly all arrays are; even, for 16 bytes are what a Pool gives.
  static size_t capacityOf(size_t count) {
    const size_t step = count <= 8 ? 2 : count <= 16 ? 4 : 8;
    return (count + step - 1) / step * step;
  }

  Ordered* ordered() const { return reinterpret_cast<Ordered*>(word_); }
  uint64_t* runs() { return starts_ & (starts_ - 1) ? reinterpret_cast<uint64_t*>(word_) : &word_; }
  const uint64_t* runs() const { return const_cast<Region*>(this)->runs(); }

  Fill fill(uint64_t base) const {
    if (empty()) return Fill::kNothing;
    Value value;
    return starts_ > 1 ? Fill::kSome : whole(base, &value) ? Fill::kWhole : Fill::kSome;
  }

  void release(Pool& pool, size_t count) {
    if (count > 1) pool.give(reinterpret_cast<void*>(word_), capacityOf(count) * sizeof(uint64_t));
  }

  // Puts `with`, which lies in blocks [begin, end), in the place of all that is there, and joins what continues.
  void replace(Pool& pool, unsigned begin, unsigned end, const Run* with, size_t withCount) {
    Run list[kFan + 2];
    size_t count = 0;
    auto append = [&](Run run) {
      Run* last = count > 0 ? &list[count - 1] : nullptr;
      if (last && last->end == run.begin && last->bits + (last->end - last->begin) * Packed::kBlockStep == run.bits) {
        last->end = run.end;
      } else {
        list[count++] = run;
      }
    };
    const size_t had = countOf(starts_);
    size_t from = begin > 0 ? countOf(starts_ & through(begin - 1)) : 0, to = countOf(starts_ & through(end - 1));
    unsigned clearFrom = begin, clearTo = end;
    // What begins before `begin` and reaches it, or past `end`.
    Run over{0, 0, 0};
    if (from > 0) {
      const Run before = runAt(from - 1, highest(starts_ & through(begin - 1)));
      if (before.end >= begin) {
        append({before.begin, begin, before.bits});
        over = before;
        clearFrom = before.begin;
        --from;
      }
    }
    for (size_t i = 0; i < withCount; ++i) append(with[i]);
    if (const uint64_t inside = starts_ & through(end - 1) & ~(begin > 0 ? through(begin - 1) : 0)) {
      over = runAt(to - 1, highest(inside));
    }
    if (over.end > end) {
      append({end, over.end, over.bits + (end - over.begin) * Packed::kBlockStep});
    } else if (end < kFan && (starts_ >> end & 1) != 0) {
      append(runAt(to++, end));
      clearTo = end + 1;
    }
    uint64_t starts = starts_ & ~(through(clearTo - 1) & ~(clearFrom > 0 ? through(clearFrom - 1) : 0));
    for (size_t i = 0; i < count; ++i) starts |= uint64_t{1} << list[i].begin;

    const size_t have = had - (to - from) + count;
    uint64_t* const old = runs();
    uint64_t word = 0, *words = old;
    const bool moves = (had > 1 ? capacityOf(had) : had) != (have > 1 ? capacityOf(have) : have);
    if (have <= 1) {
      words = &word;
    } else if (moves) {
      words = static_cast<uint64_t*>(pool.take(capacityOf(have) * sizeof(uint64_t)));
    }
    if (words != old) std::memcpy(words, old, from * sizeof(uint64_t));
    std::memmove(words + from + count, old + to, (had - to) * sizeof(uint64_t));
    for (size_t i = 0; i < count; ++i) {
      words[from + i] = wordOf(list[i]);
    }
    if (words != old) {
      release(pool, had);
      word_ = have > 1 ? reinterpret_cast<uint64_t>(words) : word;
    }
    starts_ = starts;
  }

  Run runAt(size_t i, unsigned begin) const {
    const uint64_t word = runs()[i];
    return {begin, begin + static_cast<unsigned>(lengthOf(word)), word >> kFanBits};
  }

  void order(Pool& pool, uint64_t base) {
    if (starts_ == 0 && word_ != 0) return;
    auto* ordered = new Ordered;
    walk(base, {base, endOf(base, kBytes)}, [&](Range part, const Value& value) {
      ordered->assign(part, value);
      return true;
    });
    clear(pool);
    word_ = reinterpret_cast<uint64_t>(ordered);
  }

  void packAgain(Pool& pool, uint64_t base) {
    Ordered* old = ordered();
    Run packed[kFan] = {};
    size_t count = 0;
    if (old->size() > kFan || !old->walk({base, endOf(base, kBytes)}, [&](Range part, const Value& value) {
          packed[count] = {blockOf(part.begin), blockOf(part.end - 1) + 1, 0};
          return inBlocks(part) && Packed::pack(value, &packed[count++].bits);
        })) {
      return;
    }
    delete old;
    word_ = 0;
    replace(pool, 0, kFan, packed, count);
  }

  uint64_t starts_ = 0, word_ = 0;
};

}  // namespace sm
