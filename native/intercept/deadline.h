// One point in time that several waits share.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace sm {

class Deadline {
 public:
  explicit Deadline(uint64_t timeout) : at_(Clock::now() + std::chrono::nanoseconds(timeout)) {}  // ns from now

  bool over() const { return Clock::now() >= at_; }
  uint64_t left() const {
    return static_cast<uint64_t>(std::max(std::chrono::nanoseconds(0), at_ - Clock::now()).count());
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point at_;
};

}  // namespace sm
