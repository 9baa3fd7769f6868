// Completion events on their way to one reader in another thread: a ring of doubles, because a reader in JavaScript
// takes them from a Float64Array as they are (every quantity here is exact below 2^53).
//
// Thread contract: one producer at a time (the correlator pushes under the map's lock), one consumer; no lock between
// them. Invariants: head_ <= tail_ <= head_ + capacity; only the consumer moves head_, only the producer tail_; what
// lies between is whole records. A record that does not fit is dropped and counted.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace sm {

// The words of a record. Times are ns of CLOCK_MONOTONIC since the ring's origin; an offset inside the request that is
// not known is -1.
struct EventWords {
  enum Head : int {
    kWords = 0,  // of the whole record
    kOp,         // enum sm_op
    kStatus,     // 0 or a negative errno
    kDisk,       // DiskKey
    kDiskOffset,
    kLength,
    kSubmitted,
    kFirstIssued,    // 0: nothing was issued
    kLastCompleted,  // 0: nothing was issued
    kCompleted,
    kPieces,
    kHead  // size of the head
  };
  enum Piece : int { kDevice = 0, kOffset, kPieceLength, kPosition, kPiece /* size of a piece */ };
  static constexpr int kMaxPieces = 1024;
};

class EventRing {
 public:
  // `capacity` in words, a power of two. `origin`: ns of CLOCK_MONOTONIC that become time 0.
  EventRing(size_t capacity, uint64_t origin);

  uint64_t origin() const { return origin_; }

  // --- producer. Begin gives room for a record of `words` or null (dropped); the words may wrap, so write by set().
  bool begin(size_t words);
  void set(size_t index, double value) { words_[(tail_.load(std::memory_order_relaxed) + index) & mask_] = value; }
  // Publishes; returns whether the consumer asked to be woken (once).
  bool commit(size_t words);

  // --- consumer. Copies whole records, at most `room` words, and returns how many words they are; what lies behind
  // them in `out` is nothing.
  size_t drain(double* out, size_t room);
  // Asks for one wake-up by the next commit. Returns false if there is something to drain already.
  bool arm();

  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  const size_t mask_;
  const uint64_t origin_;
  std::unique_ptr<double[]> words_;
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
  alignas(64) std::atomic<bool> armed_{false};
  std::atomic<uint64_t> dropped_{0};
};

}  // namespace sm
