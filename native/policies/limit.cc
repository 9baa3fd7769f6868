#include "policies/limit.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "correlate/correlator.h"

namespace sm {

uint64_t Bucket::grant(uint64_t now, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (!std::exchange(begun_, true)) {
    begin_ = now;
    operations_ = bytes_ = full_ ? -static_cast<double>(options_.burst) : 0;
  }
  double due = now > begin_ ? static_cast<double>(now - begin_) : 0;
  if (options_.iops > 0) due = std::max(due, operations_);
  if (options_.bytesPerSecond > 0) due = std::max(due, bytes_);
  const double saved = due - static_cast<double>(options_.burst);
  if (options_.iops > 0) operations_ = std::max(operations_, saved) + 1e9 / options_.iops;
  if (options_.bytesPerSecond > 0) {
    bytes_ = std::max(bytes_, saved) + 1e9 * static_cast<double>(bytes) / options_.bytesPerSecond;
  }
  constexpr double kFar = 1e18;  // ns: thirty years
  return begin_ + static_cast<uint64_t>(std::min(due, kFar));
}

void Bucket::set(const LimitOptions& options) {
  std::lock_guard lock(mutex_);
  options_ = options;
  begun_ = full_ = false;
}

struct Limit::Shared {
  Shared(const sm_stack* stack, std::shared_ptr<const Correlator> owners, DiskKey disk, const LimitOptions& options)
      : owners(std::move(owners)),
        disk(disk),
        bucket(options),
        tally(std::make_shared<HolderTally>(stack)),
        foreign(stack) {}

  const std::shared_ptr<const Correlator> owners;
  const DiskKey disk;
  Bucket bucket;
  const std::shared_ptr<HolderTally> tally;
  HolderTally foreign;
};

class Limit::Point : public Holder {
 public:
  Point(const sm_stack* stack, std::shared_ptr<Shared> shared)
      : Holder(stack, shared->tally), shared_(std::move(shared)) {}

  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    const uint32_t thread = stack()->thread(stack());
    if (thread == UINT32_MAX || shared_->owners->ownerOf(request) != shared_->disk) {
      if (thread != UINT32_MAX) HolderTally::Row::add(shared_->foreign.of(thread).passed);
      return next->submit(next, device, request);
    }
    const uint64_t now = stack()->now(stack());
    const uint64_t due = shared_->bucket.grant(now, request->length);
    due <= now ? pass(next, device, request) : hold(next, request, due);
  }
  void grantAgain() {
    const uint64_t now = stack()->now(stack());
    holdAgain([&](const sm_request* request) { return shared_->bucket.grant(now, request->length); });
  }
  const char* name() const override { return "limit"; }

 protected:
  void goesOn(const sm_request* request) override {
    const DiskKey owner = shared_->owners->ownerOf(request);
    if (owner == shared_->disk || owner == kNoKey) return;
    HolderTally::Row::add(shared_->foreign.of(stack()->thread(stack())).held);
  }

 private:
  const std::shared_ptr<Shared> shared_;
};

Limit::Limit(const sm_stack* stack, std::shared_ptr<Shared> shared) : Policy(stack), shared_(std::move(shared)) {}

int Limit::create(const sm_stack* stack, Probe& probe, const DiskName& disk, const LimitOptions& options,
                  std::unique_ptr<Limit>* out, std::string* why) {
  auto owners = probe.owners();
  if (!owners) {
    *why =
        "a limit acts on what its own association attributes to the disk when it is issued: attach the probe with "
        "correlation 'descend' and an association other than 'content'";
    return -ENOTSUP;
  }
  out->reset(new Limit(stack, std::make_shared<Shared>(stack, std::move(owners), probe.keyOf(disk), options)));
  return 0;
}

int Limit::update(const LimitOptions& options, uint64_t timeout) {
  shared_->bucket.set(options);
  return stack()->everywhere(
      stack(),
      [](void* context) {
        for (const auto& point : static_cast<Limit*>(context)->points()) {
          static_cast<Point&>(*point.interposer).grantAgain();
        }
      },
      this, timeout);
}

LimitCounters Limit::counters() const {
  const HolderCounters foreign = shared_->foreign.sum();
  LimitCounters sum{shared_->tally->sum(), foreign.passed, foreign.held};
  sum.waiting = inside();
  return sum;
}

std::unique_ptr<Interposer> Limit::make() { return std::make_unique<Point>(stack(), shared_); }

}  // namespace sm
