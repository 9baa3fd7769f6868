// The table of request contexts: any 64-bit key to a 32-bit value, for as long as the request lives.
//
// Thread contract: bind, find and release from any number of threads, without locks. A key is released by whoever bound
// it (or by a thread that was handed the request), after bind returned; two threads do not bind one key at once.
// find of a key that is bound for the whole call finds it; find of one that is bound or released meanwhile gives either
// answer; it never gives another key's value.
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

  explicit ContextTable(uint32_t capacity)
      : bucketCount_(std::bit_ceil((capacity < 3 ? 3 : capacity) * 2ull / kEntries + 1)),
        shift_(64 - std::countr_zero(bucketCount_)),
        buckets_(new Bucket[bucketCount_]) {}

  Bind bind(uint64_t key, uint32_t value) {
    const size_t home = homeOf(key);
    if (find(key, nullptr)) return Bind::kDuplicate;
    for (size_t step = 0; step < bucketCount_; ++step) {
      Bucket& bucket = buckets_[(home + step) & (bucketCount_ - 1)];
      for (Entry& entry : bucket.entries) {
        uint64_t meta = entry.meta.load(std::memory_order_relaxed);
        if (stateOf(meta) != kFree) continue;
        const uint64_t claimed = nextVersion(meta) | kClaimed;
        if (!entry.meta.compare_exchange_strong(meta, claimed, std::memory_order_acq_rel, std::memory_order_relaxed)) {
          continue;
        }
        entry.key.store(key, std::memory_order_release);
        pass(home, step, 1);
        entry.meta.store((claimed & kVersionMask) | kLive | (static_cast<uint64_t>(value) << 32),
                         std::memory_order_release);
        return Bind::kBound;
      }
    }
    return Bind::kFull;
  }

  // Whether `key` is bound; its value then goes to *value.
  bool find(uint64_t key, uint32_t* value) const {
    const size_t home = homeOf(key);
    for (size_t step = 0; step < bucketCount_; ++step) {
      const Bucket& bucket = buckets_[(home + step) & (bucketCount_ - 1)];
      for (const Entry& entry : bucket.entries) {
        const uint64_t meta = entry.meta.load(std::memory_order_acquire);
        if (stateOf(meta) != kLive || entry.key.load(std::memory_order_acquire) != key) continue;
        if (entry.meta.load(std::memory_order_relaxed) != meta) continue;
        if (value) *value = static_cast<uint32_t>(meta >> 32);
        return true;
      }
      if (bucket.passed.load(std::memory_order_acquire) == 0) return false;
    }
    return false;
  }

  // Returns whether `key` was bound.
  bool release(uint64_t key) {
    const size_t home = homeOf(key);
    for (size_t step = 0; step < bucketCount_; ++step) {
      Bucket& bucket = buckets_[(home + step) & (bucketCount_ - 1)];
      for (Entry& entry : bucket.entries) {
        const uint64_t meta = entry.meta.load(std::memory_order_acquire);
        if (stateOf(meta) != kLive || entry.key.load(std::memory_order_acquire) != key) continue;
        if (entry.meta.load(std::memory_order_relaxed) != meta) continue;
        entry.meta.store((meta & kVersionMask) | kFree, std::memory_order_release);
        pass(home, step, -1);
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

  void pass(size_t home, size_t steps, int64_t by) {
    for (size_t i = 0; i < steps; ++i) {
      buckets_[(home + i) & (bucketCount_ - 1)].passed.fetch_add(static_cast<uint64_t>(by), std::memory_order_acq_rel);
    }
  }

  const size_t bucketCount_;
  const int shift_;
  std::unique_ptr<Bucket[]> buckets_;
};

}  // namespace sm
