// What a connection has done, counted by the one thread that does it and read by any.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace sm::nbd {

enum class Count : uint8_t {
  kReads,
  kWrites,
  kFlushes,
  kTrims,
  kWriteZeroes,
  kCaches,
  kBlockStatuses,
  kErrors,  // of all those, how many were answered with an error
  kBytesRead,
  kBytesWritten,
};
constexpr size_t kCounts = static_cast<size_t>(Count::kBytesWritten) + 1;

struct Counts {
  std::array<uint64_t, kCounts> values{};
  uint64_t operator[](Count count) const { return values[static_cast<size_t>(count)]; }
  void add(const Counts& other) {
    for (size_t i = 0; i < kCounts; ++i) values[i] += other.values[i];
  }
};

class LiveCounts {
 public:
  void add(Count count, uint64_t value) {
    std::atomic<uint64_t>& it = values_[static_cast<size_t>(count)];
    it.store(it.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
  }
  Counts read() const {
    Counts counts;
    for (size_t i = 0; i < kCounts; ++i) counts.values[i] = values_[i].load(std::memory_order_relaxed);
    return counts;
  }

 private:
  std::array<std::atomic<uint64_t>, kCounts> values_{};
};

}  // namespace sm::nbd
