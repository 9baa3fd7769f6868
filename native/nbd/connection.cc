#include "nbd/connection.h"

#include <cerrno>
#include <cstring>

namespace sm::nbd {

namespace {
constexpr size_t kAnswerMost = 64 << 10;  // bytes that may be ready before they are sent
}

Connection::Connection(int fd, std::string peer, Owner& owner, const ConnectionLimits& limits, TlsServer* tls)
    : socket_(fd),
      tls_(tls),
      peer_(std::move(peer)),
      owner_(owner),
      limits_(limits),
      negotiation_(owner.catalog(), tls ? Tls::kRequired : Tls::kOff),
      input_(new uint8_t[kInputBytes]) {
  timer_.owner = this;
  timer_.run = [](sm_timer* timer) {
    Connection* self = static_cast<Timer*>(timer)->owner;
    self->why_ = Why::kStalled;
    self->transport_->shutDown();  // ends what is in flight
  };
  move_.owner = this;
  move_.run = [](sm_task* task) { static_cast<Move*>(task)->owner->serve(); };
}

Connection::~Connection() = default;

void Connection::start(IoThread& thread) {
  thread_ = &thread;
  thread.timerStart(&timer_, limits_.handshake);
  negotiation_.greet(&answer_);
  send();
}

void Connection::drain() {
  if (serving_) return serving_->drain();
  why_ = Why::kAsked;
  transport_->shutDown();
}

void Connection::kill() {
  if (serving_) return serving_->kill(Why::kAsked);
  drain();
}

// --- the handshake
void Connection::receive() {
  std::memmove(input_.get(), input_.get() + begin_, end_ - begin_);
  end_ -= std::exchange(begin_, 0);
  part_ = {input_.get() + end_, kInputBytes - end_};
  transport_->receive(*thread_, *this, &part_, 1, true);
}

void Connection::received(int result) {
  if (result <= 0) return end(why_ == Why::kClient ? whyOf(result) : why_);
  end_ += result;
  step();
}

void Connection::send() {
  part_ = {answer_.data() + answered_, answer_.size() - answered_};
  transport_->send(*thread_, *this, &part_, 1);
}

void Connection::sent(int result) {
  if (result <= 0) return end(why_);
  answered_ += result;
  if (answered_ < answer_.size()) return send();
  answer_.clear();
  answered_ = 0;
  if (closing_) return end(why_);
  if (startsTls_) return startTls();
  step();
}

// From here on nothing is taken from the client but by TLS, and nothing holds that was agreed on before: somebody in
// between may have said it.
void Connection::startTls() {
  startsTls_ = false;
  secured_ = tls_->secure(socket_);
  if (!secured_) return end(Why::kTls);
  transport_ = secured_.get();
  negotiation_.tlsStarted();
  receive();
}

void Connection::step() {
  for (;;) {
    size_t consumed = 0;
    const Negotiation::Next next = negotiation_.feed(input_.get() + begin_, end_ - begin_, &consumed, &answer_);
    begin_ += consumed;
    switch (next) {
      case Negotiation::Next::kMore:
        if (consumed && answer_.size() < kAnswerMost) continue;
        return answer_.empty() ? receive() : send();
      case Negotiation::Next::kTransmission:
        return move();
      case Negotiation::Next::kStartTls:
        // "the client MUST NOT send further data" before the answer: it would be taken for what came by TLS.
        if (begin_ != end_) return end(Why::kViolation);
        startsTls_ = true;
        return send();
      case Negotiation::Next::kViolation:
        return end(Why::kViolation);
      case Negotiation::Next::kClose:
        closing_ = true;
        return answer_.empty() ? end(why_) : send();
    }
  }
}

// --- the transmission phase
void Connection::move() {
  thread_->timerStop(&timer_);
  place_ = owner_.join(*this, negotiation_.agreement().exportIndex);
  thread_ = &place_.target->home();
  thread_->post(&move_);
}

void Connection::serve() {
  serving_ = std::make_unique<Serving>(Serving::Setup{*thread_, *transport_, *place_.target, *place_.buffers, counts_,
                                                      *this, limits_.requests, limits_.stall},
                                       negotiation_.agreement());
  serving_->begin(std::move(input_), begin_, end_ - begin_, std::move(answer_));
}

void Connection::servingEnded(Why why) { end(why); }

void Connection::end(Why why) {
  if (!serving_) thread_->timerStop(&timer_);
  transport_->shutDown();  // the client need not wait until this is destroyed
  owner_.gone(*this, why);
}

}  // namespace sm::nbd
