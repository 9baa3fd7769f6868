#include "policies/delay.h"

#include <cmath>
#include <utility>

namespace sm {

uint64_t DelayOptions::draw(uint64_t n) const {
  const double u = unit(chance(seed, n));
  switch (distribution) {
    case Distribution::kConstant:
      return mean;
    case Distribution::kUniform:
      return least + static_cast<uint64_t>(u * static_cast<double>(most - least));
    case Distribution::kExponential:
      return static_cast<uint64_t>(-std::log1p(-u) * static_cast<double>(mean));  // at most 37 times the mean
  }
  return 0;
}

class Delay::Point : public Holder {
 public:
  Point(const sm_stack* stack, std::shared_ptr<HolderTally> tally, std::shared_ptr<Shared> shared)
      : Holder(stack, std::move(tally)), shared_(std::move(shared)) {}

  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    const DelayOptions& options = shared_->options;
    if (!options.match(*request)) return pass(next, device, request);
    const uint64_t delay = options.draw(shared_->drawn.fetch_add(1, std::memory_order_relaxed));
    if (delay == 0) return pass(next, device, request);
    hold(next, request, stack()->now(stack()) + delay);
  }
  const char* name() const override { return "delay"; }

 private:
  const std::shared_ptr<Shared> shared_;
};

Delay::Delay(const sm_stack* stack, const DelayOptions& options)
    : Policy(stack), shared_(std::make_shared<Shared>(options)), tally_(std::make_shared<HolderTally>(stack)) {}

std::unique_ptr<Interposer> Delay::make() { return std::make_unique<Point>(stack(), tally_, shared_); }

HolderCounters Delay::counters() const {
  HolderCounters sum = tally_->sum();
  sum.waiting = inside();
  return sum;
}

}  // namespace sm
