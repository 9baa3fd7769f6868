#include "devices/nbd_channel.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <new>
#include <utility>

namespace sm::nbd {

namespace {

constexpr uint64_t kSilence = 60'000'000'000;  // ns
constexpr uint64_t kMostAtOnce = 1 << 30;      // bytes of what carries no data

}  // namespace

sm_request* RemoteChannel::Link::request() {
  return reinterpret_cast<sm_request*>(reinterpret_cast<char*>(this) - offsetof(sm_request, driver));
}
static_assert(sizeof(RemoteChannel::Link) <= sizeof(sm_request::driver));

RemoteChannel::RemoteChannel(IoThread& thread, int fd, const RemoteFacts& facts)
    : thread_(thread),
      fd_(fd),
      socket_(fd),
      facts_(facts),
      slots_(new Slot[kSlots]),
      heads_(new uint8_t[kSlots * kRequestBytes]),
      zeroes_(facts.flags & kSendWriteZeroes ? nullptr : new uint8_t[kZeroes]()),
      outParts_(new iovec[kPartsMost]),
      input_(new uint8_t[kInput]) {
  for (uint32_t i = 0; i < kSlots; ++i) free_.add(&slots_[i]);
  gather_.owner = timer_.owner = this;
  gather_.run = [](sm_task* task) {
    RemoteChannel* self = static_cast<Task*>(task)->owner;
    self->gather_.queued = false;
    self->gather();
    self->arm();
  };
  timer_.run = [](sm_timer* timer) { static_cast<Timer*>(timer)->owner->tick(); };
}

RemoteChannel::~RemoteChannel() {
  thread_.call(
      [](void* context) {
        auto* self = static_cast<RemoteChannel*>(context);
        self->thread_.timerStop(&self->timer_);
        uint8_t head[kRequestBytes] = {};
        store(store(store(head, kRequestMagic), uint16_t{0}), static_cast<uint16_t>(Command::kDisconnect));
        if (!self->lost_) ::send(self->fd_, head, sizeof head, MSG_DONTWAIT | MSG_NOSIGNAL);
      },
      this);
}

void RemoteChannel::submit(sm_request* request) {
  Link* link = reinterpret_cast<Link*>(request->driver);
  if (lost_) return link->home ? finish(request, lost_) : thread_.completeLater(request, lost_);
  if (Slot* slot = free_.take()) return begin(slot, request);
  waiting_.add(&link->task);
}

sm_request* RemoteChannel::takeWaiting() {
  sm_task* task = waiting_.take();
  return task ? reinterpret_cast<Link*>(task)->request() : nullptr;
}

void RemoteChannel::begin(Slot* slot, sm_request* request) {
  slot->request = request;
  slot->done = 0;
  slot->flush = (request->flags & SM_FLAG_FUA) && sm_op_modifies(request->op) && !(facts_.flags & kSendFua) &&
                (facts_.flags & kSendFlush);
  ask(slot);
}

// Asks the server for what comes next.
void RemoteChannel::ask(Slot* slot) {
  const sm_request& request = *slot->request;
  const uint64_t left = request.length - slot->done;
  uint16_t flags = (request.flags & SM_FLAG_FUA) && (facts_.flags & kSendFua) ? kFua : 0;
  slot->length = static_cast<uint32_t>(std::min(left, kMostAtOnce));
  if (request.op == SM_OP_FLUSH || left == 0) {
    slot->command = Command::kFlush;
    slot->length = flags = 0;
  } else if (request.op == SM_OP_READ) {
    slot->command = Command::kRead;
    flags = 0;
  } else if (request.op == SM_OP_WRITE) {
    slot->command = Command::kWrite;
  } else if (request.op == SM_OP_DISCARD) {
    slot->command = Command::kTrim;
    flags = 0;
  } else if (facts_.flags & kSendWriteZeroes) {
    slot->command = Command::kWriteZeroes;
  } else {
    slot->command = Command::kWrite;
    slot->length = static_cast<uint32_t>(std::min<uint64_t>({left, kZeroes, facts_.maximumPayload}));
  }
  const uint32_t index = static_cast<uint32_t>(slot - slots_.get());
  uint8_t* to = store(&heads_[index * kRequestBytes], kRequestMagic);
  to = store(to, flags);
  to = store(to, static_cast<uint16_t>(slot->command));
  to = store(to, uint64_t{++slot->round} << 32 | index);
  to = store(to, slot->command == Command::kFlush ? uint64_t{0} : request.offset + slot->done);
  store(to, slot->length);
  slot->status = 0;
  slot->queued = slot->sending = slot->awaited = true;
  toSend_.add(slot);
  if (awaited_++ == 0) movedAt_ = thread_.now();
  if (!std::exchange(timer_.on, true)) thread_.timerStart(&timer_, kSilence / 4);
  gatherSoon();
}

// What was asked for has been answered, and nothing of it is on its way out any more.
void RemoteChannel::settle(Slot* slot) {
  sm_request* request = slot->request;
  if (!slot->status && slot->command != Command::kFlush) {
    slot->done += slot->length;
    if (slot->done < request->length || slot->flush) return ask(slot);
  }
  const int32_t status = slot->status;
  slot->request = nullptr;
  if (sm_request* next = takeWaiting()) {
    begin(slot, next);
  } else {
    free_.add(slot);
  }
  finish(request, status);
}

void RemoteChannel::finish(sm_request* request, int32_t status) {
  Link* link = reinterpret_cast<Link*>(request->driver);
  if (!link->home) return sm_request_complete(request, status);
  request->status = status;
  link->task.run = [](sm_task* task) {
    sm_request* request = reinterpret_cast<Link*>(task)->request();
    sm_request_complete(request, request->status);
  };
  link->home->post(&link->task);
}

void RemoteChannel::lose(int32_t status) {
  if (!lost_) {
    lost_ = status;
    socket_.shutDown(SHUT_RDWR);  // ends what is in flight
  }
  endIfQuiet();
}

void RemoteChannel::endIfQuiet() {
  if (receiving_ || sendInFlight_) return;
  awaited_ = 0;
  for (uint32_t i = 0; i < kSlots; ++i) {
    if (sm_request* request = std::exchange(slots_[i].request, nullptr)) finish(request, lost_);
  }
  while (sm_request* request = takeWaiting()) finish(request, lost_);
}

void RemoteChannel::tick() {
  timer_.on = false;
  if (awaited_ == 0 && !sendInFlight_) return;
  if (thread_.now() - movedAt_ > kSilence) return lose(-ETIMEDOUT);
  timer_.on = true;
  thread_.timerStart(&timer_, kSilence / 4);
}

}  // namespace sm::nbd
