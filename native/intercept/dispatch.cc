#include "intercept/dispatch.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <thread>

#include "intercept/deadline.h"

namespace sm {

DispatchChain::DispatchChain(sm_device* device)
    : device_(device), driver_(__atomic_load_n(&device->ops, __ATOMIC_ACQUIRE)) {}

DispatchChain& DispatchChain::of(sm_device* device) {
  static std::mutex mutex;
  static auto* chains = new std::map<uint32_t, std::unique_ptr<DispatchChain>>();  // outlives every I/O thread
  std::lock_guard lock(mutex);
  auto& chain = (*chains)[device->id];
  if (!chain) chain.reset(new DispatchChain(device));
  return *chain;
}

void DispatchChain::thunk(const sm_device_ops* self, sm_device* device, sm_request* request) {
  const Link* link = reinterpret_cast<const Link*>(self);
  if (link->interposer->active_.load(std::memory_order_acquire)) {
    link->interposer->submit(link->next, device, request);
  } else {
    link->next->submit(link->next, device, request);
  }
}

DispatchChain::Link* DispatchChain::takeLink() {
  if (free_.empty()) {
    links_.push_back(std::make_unique<Link>());
    free_.push_back(links_.back().get());
  }
  Link* link = free_.back();
  free_.pop_back();
  return link;
}

// Builds the chain for interposers_ anew and makes it the device's table.
void DispatchChain::publish() {
  retired_.insert(retired_.end(), current_.begin(), current_.end());
  current_.clear();
  const sm_device_ops* head = driver_;
  for (auto it = interposers_.rbegin(); it != interposers_.rend(); ++it) {
    Link* link = takeLink();
    link->ops = {SM_CONTRACT_VERSION, sizeof(sm_device_ops), thunk};
    link->next = head;
    link->interposer = *it;
    head = &link->ops;
    current_.push_back(link);
  }
  __atomic_store_n(&device_->ops, head, __ATOMIC_RELEASE);
}

int DispatchChain::insert(Interposer* interposer) {
  std::lock_guard lock(mutex_);
  if (std::find(interposers_.begin(), interposers_.end(), interposer) != interposers_.end()) return -EEXIST;
  if (interposers_.size() >= kMost) return -ENOSPC;
  interposer->active_.store(true, std::memory_order_release);
  interposers_.insert(interposers_.begin(), interposer);
  publish();
  return 0;
}

int DispatchChain::remove(const sm_stack* stack, Interposer* interposer, uint64_t timeout) {
  const Deadline deadline(timeout);
  std::vector<Link*> retired;
  {
    std::lock_guard lock(mutex_);
    auto it = std::find(interposers_.begin(), interposers_.end(), interposer);
    if (it == interposers_.end()) return -ENOENT;
    interposers_.erase(it);
    publish();
    interposer->active_.store(false, std::memory_order_release);
    retired.swap(retired_);
  }
  // After this no thread is on its way into an old chain.
  const int late = stack->everywhere(
      stack, [](void*) {}, nullptr, deadline.left());
  {
    std::lock_guard lock(mutex_);
    std::vector<Link*>& to = late ? retired_ : free_;
    to.insert(to.end(), retired.begin(), retired.end());
  }
  if (late) return -ETIMEDOUT;
  while (interposer->inside() != 0) {
    if (deadline.over()) return -ETIMEDOUT;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return 0;
}

}  // namespace sm
