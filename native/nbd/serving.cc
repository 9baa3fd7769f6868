#include "nbd/serving.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace sm::nbd {

namespace {

// A payload of which more than this has yet to come is received straight to its buffer; so much at most is copied.
constexpr uint32_t kCopyMost = 16 << 10;
constexpr size_t kSmallWindow = 4 << 10;  // while such payloads come

}  // namespace

void Serving::received(int result) {
  receiving_ = false;
  if (closing_ || shutDown_ || result <= 0) {
    if (!closing_ && !draining_) why_ = whyOf(result);
    dropPayload();
    close();
    return endIfIdle();
  }
  size_t arrived = result;
  waits_ = arrived < asked_;
  if (payload_) {
    const size_t direct = std::min<size_t>(arrived, payload_->request.length - payloadDone_);
    payloadDone_ += direct;
    arrived -= direct;
    if (payloadDone_ == payload_->request.length) serve(std::exchange(payload_, nullptr));
  }
  end_ += arrived;
  process();
}

// Takes requests from the input until there is none, or no room for it; then asks for more, or that was all.
void Serving::process() {
  while (!closing_ && !payload_) {
    const size_t skipped = std::min<size_t>(skip_, end_ - begin_);
    skip_ -= skipped;
    begin_ += skipped;
    if (end_ - begin_ < kRequestBytes) break;
    Request request;
    Error error;
    switch (readRequest(session_, input_.get() + begin_, &request, &error)) {
      case Verdict::kViolation:
        return kill(Why::kViolation);
      case Verdict::kDisconnect:
        close();
        return endIfIdle();
      case Verdict::kServe:
        if (!take(request, error)) return;
    }
  }
  if (!draining_) return arm();
  close();
  endIfIdle();
}

// Whether there was room for the request; where not, process() runs again when there may be.
bool Serving::take(const Request& request, Error error) {
  if (!free_ || waiter_.waiting()) return false;
  uint8_t* data = nullptr;
  uint64_t bytes = 0;
  if (error == Error::kNone) {
    if (request.command == Command::kRead || request.command == Command::kWrite) bytes = request.length;
    if (request.command == Command::kBlockStatus) bytes = kStatusBytes * contexts_.size();
    if (held_ > 0 && held_ + bytes > buffers_.share()) return false;
    if (bytes && !(data = buffers_.get(bytes, &waiter_))) return false;
  }
  held_ += bytes;
  begin_ += kRequestBytes;
  Slot* slot = std::exchange(free_, free_->next);
  slot->request = request;
  slot->done = slot->reply = 0;
  slot->data = data;
  slot->bytes = static_cast<uint32_t>(bytes);
  ++inFlight_;
  if (error != Error::kNone) {
    skip_ = request.payload();
    answer(slot, error);
  } else if (request.command == Command::kWrite) {
    takePayload(slot);
  } else {
    serve(slot);
  }
  return true;
}

void Serving::takePayload(Slot* slot) {
  window_ = slot->request.length > kCopyMost ? kSmallWindow : kInputBytes;
  payloadDone_ = std::min<size_t>(slot->request.length, end_ - begin_);
  std::memcpy(slot->data, input_.get() + begin_, payloadDone_);
  begin_ += payloadDone_;
  if (payloadDone_ == slot->request.length) return serve(slot);
  payload_ = slot;
}

// Asks for what comes next: the rest of a payload to its place, and requests behind it to the input.
void Serving::arm() {
  if (receiving_ || closing_) return;
  // A part of a request at most.
  std::memmove(input_.get(), input_.get() + begin_, end_ - begin_);
  end_ -= std::exchange(begin_, 0);
  uint32_t count = 0;
  asked_ = 0;
  const auto ask = [&](uint8_t* to, size_t bytes) {
    inParts_[count++] = {to, bytes};
    asked_ += bytes;
  };
  if (payload_) ask(payload_->data + payloadDone_, payload_->request.length - payloadDone_);
  ask(input_.get() + end_, std::min(window_, kInputBytes - end_));
  askedAt_ = thread_.now();
  receiving_ = true;
  transport_.receive(thread_, *this, inParts_, count, waits_);
}

// --- the end
void Serving::tick() {
  const uint64_t now = thread_.now();
  const bool begun = payload_ || skip_ || end_ > begin_;
  if ((sendInFlight_ && now - sentAt_ > stall_) || (receiving_ && !closing_ && begun && now - askedAt_ > stall_)) {
    return kill(Why::kStalled);
  }
  thread_.timerStart(&timer_, stall_ / 4);
}

void Serving::drain() {
  if (closing_ || draining_) return;
  why_ = Why::kAsked;
  draining_ = true;
  // With a receive in flight there is no whole request in the input.
  receiving_ ? endIfIdle() : process();
}

void Serving::kill(Why why) {
  if (!dead_) why_ = why;
  dead_ = true;
  close();
  shutDown_ = true;
  transport_.shutDown();
  while (Slot* slot = ready_.take()) release(slot);
  endIfIdle();
}

void Serving::close() {
  closing_ = true;
  buffers_.forget(&waiter_);
  if (!receiving_) dropPayload();
}

void Serving::dropPayload() {
  if (!payload_) return;
  --inFlight_;
  release(std::exchange(payload_, nullptr));
}

void Serving::endIfIdle() {
  const bool over = closing_ || (draining_ && receiving_);
  if (!over || hasEnded_ || sendInFlight_ || !ready_.empty() || gather_.queued || retry_.queued) return;
  if (inFlight_ > (payload_ ? 1u : 0u)) return;
  if (receiving_) {
    if (!std::exchange(shutDown_, true)) transport_.shutDown();
    return;  // which ends it
  }
  hasEnded_ = true;
  thread_.timerStop(&timer_);
  ended_.servingEnded(why_);
}

}  // namespace sm::nbd
