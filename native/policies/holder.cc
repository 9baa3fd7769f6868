#include "policies/holder.h"

#include <new>
#include <utility>

namespace sm {

HolderCounters HolderTally::sum() const {
  HolderCounters sum;
  for (uint32_t i = 0; i < count_; ++i) {
    sum.held += rows_[i].held.load(std::memory_order_relaxed);
    sum.passed += rows_[i].passed.load(std::memory_order_relaxed);
  }
  return sum;
}

Holder::Holder(const sm_stack* stack, std::shared_ptr<HolderTally> tally)
    : stack_(stack), tally_(std::move(tally)), laneCount_(stack->threads(stack)), lanes_(new Lane[laneCount_]) {
  for (uint32_t i = 0; i < laneCount_; ++i) {
    lanes_[i].holder = this;
    lanes_[i].timer.run = [](sm_timer* timer) {
      Lane* lane = reinterpret_cast<Lane*>(timer);
      lane->armed = UINT64_MAX;
      lane->holder->releaseUntil(lane, lane->holder->stack_->now(lane->holder->stack_));
    };
  }
}

Holder::Lane* Holder::here() const {
  const uint32_t thread = stack_->thread(stack_);
  return thread < laneCount_ ? &lanes_[thread] : nullptr;
}

// A pairing heap: the first is due no later than its children, and they are a list by `sibling`.
sm_request* Holder::merge(sm_request* a, sm_request* b) {
  if (!a || !b) return a ? a : b;
  if (nodeOf(b)->due < nodeOf(a)->due) std::swap(a, b);
  nodeOf(b)->sibling = nodeOf(a)->child;
  nodeOf(a)->child = b;
  return a;
}

sm_request* Holder::takeFirst(Lane* lane) {
  sm_request* first = lane->first;
  sm_request* pairs = nullptr;
  for (sm_request* a = nodeOf(first)->child; a;) {
    sm_request* b = nodeOf(a)->sibling;
    sm_request* rest = b ? nodeOf(b)->sibling : nullptr;
    sm_request* pair = merge(a, b);
    nodeOf(pair)->sibling = pairs;
    pairs = pair;
    a = rest;
  }
  lane->first = nullptr;
  while (pairs) {
    sm_request* rest = nodeOf(pairs)->sibling;
    lane->first = merge(lane->first, pairs);
    pairs = rest;
  }
  lane->waiting.store(lane->waiting.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  return first;
}

// As a list by `sibling`, in order.
sm_request* Holder::takeAll(Lane* lane) {
  sm_request *begin = nullptr, *end = nullptr;
  while (lane->first) {
    sm_request* request = takeFirst(lane);
    nodeOf(request)->sibling = nullptr;
    (end ? nodeOf(end)->sibling : begin) = request;
    end = request;
  }
  return begin;
}

void Holder::add(Lane* lane, const sm_device_ops* next, sm_request* request, uint64_t due) {
  new (request->driver) Node{nullptr, nullptr, due, next};
  lane->first = merge(lane->first, request);
  HolderTally::Row::add(lane->waiting);
  arm(lane);
}

void Holder::arm(Lane* lane) {
  const uint64_t due = lane->first ? nodeOf(lane->first)->due : UINT64_MAX;
  if (due >= lane->armed) return;  // it comes early enough
  lane->armed = due;
  const uint64_t now = stack_->now(stack_);
  stack_->timer_start(stack_, &lane->timer, due > now ? due - now : 0);
}

void Holder::hold(const sm_device_ops* next, sm_request* request, uint64_t due) {
  Lane* lane = here();
  if (!lane) return next->submit(next, request->device, request);
  DispatchChain::hold(next);
  HolderTally::Row::add(tally_->of(stack_->thread(stack_)).held);
  add(lane, next, request, due);
}

void Holder::complete(sm_request* request, int32_t status) {
  Lane* lane = here();
  if (!lane) return sm_request_complete(request, status);
  request->status = status;
  add(lane, nullptr, request, 0);
}

void Holder::pass(const sm_device_ops* next, sm_device* device, sm_request* request) {
  const uint32_t thread = stack_->thread(stack_);
  if (thread < laneCount_) HolderTally::Row::add(tally_->of(thread).passed);
  next->submit(next, device, request);
}

void Holder::goOn(sm_request* request) {
  const sm_device_ops* next = nodeOf(request)->next;
  if (!next) return sm_request_pop(request);
  goesOn(request, nodeOf(request)->due);
  next->submit(next, request->device, request);
  DispatchChain::letGo(next);
}

void Holder::releaseUntil(Lane* lane, uint64_t now) {
  while (lane->first && nodeOf(lane->first)->due <= now) goOn(takeFirst(lane));
  arm(lane);
}

void Holder::release() {
  Lane* lane = here();
  if (!lane) return;
  releaseUntil(lane, UINT64_MAX);
  stack_->timer_stop(stack_, &lane->timer);
  lane->armed = UINT64_MAX;
}

uint64_t Holder::waiting() const {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < laneCount_; ++i) sum += lanes_[i].waiting.load(std::memory_order_relaxed);
  return sum;
}

}  // namespace sm
