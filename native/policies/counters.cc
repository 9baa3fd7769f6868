#include "policies/counters.h"

#include <utility>

namespace sm {

class Counters::Point : public Interposer {
 public:
  explicit Point(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    Shared::Counts& counts = of(*request);
    counts.operations.fetch_add(1, std::memory_order_relaxed);
    counts.bytes.fetch_add(request->length, std::memory_order_relaxed);
    inside_.fetch_add(1, std::memory_order_relaxed);
    if (sm_request_push(request, completed, this, 0) != 0) {
      counts.unseen.fetch_add(1, std::memory_order_relaxed);
      inside_.fetch_sub(1, std::memory_order_release);
    }
    next->submit(next, device, request);
  }
  uint64_t inside() const override { return inside_.load(std::memory_order_acquire); }
  const char* name() const override { return "count"; }

 private:
  Shared::Counts& of(const sm_request& request) const { return shared_->of[request.op < kOps ? request.op : 0]; }

  static void completed(sm_request* request, void* context, uint64_t) {
    auto* point = static_cast<Point*>(context);
    Shared::Counts& counts = point->of(*request);
    (request->status == 0 ? counts.succeeded : counts.failed).fetch_add(1, std::memory_order_relaxed);
    (request->status == 0 ? counts.succeededBytes : counts.failedBytes)
        .fetch_add(request->length, std::memory_order_relaxed);
    point->inside_.fetch_sub(1, std::memory_order_release);  // it may be gone from here on
    sm_request_pop(request);
  }

  const std::shared_ptr<Shared> shared_;
  std::atomic<uint64_t> inside_{0};
};

std::unique_ptr<Interposer> Counters::make() { return std::make_unique<Point>(shared_); }

std::array<OpCounters, Counters::kOps> Counters::counters() const {
  std::array<OpCounters, kOps> out;
  for (size_t op = 0; op < kOps; ++op) {
    const Shared::Counts& from = shared_->of[op];
    out[op] = {from.operations, from.bytes,       from.succeeded, from.succeededBytes,
               from.failed,     from.failedBytes, from.unseen};
  }
  return out;
}

}  // namespace sm
