#include <utility>

#include "nbd/serving.h"

namespace sm::nbd {

namespace {
constexpr uint64_t kSendMost = 1 << 20;  // bytes that one send takes, and what its last reply has beyond them
}

// Makes one send of the replies that are ready.
void Serving::gather() {
  if (sendInFlight_ || dead_) return;
  outFirst_ = outCount_ = 0;
  uint64_t bytes = answer_.size();
  if (bytes) outParts_[outCount_++] = {answer_.data(), bytes};
  uint8_t* head = heads_.get();
  const uint8_t* headsEnd = nullptr;  // of the last part, where it is made of heads
  while (!ready_.empty() && bytes < kSendMost) {
    Slot* slot = ready_.take();
    sending_.add(slot);
    if (const size_t length = replyHead(*slot, head)) {
      if (head == headsEnd) {
        outParts_[outCount_ - 1].iov_len += length;
      } else {
        outParts_[outCount_++] = {head, length};
      }
      head += length;
      headsEnd = head;
      bytes += length;
    }
    if (slot->reply) {
      outParts_[outCount_++] = {slot->data, slot->reply};
      bytes += slot->reply;
      headsEnd = nullptr;
    }
  }
  if (bytes) send();
}

// The part of a reply that stands before its data; says where the data is by slot->reply.
size_t Serving::replyHead(const Slot& slot, uint8_t* to) const {
  if (slot.error != Error::kNone) return errorReply(to, session_, slot.request, slot.error);
  switch (slot.request.command) {
    case Command::kRead:
      return readReply(to, session_, slot.request);
    case Command::kBlockStatus:
      return 0;  // is in the data
    default:
      return simpleReply(to, slot.request.cookie, Error::kNone);
  }
}

void Serving::send() {
  sendInFlight_ = true;
  sentAt_ = thread_.now();
  transport_.send(thread_, *this, &outParts_[outFirst_], outCount_ - outFirst_);
}

void Serving::sent(int result) {
  sendInFlight_ = false;
  size_t left = result > 0 ? result : 0;
  while (outFirst_ < outCount_ && left >= outParts_[outFirst_].iov_len) left -= outParts_[outFirst_++].iov_len;
  if (result > 0 && outFirst_ < outCount_ && !dead_) {
    iovec& part = outParts_[outFirst_];
    part.iov_base = static_cast<uint8_t*>(part.iov_base) + left;
    part.iov_len -= left;
    return send();
  }
  answer_.clear();
  while (Slot* slot = sending_.take()) release(slot);
  if (result <= 0) return kill(Why::kClient);
  if (!ready_.empty() && !std::exchange(gather_.queued, true)) thread_.atEndOfPass(&gather_);
  if (!receiving_) process();
  endIfIdle();
}

}  // namespace sm::nbd
