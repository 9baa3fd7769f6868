#include "policies/policy.h"

#include <algorithm>
#include <cerrno>
#include <utility>

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

// What is at the end of points_.
void Policy::takeLast(Leaving& leaving) {
  leaving.gone_.reserve(leaving.gone_.size() + 1);
  const Point& last = points_.back();
  const bool late = DispatchChain::of(last.device).takeOut(stack_, last.interposer.get(), 0) != 0;
  std::lock_guard lock(mutex_);
  leaving.gone_.push_back({std::move(points_.back().interposer), late});
  points_.pop_back();
}

std::shared_ptr<const Leaving> Policy::takeOut() {
  auto leaving = std::make_shared<Leaving>();
  while (!points_.empty()) takeLast(*leaving);
  return leaving;
}

std::shared_ptr<const Leaving> Policy::takeOut(sm_device* device) {
  auto leaving = std::make_shared<Leaving>();
  const auto it = std::find_if(points_.begin(), points_.end(), [&](const Point& at) { return at.device == device; });
  if (it == points_.end()) return leaving;
  {
    std::lock_guard lock(mutex_);
    std::iter_swap(it, points_.end() - 1);
  }
  takeLast(*leaving);
  return leaving;
}

int Policy::removeDevice(sm_device* device, uint64_t timeout) {
  if (!on(device)) return -ENOENT;
  const Deadline deadline(timeout);
  return takeOut(device)->wait(deadline);
}

int Policy::detach(uint64_t timeout) {
  const Deadline deadline(timeout);
  return takeOut()->wait(deadline);
}

int Leaving::wait(const Deadline& deadline) const {
  int result = 0;
  for (const Gone& each : gone_) {
    if (each.late || !DispatchChain::left(each.interposer.get(), deadline)) result = -ETIMEDOUT;
  }
  return result;
}

Leaving::~Leaving() {
  for (Gone& each : gone_) {
    if (each.late || each.interposer->inside() != 0) keepForever(std::move(each.interposer));
  }
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
