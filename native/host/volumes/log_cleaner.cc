#include "log_cleaner.h"

#include <algorithm>
#include <cerrno>

namespace sm {

uint32_t LogHead::take(Segments& segments, uint32_t count) {
  const uint32_t place = segments.firstOf(segment) + used;
  used += count;
  if (used == segments.blocks()) {
    segments.close(segment);
    *this = {};
  }
  return place;
}

Cleaner::Cleaner(const sm_services* services, uint64_t blockSize, uint64_t maxTransfer, LogMap& map,
                 CleanerOwner& owner)
    : services_(services),
      blockSize_(blockSize),
      most_(static_cast<uint32_t>(std::min<uint64_t>(kMoves, kLargest / blockSize))),
      mostTransfer_(static_cast<uint32_t>(std::max<uint64_t>(1, maxTransfer / blockSize))),
      map_(map),
      owner_(owner) {
  task_.cleaner = this;
  task_.task.run = [](sm_task* task) {
    Cleaner* cleaner = reinterpret_cast<Task*>(task)->cleaner;
    cleaner->armed_ = false;
    if (cleaner->phase_ == Phase::kBuffer) cleaner->getBuffer();
    else cleaner->step();
  };
}

int32_t Cleaner::takeFailure() {
  const int32_t failure = failure_;
  failure_ = 0;
  return failure;
}

bool Cleaner::start(CleanFor why) {
  urgent_ = why == CleanFor::kWaiting;
  Segments& segments = map_.segments();
  if (!head_.room(segments) && !owner_.cleanerMayTake(urgent_)) return false;
  victim_ = pick(why);
  if (victim_ == kNoSegment) return false;
  cursor_ = 0;
  later(services_->post);
  return true;
}

uint32_t Cleaner::pick(CleanFor why) {
  Segments& segments = map_.segments();
  const uint32_t blocks = segments.blocks();
  // Without need it is not worth while to empty what is nearly full.
  uint32_t fewest = why == CleanFor::kTest ? blocks + 1 : why == CleanFor::kSpace ? blocks - blocks / 8 : blocks;
  uint32_t found = kNoSegment;
  bool failed = false;
  for (uint32_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    if (segment.state != SegmentState::kFull || segment.writers || segment.live >= fewest) continue;
    failed |= segment.failed;
    if (segment.failed) continue;
    fewest = segment.live;
    found = i;
  }
  if (found == kNoSegment && failed)  // all were tried: the next time they are tried again
    for (uint32_t i = 0; i < segments.size(); ++i) segments[i].failed = false;
  return found;
}

void Cleaner::later(void (*when)(const sm_services*, sm_task*)) {
  armed_ = true;
  when(services_, &task_.task);
}

void Cleaner::step() {
  if (held_ || !gather()) return finish();
  ++map_.segments()[victim_].readers;
  getBuffer();
}

// The next blocks that live in the victim, and a place for them. False: there is none.
bool Cleaner::gather() {
  Segments& segments = map_.segments();
  count_ = 0;
  if (segments[victim_].state != SegmentState::kFull) return false;
  if (!head_.room(segments)) {
    if (!owner_.cleanerMayTake(urgent_)) return false;
    head_ = {segments.take(), 0};
  }
  const uint32_t most = std::min(most_, head_.room(segments));
  for (; cursor_ < segments.blocks() && count_ < most; ++cursor_) {
    Move& move = moves_[count_];
    move.place = segments.firstOf(victim_) + cursor_;
    count_ += map_.ownerOf(move.place, &move.slot, &move.block);
  }
  return count_ > 0;
}

void Cleaner::getBuffer() {
  phase_ = Phase::kBuffer;
  int32_t status = services_->buffer_get(services_, count_ * blockSize_, &buffer_);
  while (status == -EINVAL && count_ > 1) {  // never: so fewer of them
    count_ /= 2;
    cursor_ = moves_[count_].place - map_.segments().firstOf(victim_);
    status = services_->buffer_get(services_, count_ * blockSize_, &buffer_);
  }
  if (status == -ENOMEM) return later(services_->wait);
  status_ = status;
  if (status) {
    buffer_ = {};
    return endBatch();
  }
  enter(Phase::kRead);
  pump();
}

void Cleaner::enter(Phase phase) {
  phase_ = phase;
  next_ = 0;
}

void Cleaner::pump() {
  if (pumping_ || (phase_ != Phase::kRead && phase_ != Phase::kWrite)) return;
  pumping_ = true;
  bool ended = false;
  while (!ended) {
    if (status_ == 0 && !issue()) {
      owner_.cleanerStarved();
      break;
    }
    if (pending_) break;
    ended = status_ || phase_ == Phase::kWrite;
    if (!ended) enter(Phase::kWrite);
  }
  pumping_ = false;
  if (ended) endBatch();
}

bool Cleaner::issue() {
  Segments& segments = map_.segments();
  while (next_ < count_ && !status_) {
    const bool read = phase_ == Phase::kRead;
    const uint32_t to = segments.firstOf(head_.segment) + head_.used;
    uint32_t length = 1;
    const uint32_t most = std::min(count_ - next_, mostTransfer_);
    while (length < most && (!read || moves_[next_ + length].place == moves_[next_].place + length)) ++length;
    sm_request* child = services_->fresh(services_);
    if (!child) return false;
    const uint32_t place = read ? moves_[next_].place : to + next_;
    iov_[next_] = {static_cast<char*>(buffer_.data) + next_ * blockSize_, length * blockSize_};
    child->op = read ? SM_OP_READ : SM_OP_WRITE;
    child->offset = segments.offsetOf(place);
    child->length = length * blockSize_;
    child->iov = &iov_[next_];
    child->iov_count = 1;
    sm_request_push(child, onDone, this, 0);
    ++pending_;
    next_ += length;
    sm_device_submit(segments.deviceOf(place), child);
  }
  return true;
}

void Cleaner::onDone(sm_request* child, void* context, uint64_t) {
  auto* cleaner = static_cast<Cleaner*>(context);
  if (child->status && !cleaner->status_) cleaner->status_ = child->status;
  cleaner->services_->release(cleaner->services_, child);
  --cleaner->pending_;
  cleaner->pump();
}

void Cleaner::endBatch() {
  Segments& segments = map_.segments();
  if (buffer_.data) services_->buffer_put(services_, &buffer_);
  buffer_ = {};
  if (status_ == 0) {
    const uint32_t to = head_.segment;
    const uint32_t first = segments.firstOf(to) + head_.used;
    for (uint32_t i = 0; i < count_; ++i) {
      const Move& move = moves_[i];
      uint32_t slot, block;
      if (!map_.ownerOf(move.place, &slot, &block)) continue;  // written or discarded meanwhile
      map_.set(*map_.at(slot), block, first + i + 1);
      ++moved_;
    }
    head_.take(segments, count_);
    passedOver_ = 0;
  }
  Segment& victim = segments[victim_];
  if (status_) {
    failure_ = status_;
    victim.failed |= !passOver();
  }
  phase_ = Phase::kIdle;
  const bool freed = segments.dropReader(victim);
  if (status_ || held_ || cursor_ == segments.blocks()) return finish();
  later(services_->post);
  if (freed) owner_.cleanerChanged();
}

// After a failure: where it was a write, and there is a whole segment to go on in, the cleaner goes on behind the
// places that cannot be written. They are free again when that segment is. False: the victim is to blame.
bool Cleaner::passOver() {
  if (phase_ != Phase::kWrite || !owner_.cleanerMayTake(true)) return false;
  head_.take(map_.segments(), count_);
  passedOver_ = std::min(passedOver_ + 1, kPatience + 1);
  return passedOver_ <= kPatience;
}

void Cleaner::finish() {
  phase_ = Phase::kIdle;
  victim_ = kNoSegment;
  status_ = 0;
  owner_.cleanerChanged();
}

}  // namespace sm
