// One io_uring, as little as the host needs of it: registered files and buffers, a few operations, submission and
// completions in batches.
//
// Thread contract: create() runs on the thread that will use the ring, and everything else is called on that thread:
// the kernel refuses others (SINGLE_ISSUER). Invariants: a RingOp belongs to the ring from queue() until its `done` has
// begun; nothing is lost where more is in flight than the completion queue holds (the kernel keeps it: NODROP).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace sm {

// An operation in flight, embedded in its owner's state. `result` is what the system call would return, errors
// negative.
struct RingOp {
  void (*done)(RingOp* op, int result);
};

enum class RingCode : uint8_t {
  kRead,
  kReadv,
  kReadFixed,
  kWrite,
  kWritev,
  kWriteFixed,
  kFdatasync,
  kAccept,   // the result is a descriptor
  kReceive,  // recvmsg
  kSend,     // sendmsg
};

struct RingFile {
  int number = -1;     // a descriptor, or a slot of addFile
  bool fixed = false;  // it is a slot
};

struct RingEntry {
  RingCode code;
  RingFile file;
  uint64_t offset = 0;
  // Bytes; for kReadv and kWritev the iovec array, for kReceive and kSend the msghdr, which must live until `done`.
  const void* data = nullptr;
  uint32_t length = 0;  // bytes, or segments
  int rwFlags = 0;      // RWF_…; MSG_…; for kAccept SOCK_…
  uint16_t ioprio = 0;
  bool waits = false;  // kReceive, kSend: not worth trying before the socket is ready
};

class Ring {
 public:
  static constexpr uint64_t kForever = UINT64_MAX;

  // Null where the kernel refuses, is too old (before 5.11), or liburing was not built in; `why` then says so.
  // `completions`: how many operations should fit in flight. Both are made smaller where RLIMIT_MEMLOCK asks for it.
  static std::unique_ptr<Ring> create(uint32_t entries, uint32_t completions, std::string* why);
  ~Ring();  // nothing is in flight
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Registers a file; returns its slot or a negative errno (-ENFILE: the table is full; the descriptor still works).
  int addFile(int fd);
  void removeFile(int slot);
  // Registers one region, once, for kReadFixed and kWriteFixed; returns 0 or a negative errno (-ENOMEM:
  // RLIMIT_MEMLOCK).
  int addBuffers(void* base, uint64_t bytes);
  // Whether the range can be used with kReadFixed and kWriteFixed.
  bool fixed(const void* data, uint64_t length) const;

  // Queues an operation for the next enter(); submits what is queued where there is no more room.
  void queue(RingOp* op, const RingEntry& entry);
  uint32_t inFlight() const;  // queued, submitted, or completed but not reaped
  // Submits what is queued and lets the kernel deliver completions; with `timeout` (ns) waits for at least one. Where
  // one is there without, a small submission may be left for the next call.
  void enter(uint64_t timeout);
  // Runs `done` of what has completed, at most one batch; returns how many.
  uint32_t reap();

 private:
  struct State;
  explicit Ring(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace sm
