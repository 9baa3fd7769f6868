// The byte stream between a client and the codec. Plaintext is the socket itself; TLS stands in its place (tls.h).
//
// Thread contract: on one I/O thread at a time, one receive and one send in flight at most; nothing is in flight when
// the stream moves to another thread, and when it ends.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>

#include "engine/socket.h"

namespace sm::nbd {

class Transport {
 public:
  class User {
   public:
    virtual ~User() = default;
    // How many bytes; 0: the client will send no more; or a negative errno.
    virtual void received(int result) = 0;
    virtual void sent(int result) = 0;
  };

  virtual ~Transport() = default;
  // `parts` must live until the answer, which may be for less than they hold, and comes after the call has returned.
  // `waits`: likely, nothing has arrived yet.
  virtual void receive(IoThread& thread, User& user, iovec* parts, uint32_t count, bool waits) = 0;
  virtual void send(IoThread& thread, User& user, iovec* parts, uint32_t count) = 0;
  virtual void shutDown() = 0;  // both ways: what is in flight ends, what follows fails
};

class SocketTransport final : public Transport {
 public:
  explicit SocketTransport(int fd) : socket_(fd) {}

  void receive(IoThread& thread, User& user, iovec* parts, uint32_t count, bool waits) override {
    socket_.receive(
        thread, parts, count, waits, [](void* context, int result) { static_cast<User*>(context)->received(result); },
        &user);
  }
  void send(IoThread& thread, User& user, iovec* parts, uint32_t count) override {
    socket_.send(
        thread, parts, count, [](void* context, int result) { static_cast<User*>(context)->sent(result); }, &user);
  }
  void shutDown() override { socket_.shutDown(SHUT_RDWR); }
  // What of it can be sent without waiting; no send is in flight.
  void sendAtOnce(const void* data, size_t size) { socket_.sendAtOnce(data, size); }

 private:
  Socket socket_;
};

}  // namespace sm::nbd
