// A TLS session over a socket.
//
// Thread contract: that of Transport; the handshake's steps on the worker. Invariants:
// - until the handshake is over one thing at a time goes on: a step on the worker, which then has the session and both
//   buffers to itself, or a send or a receive of the socket;
// - afterwards the session belongs to the stream's I/O thread, and one receive and one send go on below it at most;
// - what is encrypted stays in its place until the socket has sent it: what comes meanwhile goes behind it;
// - a user's call is answered once, and never before it has returned.
#pragma once

#include <cstdint>
#include <memory>

#include "nbd/tls_library.h"
#include "nbd/tls_worker.h"
#include "nbd/transport.h"

namespace sm::nbd {

class TlsTransport final : public Transport, Transport::User {
 public:
  // Takes the session over; `below` outlives it.
  TlsTransport(const TlsLibrary& library, TlsWorker& worker, gnutls_session_t session, SocketTransport& below);
  ~TlsTransport() override;

  void receive(IoThread& thread, Transport::User& user, iovec* parts, uint32_t count, bool waits) override;
  void send(IoThread& thread, Transport::User& user, iovec* parts, uint32_t count) override;
  void shutDown() override;

 private:
  struct Task : sm_task {
    TlsTransport* owner;
  };
  // Bytes of the socket.
  struct Bytes {
    std::unique_ptr<uint8_t[]> data;
    size_t size, begin = 0, end = 0;
    bool empty() const { return begin == end; }
  };

  void received(int result) override;
  void sent(int result) override;

  void step();     // on the worker
  void stepped();  // and what follows
  void handshake();

  void decrypt();
  void receiveBelow();
  void answerReceive(int result);
  ssize_t encrypt(const iovec* parts, uint32_t count);
  void sendBelow();
  void answerSend(int result);

  ssize_t pull(void* to, size_t size);
  ssize_t push(const void* from, size_t size);
  ssize_t again() const;

  const TlsLibrary& tls_;
  TlsWorker& worker_;
  const gnutls_session_t session_;
  SocketTransport& below_;
  IoThread* thread_ = nullptr;
  Bytes in_, out_;
  std::unique_ptr<uint8_t[]> record_;  // small parts come together here

  bool established_ = false, stepping_ = false;
  int step_ = 0;  // what the last one returned
  Task toWorker_{}, fromWorker_{};

  Transport::User* reader_ = nullptr;  // whose receive is to be answered
  iovec* parts_ = nullptr;
  uint32_t count_ = 0;
  bool waits_ = false;
  int arrived_ = 1;  // what the last receive below gave: 0 and less is the end
  int error_ = 0;    // negative errno: the session is of no use any more
  Task decrypt_{};

  Transport::User* writer_ = nullptr;
  int written_ = 0;  // bytes of the writer's that are under way, or a negative errno
  bool sending_ = false;
  iovec inPart_{}, outPart_{};
  Task failSend_{};
  bool shutDown_ = false;
};

}  // namespace sm::nbd
