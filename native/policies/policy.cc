#include "policies/policy.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "intercept/deadline.h"
#include "intercept/keep.h"

namespace sm {

int Policy::addDevice(sm_device* device, size_t position) {
  if (on(device)) return -EEXIST;
  std::unique_ptr<Interposer> interposer = make();
  const int status = DispatchChain::of(device).insert(interposer.get(), position);
  if (status != 0) return status;
  std::lock_guard lock(mutex_);
  points_.push_back({device, std::move(interposer)});
  return 0;
}

int Policy::removeDevice(sm_device* device, uint64_t timeout) {
  Interposer* const interposer = on(device);
  if (!interposer) return -ENOENT;
  const int status = DispatchChain::of(device).remove(stack_, interposer, timeout);
  std::lock_guard lock(mutex_);
  const auto it = std::find_if(points_.begin(), points_.end(), [&](const Point& at) { return at.device == device; });
  if (status != 0) keepForever(std::move(it->interposer));
  points_.erase(it);
  return status;
}

int Policy::detach(uint64_t timeout) {
  const Deadline deadline(timeout);
  int result = 0;
  while (!points_.empty()) {
    if (int status = removeDevice(points_.back().device, deadline.left())) result = status;
  }
  return result;
}

Interposer* Policy::on(const sm_device* device) const {
  std::lock_guard lock(mutex_);
  const auto it = std::find_if(points_.begin(), points_.end(), [&](const Point& at) { return at.device == device; });
  return it == points_.end() ? nullptr : it->interposer.get();
}

uint64_t Policy::inside() const {
  std::lock_guard lock(mutex_);
  uint64_t sum = 0;
  for (const Point& point : points_) sum += point.interposer->inside();
  return sum;
}

}  // namespace sm
