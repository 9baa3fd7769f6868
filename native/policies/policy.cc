#include "policies/policy.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "intercept/deadline.h"
#include "intercept/keep.h"

namespace sm {

int Policy::addDevice(sm_device* device, size_t position) {
  if (on(device)) return -EEXIST;
  points_.push_back({device, make()});
  const int status = DispatchChain::of(device).insert(points_.back().interposer.get(), position);
  if (status != 0) points_.pop_back();
  return status;
}

int Policy::removeDevice(sm_device* device, uint64_t timeout) {
  const auto it = std::find_if(points_.begin(), points_.end(), [&](const Point& at) { return at.device == device; });
  if (it == points_.end()) return -ENOENT;
  const int status = DispatchChain::of(device).remove(stack_, it->interposer.get(), timeout);
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
  const auto it = std::find_if(points_.begin(), points_.end(), [&](const Point& at) { return at.device == device; });
  return it == points_.end() ? nullptr : it->interposer.get();
}

}  // namespace sm
