#include "flow.h"

#include <algorithm>

#include "medium.h"

namespace sm {

Flow::Flow(const sm_services* services, sm_device* const* devices, uint32_t deviceCount, Issue issue,
           Durability& durability)
    : services_(services),
      durability_(durability),
      children_(services, issue),
      devices_(devices, devices + deviceCount),
      maxTransfer_(1u << 30) {
  for (const sm_device* device : devices_) maxTransfer_ = std::min<uint64_t>(maxTransfer_, device->max_transfer);
  maxTransfer_ = maxTransfer_ >= kPage ? maxTransfer_ / kPage * kPage : maxTransfer_;
  task_.flow = this;
  task_.task.run = [](sm_task* task) {
    Flow* flow = reinterpret_cast<Task*>(task)->flow;
    flow->armed_ = false;
    flow->paused_ = false;
    flow->drain();
  };
}

void Flow::advanceFlush(sm_request* request) {
  RequestState& state = stateOf(request);
  for (; state.cursor < devices_.size(); ++state.cursor) {
    sm_request* child = children_.make(request, SM_OP_FLUSH, 0, 0);
    if (!child) return starve(request);
    sm_request_push(
        child,
        [](sm_request* child, void* context, uint64_t word) {
          Flow* flow = static_cast<Flow*>(context);
          const int32_t status = child->status;
          flow->children_.put(child);
          if (status) flow->durability_.lose(status);
          flow->settle(reinterpret_cast<sm_request*>(word), status);
        },
        this, reinterpret_cast<uint64_t>(request));
    ++state.pending;
    sm_device_submit(devices_[state.cursor], child);
  }
  issued(request);
}

void Flow::drain() {
  if (draining_) return;
  draining_ = true;
  if (!paused_) drainOwn();
  while (!paused_ && !ready_.empty()) advance(ready_.pop());
  draining_ = false;
}

void Flow::unpark(sm_request* request) {
  stateOf(request).pending &= ~kParked;
  ready_.push(request);
  drain();
}

void Flow::pauseFor(void (*when)(const sm_services*, sm_task*)) {
  paused_ = true;
  if (armed_) return;
  armed_ = true;
  when(services_, &task_.task);
}

}  // namespace sm
