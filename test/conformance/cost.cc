// What interception costs in a cell.
#include <algorithm>
#include <future>

#include "cell.h"
#include "disks/workload.h"
#include "stack.h"

namespace conformance {

namespace {

constexpr uint64_t kRounds = 5, kOperations = 4000;

double perRequest(Stack& stack, Outcome* outcome, uint64_t seed) {
  sm::WorkloadOptions options;
  options.pattern = "randwrite";
  options.operations = kOperations;
  options.seed = seed;
  sm::Workload workload(*stack.disks()[0], options);
  std::promise<sm::WorkloadResult> ended;
  workload.start([&](const sm::WorkloadResult& result) { ended.set_value(result); });
  const sm::WorkloadResult result = ended.get_future().get();
  if (result.errors > 0) outcome->complaints.push_back("a workload has errors");
  return double(result.cpuNs) / double(kOperations);
}

}  // namespace

double costOf(const Cell& cell) {
  Outcome outcome;
  std::vector<double> added;
  Stack stack(cell, &outcome);
  if (!stack.open()) return -1;
  perRequest(stack, &outcome, 0);
  for (uint64_t round = 0; round < kRounds; ++round) {
    const double without = perRequest(stack, &outcome, round);
    if (!stack.attach(false)) return -1;
    added.push_back(perRequest(stack, &outcome, round) - without);
    stack.detach();
  }
  if (!outcome.complaints.empty()) return -1;
  std::nth_element(added.begin(), added.begin() + kRounds / 2, added.end());
  return std::max(added[kRounds / 2], 0.0);
}

}  // namespace conformance
