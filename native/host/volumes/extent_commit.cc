#include "extent_commit.h"

#include <algorithm>

namespace sm {
namespace {

constexpr uint32_t kNoSlot = UINT32_MAX;

}  // namespace

Commit::Commit(const sm_services* services, const std::vector<sm_device*>& devices, uint64_t maxTransfer,
               ExtentTable& table, Durability& durability, CommitOwner& owner)
    : services_(services),
      devices_(devices),
      maxTransfer_(maxTransfer),
      table_(table),
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
  table_.begin();
  haveRun_ = table_.nextRun(std::min(kLongest, maxTransfer_), &run_);
  phase_ = Phase::kFlushFirst;
  nextDevice_ = 0;
  status_ = 0;
}

void Commit::end() {
  table_.end(status_ == 0);
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
    if (status_ == 0 && !issue()) {
      owner_.commitStarved();
      break;
    }
    if (pending_) break;
    if (status_ == 0) status_ = durability_.failure();
    if (status_ || phase_ == Phase::kFlushLast || (phase_ == Phase::kFlushFirst && !haveRun_)) {
      end();
    } else {
      phase_ = phase_ == Phase::kFlushFirst ? Phase::kWrite : Phase::kFlushLast;
      nextDevice_ = 0;
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
  while (haveRun_ && unusedIov_ && !status_) {
    const auto slot = static_cast<uint32_t>(std::countr_zero(unusedIov_));
    sm_request* write = child(SM_OP_WRITE, run_.offset, run_.length, slot);
    if (!write) return false;
    unusedIov_ &= ~(1u << slot);
    iov_[slot] = {run_.data, run_.length};
    write->iov = &iov_[slot];
    write->iov_count = 1;
    sm_device* device = run_.device;
    haveRun_ = table_.nextRun(std::min(kLongest, maxTransfer_), &run_);
    sm_device_submit(device, write);
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
  if (slot != kNoSlot) commit->unusedIov_ |= 1u << slot;
  --commit->pending_;
  commit->pump();
}

}  // namespace sm
