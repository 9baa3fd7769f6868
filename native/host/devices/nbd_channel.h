// One connection to somebody else's NBD server, in its transmission phase: requests go out as they come, up to 256 at
// once, and their replies may come back in any order.
//
// Thread contract: constructed and destroyed from any thread but an I/O thread, with no request in flight; submit on
// `thread`. Invariants:
// - nothing is allocated after the constructor: a request that finds no slot waits, linked through its scratch;
// - a request is completed when its reply has come and the send that takes from it has ended; once the connection is
//   lost, when neither a send nor a receive is in flight any more. So nobody touches its memory afterwards;
// - a reply counts only as the answer to what was asked, and not answered yet; any other loses the connection
// (-EPROTO);
// - a receive is in flight only while a reply is due.
//
// A connection that is lost stays so: what was in flight and all that follows fails, by -ENOTCONN, by -ETIMEDOUT where
// the server kept silent for a minute while it owed a reply, or by -EPROTO.
#pragma once

#include <stratamap/services.h>
#include <sys/uio.h>

#include <cstdint>
#include <memory>

#include "devices/nbd_remote.h"
#include "engine/fifo.h"
#include "engine/io_thread.h"
#include "engine/socket.h"

namespace sm::nbd {

class RemoteChannel {
 public:
  // What it keeps of a request, in request->driver. `home`: the thread to complete it on; null: this one's.
  struct Link {
    sm_task task;
    IoThread* home;
    RemoteChannel* channel;

    sm_request* request();
  };

  RemoteChannel(IoThread& thread, int fd, const RemoteFacts& facts);
  ~RemoteChannel();
  RemoteChannel(const RemoteChannel&) = delete;
  RemoteChannel& operator=(const RemoteChannel&) = delete;

  IoThread& thread() const { return thread_; }
  // Checked by endsEarly, with its Link in place.
  void submit(sm_request* request);

 private:
  static constexpr uint32_t kSlots = 256;
  static constexpr uint32_t kZeroes = 64 << 10;    // bytes, written where the server knows no WRITE_ZEROES
  static constexpr uint32_t kPartsMost = 1024;     // of one send: what the kernel takes
  static constexpr size_t kInput = 64 << 10;       // bytes of replies that arrive in one go
  static constexpr size_t kSmallWindow = 4 << 10;  // of them, behind data that goes to its place directly

  // A request in flight, and what is asked of the server for it now.
  struct Slot {
    sm_request* request = nullptr;
    Slot* next = nullptr;  // in a Fifo
    uint64_t done = 0;     // bytes of the request
    uint32_t length = 0;   // of what is asked for now
    uint32_t round = 0;    // makes cookies different
    int32_t status = 0;    // what the reply said
    Command command = Command::kRead;
    bool queued = false;   // in toSend_
    bool sending = false;  // queued, or the send that takes from it is in flight
    bool awaited = false;  // its reply is due
    bool flush = false;    // has to be flushed in the end: the server knows no FUA
  };
  struct Task : sm_task {
    RemoteChannel* owner;
    bool queued = false;
  };
  struct Timer : sm_timer {
    RemoteChannel* owner;
    bool on = false;
  };

  // nbd_channel.cc: what becomes of a request
  void begin(Slot* slot, sm_request* request);
  void ask(Slot* slot);
  void settle(Slot* slot);
  sm_request* takeWaiting();
  void finish(sm_request* request, int32_t status);
  void lose(int32_t status);
  void endIfQuiet();
  void tick();

  // nbd_stream.cc: the stream both ways
  void gatherSoon();
  void gather();
  uint32_t addParts(Slot* slot);
  void send();
  void sent(int result);
  void arm();
  void received(int result);
  void process();
  bool reply(const uint8_t* head);
  void replied(Slot* slot);

  IoThread& thread_;
  const int fd_;
  Socket socket_;  // owns it
  const RemoteFacts facts_;
  int32_t lost_ = 0;  // why

  const std::unique_ptr<Slot[]> slots_;
  const std::unique_ptr<uint8_t[]> heads_, zeroes_;
  Fifo<Slot> free_, toSend_, sending_;
  Fifo<sm_task> waiting_;  // of links
  uint32_t awaited_ = 0;   // replies
  uint64_t movedAt_ = 0;   // when the stream last did, or a reply came to be due
  Timer timer_{};

  // The stream out.
  const std::unique_ptr<iovec[]> outParts_;
  uint32_t outFirst_ = 0, outCount_ = 0;
  bool sendInFlight_ = false;
  Task gather_{};

  // The stream in: what is in input_ from begin_ to end_ has not been looked at.
  const std::unique_ptr<uint8_t[]> input_;
  size_t begin_ = 0, end_ = 0;
  Slot* payload_ = nullptr;  // whose data is arriving
  uint32_t payloadLeft_ = 0;
  iovec inParts_[SM_IOV_MAX + 1];
  size_t asked_ = 0;  // by the receive in flight
  bool receiving_ = false, waits_ = true;
};

}  // namespace sm::nbd
