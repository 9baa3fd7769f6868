// `delay`: each matching request is held back for a time drawn from a distribution before it goes on down. What is held
// at once is bounded by the requests that there are.
#pragma once

#include <atomic>
#include <memory>

#include "policies/holder.h"
#include "policies/match.h"
#include "policies/policy.h"

namespace sm {

struct DelayOptions {
  enum class Distribution : uint8_t { kConstant, kUniform, kExponential };
  Match match;
  Distribution distribution = Distribution::kConstant;
  uint64_t least = 0;  // ns: of uniform
  uint64_t most = 0;   // ns: of uniform
  uint64_t mean = 0;   // ns: of constant and exponential
  uint64_t seed = 1;

  static constexpr uint64_t kMost = 1'000'000'000'000'000;  // ns: eleven days
  uint64_t draw(uint64_t n) const;                          // the n-th delay, ns
};

class Delay : public Policy {
 public:
  Delay(const sm_stack* stack, const DelayOptions& options);
  HolderCounters counters() const;

 protected:
  std::unique_ptr<Interposer> make() override;

 private:
  struct Shared {
    explicit Shared(const DelayOptions& options) : options(options) {}
    const DelayOptions options;
    std::atomic<uint64_t> drawn{0};
  };
  class Point;
  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<HolderTally> tally_;
};

}  // namespace sm
