#include "engine/socket.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "sys/ring.h"

namespace sm {

struct Socket::State {
  struct Op : RingOp {
    Op() {
      done = [](RingOp* op, int result) {
        Op* self = static_cast<Op*>(op);
        self->finished(self->context, result);
      };
    }
    msghdr message{};
    Done finished = nullptr;
    void* context = nullptr;
  };

  explicit State(int descriptor) : fd(descriptor) {}
  ~State() { close(fd); }

  void queue(IoThread& thread, Op* op, RingEntry entry, Done done, void* context) {
    op->finished = done;
    op->context = context;
    entry.file.number = fd;
    thread.ring()->queue(op, entry);
  }

  const int fd;
  Op in, out;  // a listening socket accepts by `in`
};

Socket::Socket(int fd) : state_(std::make_unique<State>(fd)) {}
Socket::~Socket() = default;

void Socket::receive(IoThread& thread, iovec* parts, uint32_t count, bool waits, Done done, void* context) {
  msghdr& message = state_->in.message;
  message.msg_iov = parts;
  message.msg_iovlen = count;
  state_->queue(thread, &state_->in, {.code = RingCode::kReceive, .data = &message, .length = 1, .waits = waits}, done,
                context);
}

void Socket::send(IoThread& thread, iovec* parts, uint32_t count, Done done, void* context) {
  msghdr& message = state_->out.message;
  message.msg_iov = parts;
  message.msg_iovlen = count;
  state_->queue(thread, &state_->out, {.code = RingCode::kSend, .data = &message, .length = 1, .rwFlags = MSG_NOSIGNAL},
                done, context);
}

void Socket::accept(IoThread& thread, Done done, void* context) {
  state_->queue(thread, &state_->in, {.code = RingCode::kAccept, .rwFlags = SOCK_CLOEXEC}, done, context);
}

int Socket::sendAtOnce(const void* data, size_t size) {
  const ssize_t sent = ::send(state_->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent < 0 ? -errno : static_cast<int>(sent);
}

void Socket::shutDown(int how) { ::shutdown(state_->fd, how); }

}  // namespace sm
