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
//  - an entry goes free -> claimed (by compare-and-swap, one winner) -> live -> claimed -> free; its version grows at
//    each claim, so that a reader that sees the same live meta before and after it read the key read its key. Its key
//    changes only while it is claimed; a free one has none that is bound elsewhere, but by accident;
//  - `passed` of a bucket is raised before a key beyond it becomes live, and lowered after it is freed.
//
// Capacity: `capacity` keys always fit at a load of at most one half, as long as they spread; keys that all have one
// home still fit, and cost a longer walk.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "map/pages.h"

namespace sm {

class ContextTable {
 public:
  enum class Bind { kBound, kFull, kDuplicate };
  enum class Writers { kMany, kOne };

  explicit ContextTable(uint32_t capacity)
      : bucketCount_(std::bit_ceil((capacity < 3 ? 3 : capacity) * 2ull / kEntries + 1)),
        bits_(std::countr_zero(bucketCount_)),
        buckets_(bucketCount_) {}

  template <Writers kWriters = Writers::kMany>
  Bind bind(uint64_t key, uint32_t value) {
    const size_t home = homeOf(key);
    // One walk as find does it, which mostly comes by a free entry as well.
    Entry* free = nullptr;
    size_t freeAt = 0;
    for (size_t step = 0; step < bucketCount_; ++step) {
      Bucket& bucket = bucketAt(home, step);
      uint64_t meta;
      if (entryOf(bucket, key, &meta)) return Bind::kDuplicate;
      if (!free) free = freeOf(bucket), freeAt = step;
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
    uint64_t meta;
    size_t step;
    if (!seek(homeOf(key), key, &step, &meta)) return false;
    if (value) *value = static_cast<uint32_t>(meta >> 32);
    return true;
  }

  // Returns whether `key` was bound.
  template <Writers kWriters = Writers::kMany>
  bool release(uint64_t key) {
    const size_t home = homeOf(key);
    uint64_t meta;
    size_t step;
    Entry* entry = seek(home, key, &step, &meta);
    if (!entry) return false;
    // It leaves no key behind that would be taken for one that stands elsewhere by now.
    entry->meta.store((meta & kVersionMask) | kClaimed, std::memory_order_relaxed);
    entry->key.store(~key, std::memory_order_release);
    entry->meta.store((meta & kVersionMask) | kFree, std::memory_order_release);
    pass<kWriters>(home, step, -1);
    return true;
  }

  // The bucket at which a key's way begins.
  // Sequences walk through neighbouring buckets, which the processor fetches ahead; what differs in the upper bits
  // alone, as aligned addresses do, is spread at random: both halves of the product, for evenly spaced keys have evenly
  // spaced products, which lie on top of each other.
  size_t homeOf(uint64_t key) const {
    const auto product = static_cast<unsigned __int128>(key >> bits_) * 0x9e3779b97f4a7c15ull;
    const uint64_t mixed = static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
    return (key ^ (mixed >> 20)) & (bucketCount_ - 1);
  }
  // What its buckets lie in.
  const Pages& pages() const { return buckets_.pages(); }

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
  static bool holds(const Entry& entry, uint64_t key, uint64_t* meta) {
    *meta = entry.meta.load(std::memory_order_acquire);
    return stateOf(*meta) == kLive && entry.key.load(std::memory_order_acquire) == key &&
           entry.meta.load(std::memory_order_relaxed) == *meta;
  }

  // The entry of a bucket in which `key` is live, and its meta; null: none. Which of them it is, is chosen without a
  // branch, for no processor could foretell it; by single words, for a wider load of what was stored a moment ago would
  // wait for the stores.
  static Entry* entryOf(Bucket& bucket, uint64_t key, uint64_t* meta) {
    static_assert(kEntries == 3);
    Entry* const entries = bucket.entries;
    const bool first = entries[0].key.load(std::memory_order_acquire) == key;
    const bool second = entries[1].key.load(std::memory_order_acquire) == key;
    const bool third = entries[2].key.load(std::memory_order_acquire) == key;
    if (!(first | second | third)) return nullptr;
    Entry* entry = &entries[second + 2 * (third & !second)];
    if (holds(*entry, key, meta)) return entry;
    // What is there was never bound or is gone, and looks like it.
    for (entry = entries; entry < entries + kEntries; ++entry) {
      if (holds(*entry, key, meta)) return entry;
    }
    return nullptr;
  }
  // An entry that may be free.
  static Entry* freeOf(Bucket& bucket) {
    Entry* const entries = bucket.entries;
    const bool first = stateOf(entries[0].meta.load(std::memory_order_relaxed)) == kFree;
    const bool second = stateOf(entries[1].meta.load(std::memory_order_relaxed)) == kFree;
    return &entries[first ? 0 : 2 - second];
  }

  // Where `key` is live; `meta` is the entry's, `step` its bucket's distance from home. Null: nowhere.
  Entry* seek(size_t home, uint64_t key, size_t* step, uint64_t* meta) const {
    for (*step = 0; *step < bucketCount_; ++*step) {
      Bucket& bucket = bucketAt(home, *step);
      if (Entry* entry = entryOf(bucket, key, meta)) return entry;
      if (bucket.passed.load(std::memory_order_acquire) == 0) return nullptr;
    }
    return nullptr;
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
  const int bits_;
  PagedArray<Bucket> buckets_;
};

}  // namespace sm
