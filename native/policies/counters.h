// `count`: what passes this place on its way down, and how it came back. Below a probe it is what the ledger is
// compared with.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "policies/policy.h"

namespace sm {

struct OpCounters {
  uint64_t operations = 0, bytes = 0;          // as submitted
  uint64_t succeeded = 0, succeededBytes = 0;  // as completed
  uint64_t failed = 0, failedBytes = 0;        // as completed
  uint64_t unseen = 0;                         // submitted, and not seen to complete for want of a frame
};

class Counters : public Policy {
 public:
  static constexpr size_t kOps = SM_OP_WRITE_ZEROES + 1;  // by operation; what is none counts in place 0

  explicit Counters(const sm_stack* stack) : Policy(stack), shared_(std::make_shared<Shared>()) {}
  std::array<OpCounters, kOps> counters() const;

 protected:
  std::unique_ptr<Interposer> make() override;

 private:
  struct Shared {
    struct Counts {
      std::atomic<uint64_t> operations{0}, bytes{0}, succeeded{0}, succeededBytes{0}, failed{0}, failedBytes{0},
          unseen{0};
    };
    std::array<Counts, kOps> of;
  };
  class Point;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace sm
