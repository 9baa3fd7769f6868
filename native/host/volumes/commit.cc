#include "commit.h"

#include <algorithm>
#include <bit>

namespace sm {
namespace {

constexpr uint32_t kNoSlot = UINT32_MAX;

}  // namespace

Commit::Commit(const sm_services* services, const std::vector<sm_device*>& devices, uint64_t maxTransfer,
               CommitSource& source, Durability& durability, CommitOwner& owner)
    : services_(services),
      devices_(devices),
      longest_(std::min(kLongest, maxTransfer)),
      source_(source),
      durability_(durability),
      owner_(owner) {}

void Commit::join(sm_request* request) {
  nextWaiters_.push(request);
  ask();
}

void Commit::join(ControlCommit* control) {
  nextControl_ = control;
  ask();
}

void Commit::ask() {
  asked_ = true;
  if (phase_ == Phase::kIdle) begin();
  pump();
}

void Commit::begin() {
  asked_ = false;
  waiters_.append(nextWaiters_);
  control_ = nextControl_;
  nextControl_ = nullptr;
  source_.begin();
  status_ = 0;
  enter(0);
}

void Commit::enter(uint32_t stage) {
  phase_ = Phase::kWrite;
  stage_ = stage;
  more_ = true;
  wrote_ = false;
}

void Commit::end() {
  if (haveRun_) unusedSlots_ |= 1u << runSlot_;
  haveRun_ = false;
  source_.end(status_ == 0);
  const int32_t status = status_;
  RequestQueue waiters;
  waiters.append(waiters_);
  if (control_) *control_ = {true, status};
  control_ = nullptr;
  phase_ = Phase::kIdle;
  if (asked_) begin();
  owner_.commitEnded(status, waiters);
}

void Commit::pump() {
  if (pumping_) return;
  pumping_ = true;
  while (phase_ != Phase::kIdle) {
    // What a flush lost is not to be written over: it may be all that is left of what is true.
    if (status_ == 0) status_ = durability_.failure();
    if (status_ == 0 && !issue()) {
      owner_.commitStarved();
      break;
    }
    if (pending_) break;
    if (status_ == 0) status_ = durability_.failure();
    if (status_ || (phase_ == Phase::kWrite && stage_ > 0 && !wrote_)) {
      end();
    } else if (phase_ == Phase::kWrite) {
      phase_ = Phase::kFlush;
      nextDevice_ = 0;
    } else {
      enter(stage_ + 1);
    }
  }
  pumping_ = false;
}

bool Commit::issue() { return phase_ == Phase::kWrite ? issueWrites() : issueFlushes(); }

bool Commit::issueFlushes() {
  for (; nextDevice_ < devices_.size(); ++nextDevice_) {
    sm_request* flush = child(SM_OP_FLUSH, 0, 0, kNoSlot);
    if (!flush) return false;
    sm_device_submit(devices_[nextDevice_], flush);
  }
  return true;
}

bool Commit::issueWrites() {
  while ((haveRun_ || (more_ && unusedSlots_)) && !status_) {
    if (!haveRun_) {
      runSlot_ = static_cast<uint32_t>(std::countr_zero(unusedSlots_));
      const CommitSource::Next next = source_.next(stage_, runSlot_, longest_, &run_);
      if (next == CommitSource::Next::kAgain) enter(0);
      if (next == CommitSource::Next::kNone) more_ = false;
      if (next != CommitSource::Next::kRun) continue;
      haveRun_ = true;
      unusedSlots_ &= ~(1u << runSlot_);
    }
    sm_request* write = child(SM_OP_WRITE, run_.offset, run_.length, runSlot_);
    if (!write) return false;
    haveRun_ = false;
    wrote_ = true;
    iov_[runSlot_] = {run_.data, run_.length};
    write->iov = &iov_[runSlot_];
    write->iov_count = 1;
    sm_device_submit(run_.device, write);
  }
  return true;
}

sm_request* Commit::child(uint8_t op, uint64_t offset, uint64_t length, uint32_t slot) {
  sm_request* child = services_->fresh(services_);
  if (!child) return nullptr;
  child->op = op;
  child->offset = offset;
  child->length = length;
  sm_request_push(child, onDone, this, slot);
  ++pending_;
  return child;
}

void Commit::onDone(sm_request* child, void* context, uint64_t slot) {
  auto* commit = static_cast<Commit*>(context);
  if (child->status && !commit->status_) commit->status_ = child->status;
  if (child->status && slot == kNoSlot) commit->durability_.lose(child->status);
  commit->services_->release(commit->services_, child);
  if (slot != kNoSlot) commit->unusedSlots_ |= 1u << slot;
  --commit->pending_;
  commit->pump();
}

}  // namespace sm
