// `fault`: makes some requests fail, by rules.
//
// Rules are looked at in order, and the first that strikes decides. A rule strikes by chance, the n-th request that it
// matches by the n-th number of its seed, or every so many of them.
//
// A request that fails is failed as its driver would: its issuer's fields are left alone. What reaches the device of a
// short or torn one are requests of the fault's own, each carrying what a clone carries, one after the other. There is
// room for 64 such at once, for each device and I/O thread: nothing of any more reaches the device, and they fail with
// EIO all the same.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "policies/match.h"
#include "policies/policy.h"

namespace sm {

enum class FaultKind : uint8_t {
  kError,  // fails with `error`. Of a read the device has been read; of all else nothing has reached the device
  kShort,  // the first blocks of it reach the device, at least one and not all, then it fails with EIO. One of a single
           // block, and a flush, fail as an error
  kTorn,   // a write: some of its blocks reach the device, at least one does not, as when the power is cut; then it
           // fails with EIO. A block is the device's: 512 bytes, where it is not larger
};

struct FaultRule {
  Match match;
  double probability = 0;  // of striking, or
  uint64_t every = 0;      // every so many requests that match; 0: by chance
  FaultKind kind = FaultKind::kError;
  int32_t error = 5;  // positive errno: EIO; of kError
};

struct FaultCounters {
  uint64_t matched = 0;                // requests that the rule was asked about
  uint64_t operations = 0, bytes = 0;  // on which it struck
};

class Fault : public Policy {
 public:
  static constexpr size_t kMostRules = 64;

  Fault(const sm_stack* stack, uint64_t seed, std::vector<FaultRule> rules);
  std::vector<FaultCounters> counters() const;  // by rule

 protected:
  std::unique_ptr<Interposer> make() override;

 private:
  struct Shared;
  class Point;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace sm
