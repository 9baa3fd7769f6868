// The table of request contexts: any 64-bit key to a 32-bit value, for as long as the request lives.
//
// Thread contract: bind, find and release from any number of threads, without locks. A key is released by whoever bound
// it (or by a thread that was handed the request), after bind returned; two threads do not bind one key at once.
// find of a key that is bound for the whole call finds it; find of one that is bound or released meanwhile gives either
// answer; it never gives another key's value. Owners who serialise bind and release among themselves, but not find, may
// say so (Writers::kOne) and save the atomic read-modify-writes.
//
// Layout: buckets of one cache line, three entries and a count. A key lives in its home bucket, or, where that was
// full, in the next that had room; the count of a bucket tells how many live keys passed it on their way, so that find
// stops at the first bucket that none has passed. Nothing moves once it is placed, so there is nothing to rehash, and
// no allocation after the constructor.
//
// Invariants:
//  - an entry goes free -> claimed (by compare-and-swap, one winner) -> live -> free; its version
//    grows at each claim, so that a reader that sees the same live meta before and after it read the key read its key;
//  - `passed` of a bucket is raised before a key beyond it becomes live, and lowered after it is freed.
//
// Capacity: `capacity` keys always fit at a load of at most one half, as long as they spread; keys that all have one
// home still fit, and cost a longer walk.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace sm {

class ContextTable {
 public:
  enum class Bind { kBound, kFull, kDuplicate };
  enum class Writers { kMany, kOne };

  explicit ContextTable(uint32_t capacity)
      : bucketCount_(std::bit_ceil((capacity < 3 ? 3 : capacity) * 2ull / kEntries + 1)),
        shift_(64 - std::countr_zero(bucketCount_)),
        buckets_(new Bucket[bucketCount_]) {}

  template <Writers kWriters = Writers::kMany>
  Bind bind(uint64_t key, uint32_t value) {
    const size_t home = homeOf(key);
    // One walk as find does it, which mostly comes by a free entry as well.
    Entry* free = nullptr;
    size_t freeAt = 0;
    for (size_t step = 0; step < bucketCount_; ++step) {
      Bucket& bucket = bucketAt(home, step);
      for (Entry& entry : bucket.entries) {
        const uint64_t meta = entry.meta.load(std::memory_order_acquire);
        if (!free && stateOf(meta) == kFree) free = &entry, freeAt = step;
        if (holds(entry, meta, key)) return Bind::kDuplicate;
      }
      if (bucket.passed.load(std::memory_order_acquire) == 0) break;
    }
    if (free && claim<kWriters>(*free, home, freeAt, key, value)) return Bind::kBound;
    for (size_t step = 0; step < bucketCount_; ++step) {
      for (Entry& entry : bucketAt(home, step).entries) {
        if (claim<kWriters>(entry, home, step, key, value)) return Bind::kBound;
      }
    }
    return Bind::kFull;
  }

  // Whether `key` is bound; its value then goes to *value.
  bool find(uint64_t key, uint32_t* value) const {
    const size_t home = homeOf(key);
    for (size_t step = 0; step < bucketCount_; ++step) {
      const Bucket& bucket = bucketAt(home, step);
      for (const Entry& entry : bucket.entries) {
        const uint64_t meta = entry.meta.load(std::memory_order_acquire);
        if (!holds(entry, meta, key)) continue;
        if (value) *value = static_cast<uint32_t>(meta >> 32);
        return true;
      }
      if (bucket.passed.load(std::memory_order_acquire) == 0) return false;
    }
    return false;
  }

  // Returns whether `key` was bound.
  template <Writers kWriters = Writers::kMany>
  bool release(uint64_t key) {
    const size_t home = homeOf(key);
    for (size_t step = 0; step < bucketCount_; ++step) {
      Bucket& bucket = bucketAt(home, step);
      for (Entry& entry : bucket.entries) {
        const uint64_t meta = entry.meta.load(std::memory_order_acquire);
        if (!holds(entry, meta, key)) continue;
        entry.meta.store((meta & kVersionMask) | kFree, std::memory_order_release);
        pass<kWriters>(home, step, -1);
        return true;
      }
      if (bucket.passed.load(std::memory_order_acquire) == 0) return false;
    }
    return false;
  }

  // The bucket at which a key's way begins.
  // Sequences walk through neighbouring buckets, which the processor fetches ahead; what differs in the upper bits
  // alone, as aligned addresses do, is spread by multiplication with the golden ratio.
  size_t homeOf(uint64_t key) const {
    return static_cast<size_t>(key ^ (((key >> (64 - shift_)) * 0x9e3779b97f4a7c15ull) >> shift_)) & (bucketCount_ - 1);
  }

 private:
  static constexpr int kEntries = 3;
  // meta: value in the upper half, version in bits 2…31, state in bits 0…1.
  static constexpr uint64_t kFree = 0, kClaimed = 1, kLive = 2, kStateMask = 3;
  static constexpr uint64_t kVersionMask = 0xfffffffcull;

  struct Entry {
    std::atomic<uint64_t> key{0};
    std::atomic<uint64_t> meta{kFree};
  };
  struct alignas(64) Bucket {
    Entry entries[kEntries];
    std::atomic<uint64_t> passed{0};
  };
  static_assert(sizeof(Bucket) == 64);

  static uint64_t stateOf(uint64_t meta) { return meta & kStateMask; }
  static uint64_t nextVersion(uint64_t meta) { return (meta + 4) & kVersionMask; }

  Bucket& bucketAt(size_t home, size_t step) const { return buckets_[(home + step) & (bucketCount_ - 1)]; }
  // Whether `key` was in the entry when its meta was what it is.
  static bool holds(const Entry& entry, uint64_t meta, uint64_t key) {
    return stateOf(meta) == kLive && entry.key.load(std::memory_order_acquire) == key &&
           entry.meta.load(std::memory_order_relaxed) == meta;
  }

  template <Writers kWriters>
  bool claim(Entry& entry, size_t home, size_t step, uint64_t key, uint32_t value) {
    uint64_t meta = entry.meta.load(std::memory_order_relaxed);
    if (stateOf(meta) != kFree) return false;
    const uint64_t claimed = nextVersion(meta) | kClaimed;
    if (kWriters == Writers::kOne) {
      entry.meta.store(claimed, std::memory_order_relaxed);
    } else if (!entry.meta.compare_exchange_strong(meta, claimed, std::memory_order_acq_rel,
                                                   std::memory_order_relaxed)) {
      return false;
    }
    entry.key.store(key, std::memory_order_release);
    pass<kWriters>(home, step, 1);
    entry.meta.store((claimed & kVersionMask) | kLive | (static_cast<uint64_t>(value) << 32),
                     std::memory_order_release);
    return true;
  }

  template <Writers kWriters>
  void pass(size_t home, size_t steps, int64_t by) {
    for (size_t i = 0; i < steps; ++i) {
      std::atomic<uint64_t>& passed = bucketAt(home, i).passed;
      if (kWriters == Writers::kOne) {
        passed.store(passed.load(std::memory_order_relaxed) + static_cast<uint64_t>(by), std::memory_order_release);
      } else {
        passed.fetch_add(static_cast<uint64_t>(by), std::memory_order_acq_rel);
      }
    }
  }

  const size_t bucketCount_;
  const int shift_;
  std::unique_ptr<Bucket[]> buckets_;
};

}  // namespace sm
