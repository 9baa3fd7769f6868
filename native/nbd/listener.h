// A listening socket on an I/O thread: accepts for as long as it is not closed.
//
// Thread contract: the I/O thread alone. Invariant: destroyed only when it is idle.
#pragma once

#include <sys/socket.h>

#include <utility>

#include "engine/io_thread.h"
#include "engine/socket.h"
#include "nbd/address.h"

namespace sm::nbd {

class Listener {
 public:
  class User {
   public:
    virtual ~User() = default;
    virtual void accepted(int fd) = 0;
    virtual void idle() = 0;  // after close(): nothing is in flight any more
  };

  Listener(IoThread& thread, int fd, SocketFile file, User& user)
      : thread_(thread), socket_(fd), file_(std::move(file)), user_(user) {
    timer_.owner = this;
    timer_.run = [](sm_timer* timer) { static_cast<Timer*>(timer)->owner->accept(); };
  }

  void accept() {
    socket_.accept(
        thread_, [](void* context, int result) { static_cast<Listener*>(context)->done(result); }, this);
  }

  // Nobody finds it from now on.
  void close() {
    unlinkUnix(file_);
    closing_ = true;
    if (timer_.position == 0) return socket_.shutDown(SHUT_RDWR);
    thread_.timerStop(&timer_);
    user_.idle();
  }

 private:
  static constexpr uint64_t kPause = 100'000'000;  // ns: out of descriptors, most likely

  struct Timer : sm_timer {
    Listener* owner;
  };

  void done(int result) {
    if (result >= 0) user_.accepted(result);
    if (closing_) return user_.idle();
    result >= 0 ? accept() : thread_.timerStart(&timer_, kPause);
  }

  IoThread& thread_;
  Socket socket_;
  const SocketFile file_;
  User& user_;
  Timer timer_{};
  bool closing_ = false;
};

}  // namespace sm::nbd
