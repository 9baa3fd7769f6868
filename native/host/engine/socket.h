// A socket whose I/O goes through the ring of an I/O thread.
//
// Thread contract: receive, send and accept on an I/O thread that has a ring, one of each in flight at most; their
// `done` runs there. sendAtOnce and shutDown from any thread. Invariant: nothing is allocated after the constructor.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "engine/io_thread.h"

namespace sm {

class Socket {
 public:
  // `result` is what recvmsg, sendmsg or accept4 would return, errors negative.
  using Done = void (*)(void* context, int result);

  explicit Socket(int fd);  // owns it from now on
  ~Socket();                // nothing is in flight
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // `parts` must live until `done`; what is received may be shorter, and so may what is sent. `waits`: likely, nothing
  // has arrived yet.
  void receive(IoThread& thread, iovec* parts, uint32_t count, bool waits, Done done, void* context);
  void send(IoThread& thread, iovec* parts, uint32_t count, Done done, void* context);
  void accept(IoThread& thread, Done done, void* context);
  // Without the ring and without waiting; how many bytes, or a negative errno. No send is in flight.
  int sendAtOnce(const void* data, size_t size);
  // SHUT_…; ends what is in flight that way: receive with 0, accept with -EINVAL.
  void shutDown(int how);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sm
