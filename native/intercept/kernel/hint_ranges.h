// The hints of I/O priorities that are ours alone: all processes of a system share them, and hand them out by locks on
// bytes of one file, which go with whoever holds them (fcntl(2), open file description locks).
//
// Thread contract: any thread, one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sm {

class HintRanges {
 public:
  static constexpr uint16_t kRanges = 8;
  static constexpr const char* kLockFile = "/run/stratamap.hints";

  HintRanges() = default;
  ~HintRanges();
  HintRanges(const HintRanges&) = delete;
  HintRanges& operator=(const HintRanges&) = delete;

  // Takes half of the ranges that are free, at least one: whoever comes later finds some as well. 0, -EBUSY (there is
  // none left) or what open(2) says; `why` then says so.
  int acquire(const std::string& lockFile, std::string* why);
  // The hints that are ours.
  const std::vector<uint16_t>& hints() const { return hints_; }

 private:
  int fd_ = -1;
  std::vector<uint16_t> hints_;
};

}  // namespace sm
