#include "policies/limit.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "correlate/correlator.h"

namespace sm {

void Bucket::charge(Account& account, double due, uint64_t bytes) const {
  const double saved = due - static_cast<double>(options_.burst);
  if (options_.iops > 0) account.operations = std::max(account.operations, saved) + 1e9 / options_.iops;
  if (options_.bytesPerSecond > 0) {
    account.bytes = std::max(account.bytes, saved) + 1e9 * static_cast<double>(bytes) / options_.bytesPerSecond;
  }
}

uint64_t Bucket::grant(uint64_t now, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (!std::exchange(begun_, true)) {
    begin_ = now;
    granted_.operations = granted_.bytes = -static_cast<double>(options_.burst);
    gone_ = granted_;
  }
  const double time = now > begin_ ? static_cast<double>(now - begin_) : 0;
  double due = time;
  if (options_.iops > 0) due = std::max(due, granted_.operations);
  if (options_.bytesPerSecond > 0) due = std::max(due, granted_.bytes);
  charge(granted_, due, bytes);
  constexpr double kFar = 1e18;  // ns: thirty years
  const uint64_t at = begin_ + static_cast<uint64_t>(std::min(due, kFar));
  if (at <= now) charge(gone_, due, bytes);
  return at;
}

void Bucket::goesOn(uint64_t due, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  charge(gone_, due > begin_ ? static_cast<double>(due - begin_) : 0, bytes);
  // What goes on as was granted at earlier rates is not in what is granted at these.
  granted_.operations = std::max(granted_.operations, gone_.operations);
  granted_.bytes = std::max(granted_.bytes, gone_.bytes);
}

void Bucket::set(const LimitOptions& options, uint64_t now) {
  std::lock_guard lock(mutex_);
  if (begun_) {
    const double time = now > begin_ ? static_cast<double>(now - begin_) : 0;
    const auto unpaid = [&](double until, double rate, double newRate) {
      return rate > 0 && newRate > 0 ? std::max(0.0, until - time) * (rate / newRate) : 0;
    };
    gone_.operations = unpaid(gone_.operations, options_.iops, options.iops);
    gone_.bytes = unpaid(gone_.bytes, options_.bytesPerSecond, options.bytesPerSecond);
    granted_ = gone_;
    begin_ = now;
  }
  options_ = options;
}

// As the kernel's throttle has it: what carries no data costs an operation, however large its range.
static uint64_t bytesOf(const sm_request* request) {
  return request->op == SM_OP_DISCARD || request->op == SM_OP_WRITE_ZEROES ? 0 : request->length;
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
    const uint64_t due = shared_->bucket.grant(now, bytesOf(request));
    due <= now ? pass(next, device, request) : hold(next, request, due);
  }
  void grantAgain() {
    const uint64_t now = stack()->now(stack());
    holdAgain([&](const sm_request* request) { return shared_->bucket.grant(now, bytesOf(request)); });
  }
  const char* name() const override { return "limit"; }

 protected:
  void goesOn(const sm_request* request, uint64_t due) override {
    shared_->bucket.goesOn(due, bytesOf(request));
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
  shared_->bucket.set(options, stack()->now(stack()));
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
