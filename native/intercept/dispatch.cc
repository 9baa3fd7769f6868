#include "intercept/dispatch.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <thread>

namespace sm {

namespace {
constexpr uint64_t kSettle = 1'000'000'000;  // ns: an old order that is not left by then is kept until a later call,
                                             // and how long a release is pressed for, however short the wait
}

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
  if (Interposer* interposer = link->interposer.load(std::memory_order_acquire)) {
    interposer->submit(link->next, device, request);
  } else {
    link->next->submit(link->next, device, request);
  }
}

// The driver's own table is nobody's generation, and always there.
void DispatchChain::hold(const sm_device_ops* next) {
  if (next->submit != thunk) return;
  reinterpret_cast<const Link*>(next)->generation->held.fetch_add(1, std::memory_order_relaxed);
}

void DispatchChain::letGo(const sm_device_ops* next) {
  if (next->submit != thunk) return;
  reinterpret_cast<const Link*>(next)->generation->held.fetch_sub(1, std::memory_order_release);
}

DispatchChain::Generation* DispatchChain::takeGeneration() {
  for (auto& each : generations_) {
    if (each->seen && each->held.load(std::memory_order_acquire) == 0) return each.get();
  }
  generations_.push_back(std::make_unique<Generation>());
  return generations_.back().get();
}

// Builds the chain for interposers_ anew and makes it the device's table.
void DispatchChain::publish() {
  Generation* generation = interposers_.empty() ? nullptr : takeGeneration();
  const sm_device_ops* head = driver_;
  for (size_t i = interposers_.size(); i-- > 0;) {
    Link& link = generation->links[i];
    link.ops = {SM_CONTRACT_VERSION, sizeof(sm_device_ops), thunk};
    link.next = head;
    link.interposer.store(interposers_[i], std::memory_order_release);
    link.generation = generation;
    head = &link.ops;
  }
  if (generation) {
    generation->replaced = 0;
    generation->seen = false;
  }
  __atomic_store_n(&device_->ops, head, __ATOMIC_RELEASE);
  if (current_) current_->replaced = ++turn_;
  current_ = generation;
}

int DispatchChain::insert(Interposer* interposer, size_t position) {
  std::lock_guard lock(mutex_);
  if (std::find(interposers_.begin(), interposers_.end(), interposer) != interposers_.end()) return -EEXIST;
  if (interposers_.size() >= kMost) return -ENOSPC;
  const size_t above = std::min(position, interposers_.size());
  interposers_.insert(interposers_.begin() + static_cast<ptrdiff_t>(above), interposer);
  publish();
  return 0;
}

// Afterwards no thread is on its way into what had been replaced before.
int DispatchChain::settle(const sm_stack* stack, Interposer* leaving, uint64_t timeout) {
  uint64_t turn;
  {
    std::lock_guard lock(mutex_);
    turn = turn_;
  }
  const int late = stack->everywhere(
      stack,
      [](void* leaving) {
        if (leaving) static_cast<Interposer*>(leaving)->release();
      },
      leaving, timeout);
  if (late) return -ETIMEDOUT;
  std::lock_guard lock(mutex_);
  for (auto& each : generations_) each->seen |= each->replaced != 0 && each->replaced <= turn;
  return 0;
}

int DispatchChain::takeOut(const sm_stack* stack, Interposer* interposer, uint64_t timeout) {
  {
    std::lock_guard lock(mutex_);
    auto it = std::find(interposers_.begin(), interposers_.end(), interposer);
    if (it == interposers_.end()) return -ENOENT;
    interposers_.erase(it);
    publish();
    for (auto& each : generations_) {
      for (Link& link : each->links) {
        Interposer* gone = interposer;
        link.interposer.compare_exchange_strong(gone, nullptr, std::memory_order_release, std::memory_order_relaxed);
      }
    }
  }
  // Nobody could let go later on what is not let go now.
  return settle(stack, interposer, std::max(timeout, kSettle));
}

bool DispatchChain::left(const Interposer* interposer, const Deadline& deadline) {
  while (interposer->inside() != 0) {
    if (deadline.over()) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return true;
}

int DispatchChain::remove(const sm_stack* stack, Interposer* interposer, uint64_t timeout) {
  const Deadline deadline(timeout);
  if (const int status = takeOut(stack, interposer, timeout)) return status;
  return left(interposer, deadline) ? 0 : -ETIMEDOUT;
}

int DispatchChain::order(const sm_stack* stack, std::span<Interposer* const> order) {
  {
    std::lock_guard lock(mutex_);
    if (order.size() != interposers_.size() || !std::is_permutation(order.begin(), order.end(), interposers_.begin())) {
      return -EINVAL;
    }
    interposers_.assign(order.begin(), order.end());
    publish();
  }
  settle(stack, nullptr, kSettle);
  return 0;
}

std::vector<Interposer*> DispatchChain::interposers() const {
  std::lock_guard lock(mutex_);
  return interposers_;
}

std::vector<const char*> DispatchChain::names() const {
  std::lock_guard lock(mutex_);
  std::vector<const char*> names;
  for (const Interposer* each : interposers_) names.push_back(each->name());
  return names;
}

size_t DispatchChain::generations() const {
  std::lock_guard lock(mutex_);
  return generations_.size();
}

}  // namespace sm
