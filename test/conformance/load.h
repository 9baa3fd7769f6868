// What the guests of a cell do. Every payload is signed: it says which block of which disk it is, and no two are equal
// but where that is intended.
//
// Thread contract: one thread, which must not be an I/O thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <vector>

#include "stack.h"

namespace conformance {

struct Span {
  uint64_t offset, length;  // bytes
};

class Load {
 public:
  Load(Stack& stack, uint32_t depth, uint64_t seed);

  // Parts of a disk that do not touch each other, in random order: large and small ones, and some of which each lies
  // alone in a block of 4 KiB.
  std::vector<Span> tiles();
  // `op` on each, and all awaited. Complains of a failure.
  void each(uint32_t disk, const std::vector<Span>& spans, uint8_t op);
  // Anything, anywhere, at once: writes that overlap, equal payloads, zeroes, discards, reads, flushes. All awaited.
  void chaos(uint64_t operations);

  uint64_t failures() const { return failures_; }

 private:
  static constexpr uint64_t kLongest = 32 << 10;
  struct Io {
    sm::DiskIo io;  // first: found from it
    Load* load;
    std::byte* data;
  };
  Io& take();
  void submit(Io& io, uint32_t disk, uint8_t op, Span span, uint32_t flags);
  void fill(std::byte* data, uint32_t disk, Span span, bool plain);
  void await(size_t wanted);  // until so many are free

  Stack& stack_;
  std::mt19937_64 random_;
  uint64_t generation_ = 0, failures_ = 0;
  std::vector<std::byte> memory_;
  std::deque<Io> ios_;
  std::vector<Io*> free_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Io*> done_;  // guarded by mutex_
};

}  // namespace conformance
