// The transmission phase of one connection: requests come off its stream, go to the export, and their replies go back,
// in the order in which they are done.
//
// Thread contract: constructed and destroyed anywhere, all else on the export's home I/O thread. Invariants:
// - nothing is allocated after begin(): a request has one of `slots_` and a buffer until its reply has been sent, and
//   while there is none of either, nothing more is read from the client;
// - a buffer is not given back while the kernel or the export may use it: not before the receive that fills it, the
//   request that carries it and the send that takes from it have ended;
// - once idle and closing, it calls Ended once, and nothing of it is in flight or queued any more.
#pragma once

#include <stratamap/request.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/fifo.h"
#include "nbd/buffers.h"
#include "nbd/counters.h"
#include "nbd/export.h"
#include "nbd/negotiation.h"
#include "nbd/transmission.h"
#include "nbd/transport.h"

namespace sm::nbd {

// A connection's input: what arrives in one go, but for the rest of a long payload, which goes to its place directly.
constexpr size_t kInputBytes = 64 << 10;
static_assert(Negotiation::kInputMost <= kInputBytes);
constexpr size_t kHeadRoom = 32;  // bytes of a reply without data
static_assert(kReplyMost <= kHeadRoom);
constexpr size_t kStatusBytes = 4096;  // of one metadata context's part of a reply to kBlockStatus

// Why a connection is over.
enum class Why { kClient, kViolation, kStalled, kTls, kAsked };

// What a transport's failure says of that.
inline Why whyOf(int result) {
  return result == -EPROTO ? Why::kViolation : result == -EACCES ? Why::kTls : Why::kClient;
}

class Serving final : public Transport::User {
 public:
  class Ended {
   public:
    virtual ~Ended() = default;
    // The last thing that happens; whoever is told may destroy what ended, but not before it returns.
    virtual void servingEnded(Why why) = 0;
  };

  struct Setup {
    IoThread& thread;
    Transport& transport;
    Export& target;
    Buffers& buffers;
    LiveCounts& counts;
    Ended& ended;
    uint32_t requests;  // in flight at most
    uint64_t stall;     // ns that a client may take for the next byte of a message that has begun
  };

  Serving(const Setup& setup, const Agreement& agreement);
  ~Serving() override;

  // `input` (of kInputBytes) has `size` bytes that the client sent after its last option; `answer` goes out first.
  void begin(std::unique_ptr<uint8_t[]> input, size_t from, size_t size, std::string answer);
  // Ends when the requests that have been received whole are done and answered: those in the input, and what a receive
  // in flight may still bring. What is in the socket, or has come in part, is not one of them.
  void drain();
  void kill(Why why);

 private:
  struct Slot;
  struct Task : sm_task {
    Serving* owner;
    bool queued = false;
  };
  struct Timer : sm_timer {
    Serving* owner;
  };
  struct Waiter : Buffers::Waiter {
    Serving* owner;
  };

  // serving.cc: the stream in, and the end
  void received(int result) override;
  void process();
  bool take(const Request& request, Error error);
  void takePayload(Slot* slot);
  void arm();
  void tick();
  void close();
  void dropPayload();
  void endIfIdle();

  // serving_requests.cc: what becomes of a request
  void serve(Slot* slot);
  void issue(Slot* slot);
  void completed(Slot* slot, int32_t status);
  void describe(Slot* slot);
  void answer(Slot* slot, Error error);
  void count(const Slot& slot);
  void release(Slot* slot);

  // serving_replies.cc: the stream out
  void gather();
  size_t replyHead(const Slot& slot, uint8_t* to) const;
  void send();
  void sent(int result) override;

  IoThread& thread_;
  Transport& transport_;
  Export& export_;
  Buffers& buffers_;
  LiveCounts& counts_;
  Ended& ended_;
  const ExportFacts facts_;
  const std::vector<uint32_t> contexts_;
  Session session_;
  const uint32_t requests_;
  const uint64_t stall_;

  // The stream in: what is in input_ from begin_ to end_ has not been looked at.
  std::unique_ptr<uint8_t[]> input_;
  size_t begin_ = 0, end_ = 0;
  size_t window_ = kInputBytes;  // how much of input_ to fill at once, at most
  Slot* payload_ = nullptr;      // whose payload is arriving
  uint32_t payloadDone_ = 0;
  uint32_t skip_ = 0;  // bytes of a refused request's payload that are to come
  iovec inParts_[2];
  size_t asked_ = 0;  // by the receive in flight
  bool receiving_ = false, waits_ = true;
  uint64_t askedAt_ = 0;

  // Requests.
  std::unique_ptr<Slot[]> slots_;
  Slot* free_ = nullptr;
  uint32_t inFlight_ = 0;  // between take and answer
  uint64_t held_ = 0;      // bytes of buffers
  Fifo<Slot> starved_;     // no request of the export's was free
  Task retry_{};           // waits for one
  Waiter waiter_{};        // waits for a buffer

  // The stream out.
  std::string answer_;  // of the handshake
  Fifo<Slot> ready_, sending_;
  std::unique_ptr<uint8_t[]> heads_;
  std::unique_ptr<iovec[]> outParts_;
  uint32_t outFirst_ = 0, outCount_ = 0;
  bool sendInFlight_ = false;
  uint64_t sentAt_ = 0;
  Task gather_{};

  bool draining_ = false;  // receives no more
  bool closing_ = false;   // and takes no more from the input
  bool dead_ = false;      // and answers no more
  bool shutDown_ = false, hasEnded_ = false;
  Why why_ = Why::kClient;
  Timer timer_{};
};

// A request of the client's, and what carries it out. Linked in one list at a time.
struct Serving::Slot {
  Serving* owner;
  Slot* next;
  Request request;
  Error error;
  uint8_t op;      // enum sm_op of what is in flight for it
  uint32_t done;   // bytes of data that have been carried out
  uint32_t reply;  // bytes in `data` that go out with the reply
  uint8_t* data;   // its buffer, or null
  uint32_t bytes;  // of that
  iovec piece;     // of it, in flight
};

}  // namespace sm::nbd
