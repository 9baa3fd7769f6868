// One client's connection, from accept to close: the handshake on the server's thread, then the transmission phase on
// the export's home I/O thread.
//
// Thread contract: constructed, started and destroyed on the server's thread; `counts` and `peer` from any; drain and
// kill on the thread that has the connection (thread()), which the server's thread alone reads and Owner::join changes.
// Invariants: in the handshake one operation at a time is in flight on the stream; after gone() the connection does
// nothing any more.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "nbd/buffers.h"
#include "nbd/counters.h"
#include "nbd/export.h"
#include "nbd/negotiation.h"
#include "nbd/serving.h"
#include "nbd/tls.h"
#include "nbd/transport.h"

namespace sm::nbd {

struct ConnectionLimits {
  uint32_t requests = 128;              // in flight
  uint64_t handshake = 10'000'000'000;  // ns, all of it
  uint64_t stall = 30'000'000'000;      // ns, for the next byte of what has begun, either way
};

class Connection final : Transport::User, Serving::Ended {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    struct Place {
      Export* target;
      Buffers* buffers;  // of its home I/O thread
    };
    virtual const Catalog& catalog() const = 0;
    // The handshake led to this export, as the catalog has it now. On the server's thread.
    virtual Place join(Connection& connection, size_t exportIndex) = 0;
    // On whichever thread has the connection: it is over.
    virtual void gone(Connection& connection, Why why) = 0;
  };

  // Owns the socket. `tls`: what the client is to be asked for before all else, or null; outlives the connection.
  Connection(int fd, std::string peer, Owner& owner, const ConnectionLimits& limits, TlsServer* tls);
  ~Connection() override;  // never started, or gone

  void start(IoThread& thread);
  void drain();  // what was received whole is answered, then it is over; a handshake ends at once
  void kill();

  const std::string& peer() const { return peer_; }
  IoThread& thread() const { return *thread_; }
  const LiveCounts& counts() const { return counts_; }

 private:
  struct Timer : sm_timer {
    Connection* owner;
  };
  struct Move : sm_task {
    Connection* owner;
  };

  void received(int result) override;
  void sent(int result) override;
  void step();
  void startTls();
  void receive();
  void send();
  void move();
  void serve();
  void servingEnded(Why why) override;
  void end(Why why);

  SocketTransport socket_;
  TlsServer* const tls_;
  std::unique_ptr<Transport> secured_;
  Transport* transport_ = &socket_;
  const std::string peer_;
  Owner& owner_;
  const ConnectionLimits limits_;
  LiveCounts counts_;
  IoThread* thread_ = nullptr;

  // The handshake.
  Negotiation negotiation_;
  std::unique_ptr<uint8_t[]> input_;
  size_t begin_ = 0, end_ = 0;  // of what has not been looked at
  iovec part_{};
  std::string answer_;
  size_t answered_ = 0;                       // bytes of it that have been sent
  bool closing_ = false, startsTls_ = false;  // once the answer has been sent
  Why why_ = Why::kClient;
  Timer timer_{};
  Move move_{};
  Owner::Place place_{};

  std::unique_ptr<Serving> serving_;
};

}  // namespace sm::nbd
