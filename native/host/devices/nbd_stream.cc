// The stream of a RemoteChannel, both ways.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "devices/check.h"
#include "devices/nbd_channel.h"

namespace sm::nbd {

namespace {

constexpr uint64_t kSendMost = 1 << 20;  // bytes that one send takes, and what its last request has beyond them

// The protocol's errors are Linux's own numbers ("Error values"); what is not among them may mean anything.
int32_t statusOf(uint32_t error) {
  switch (static_cast<Error>(error)) {
    case Error::kPerm:
    case Error::kNoMem:
    case Error::kInval:
    case Error::kNoSpc:
    case Error::kOverflow:
    case Error::kShutdown:
      return -static_cast<int32_t>(error);
    case Error::kNotSup:
      return -EOPNOTSUPP;
    default:
      return -EIO;
  }
}

}  // namespace

// At the end of the pass, so that one send takes all that is asked in it.
void RemoteChannel::gatherSoon() {
  if (!sendInFlight_ && !std::exchange(gather_.queued, true)) thread_.atEndOfPass(&gather_);
}

void RemoteChannel::gather() {
  if (sendInFlight_ || lost_) return;
  outFirst_ = outCount_ = 0;
  uint64_t bytes = 0;
  while (!toSend_.empty() && bytes < kSendMost && outCount_ + 1 + SM_IOV_MAX <= kPartsMost) {
    Slot* slot = toSend_.take();
    slot->queued = false;
    sending_.add(slot);
    bytes += addParts(slot);
  }
  if (outCount_) send();
}

uint32_t RemoteChannel::addParts(Slot* slot) {
  outParts_[outCount_++] = {&heads_[(slot - slots_.get()) * kRequestBytes], kRequestBytes};
  if (slot->command != Command::kWrite) return kRequestBytes;
  if (slot->request->op == SM_OP_WRITE) {
    eachPiece(*slot->request, slot->done, slot->length, [this](char* data, uint64_t length) {
      outParts_[outCount_++] = {data, length};
    });
  } else {
    outParts_[outCount_++] = {zeroes_.get(), slot->length};
  }
  return kRequestBytes + slot->length;
}

void RemoteChannel::send() {
  sendInFlight_ = true;
  socket_.send(
      thread_, &outParts_[outFirst_], outCount_ - outFirst_,
      [](void* context, int result) { static_cast<RemoteChannel*>(context)->sent(result); }, this);
}

void RemoteChannel::sent(int result) {
  sendInFlight_ = false;
  if (result <= 0 || lost_) return lose(-ENOTCONN);
  movedAt_ = thread_.now();
  size_t left = result;
  while (outFirst_ < outCount_ && left >= outParts_[outFirst_].iov_len) left -= outParts_[outFirst_++].iov_len;
  if (outFirst_ < outCount_) {
    iovec& part = outParts_[outFirst_];
    part.iov_base = static_cast<uint8_t*>(part.iov_base) + left;
    part.iov_len -= left;
    return send();
  }
  while (Slot* slot = sending_.take()) {
    slot->sending = false;
    if (!slot->awaited) settle(slot);
  }
  if (!toSend_.empty()) gatherSoon();
}

// Asks for what comes next: the rest of a read's data to its place, and replies behind it to the input.
void RemoteChannel::arm() {
  if (receiving_ || lost_ || awaited_ == 0) return;
  std::memmove(input_.get(), input_.get() + begin_, end_ - begin_);  // a part of a reply's head at most
  end_ -= std::exchange(begin_, 0);
  uint32_t count = 0;
  size_t window = kInput - end_;
  if (payload_) {
    eachPiece(*payload_->request, payload_->length - payloadLeft_, payloadLeft_, [&](char* data, uint64_t length) {
      inParts_[count++] = {data, length};
    });
    window = std::min(window, kSmallWindow);
  }
  inParts_[count++] = {input_.get() + end_, window};
  asked_ = (payload_ ? payloadLeft_ : 0) + window;
  receiving_ = true;
  socket_.receive(
      thread_, inParts_, count, waits_,
      [](void* context, int result) { static_cast<RemoteChannel*>(context)->received(result); }, this);
}

void RemoteChannel::received(int result) {
  receiving_ = false;
  if (result <= 0 || lost_) return lose(-ENOTCONN);
  movedAt_ = thread_.now();
  size_t arrived = result;
  waits_ = arrived < asked_;
  if (payload_) {
    const size_t direct = std::min<size_t>(arrived, payloadLeft_);
    payloadLeft_ -= direct;
    arrived -= direct;
    if (payloadLeft_ == 0) replied(std::exchange(payload_, nullptr));
  }
  end_ += arrived;
  process();
}

void RemoteChannel::process() {
  while (!payload_ && end_ - begin_ >= kSimpleReplyBytes) {
    const uint8_t* head = input_.get() + begin_;
    begin_ += kSimpleReplyBytes;
    if (!reply(head)) return lose(-EPROTO);
  }
  arm();
}

// False: it answers nothing that was asked.
bool RemoteChannel::reply(const uint8_t* head) {
  const uint64_t cookie = load<uint64_t>(head + 8);
  const uint32_t index = static_cast<uint32_t>(cookie);
  if (load<uint32_t>(head) != kSimpleReplyMagic || index >= kSlots) return false;
  Slot& slot = slots_[index];
  if (!slot.awaited || slot.queued || slot.round != cookie >> 32) return false;
  if (const uint32_t error = load<uint32_t>(head + 4)) {
    slot.status = statusOf(error);
  } else if (slot.command == Command::kRead) {
    const size_t here = std::min<size_t>(slot.length, end_ - begin_);
    scatter(*slot.request, 0, here, input_.get() + begin_);
    begin_ += here;
    payloadLeft_ = static_cast<uint32_t>(slot.length - here);
    if (payloadLeft_) {
      payload_ = &slot;
      return true;
    }
  }
  replied(&slot);
  return true;
}

void RemoteChannel::replied(Slot* slot) {
  slot->awaited = false;
  --awaited_;
  if (!slot->sending) settle(slot);
}

}  // namespace sm::nbd
