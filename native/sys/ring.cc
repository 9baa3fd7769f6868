#include "sys/ring.h"

#include <cerrno>
#include <cstring>
#include <vector>

#if SM_HAVE_URING
#include <liburing.h>

#include <algorithm>
#include <bit>
#endif

namespace sm {

#if SM_HAVE_URING

namespace {

constexpr uint32_t kFiles = 256;                      // slots for registered files
constexpr uint32_t kBatch = 256;                      // completions per reap
constexpr uint64_t kBufferChunk = uint64_t{1} << 30;  // bytes: the kernel registers no larger buffer
constexpr uint32_t kMaxCompletions = 65536;           // the kernel's IORING_MAX_CQ_ENTRIES

constexpr uint32_t kFew = 4, kMany = 16;  // operations: of a small submission, and in flight beside it
constexpr uintptr_t kWaits = 1;           // beside the address of an operation that waits, in its user data

constexpr uint32_t kFewest = 32;  // entries of a ring that is worth having

// From newest to oldest: 6.1, 6.0, 5.19, before.
constexpr uint32_t kFlagSteps[] = {
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER,
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,
    0,
};

struct Completion {
  RingOp* op;
  int result;
};

std::string reason(int error) {
  std::string text = std::string("io_uring_setup: ") + std::strerror(error);
  if (error == EPERM) text += " (refused by seccomp or kernel.io_uring_disabled)";
  if (error == ENOMEM) text += " (RLIMIT_MEMLOCK may be too low)";
  return text;
}

uint8_t opcode(RingCode code) {
  switch (code) {
    case RingCode::kRead:
      return IORING_OP_READ;
    case RingCode::kReadv:
      return IORING_OP_READV;
    case RingCode::kReadFixed:
      return IORING_OP_READ_FIXED;
    case RingCode::kWrite:
      return IORING_OP_WRITE;
    case RingCode::kWritev:
      return IORING_OP_WRITEV;
    case RingCode::kWriteFixed:
      return IORING_OP_WRITE_FIXED;
    case RingCode::kFdatasync:
      return IORING_OP_FSYNC;
    case RingCode::kAccept:
      return IORING_OP_ACCEPT;
    case RingCode::kReceive:
      return IORING_OP_RECVMSG;
    case RingCode::kSend:
      return IORING_OP_SENDMSG;
  }
  return IORING_OP_NOP;
}

// By the newest flags that the kernel knows.
int setUp(io_uring* ring, uint32_t entries, uint32_t completions, uint32_t* known) {
  int result = -EINVAL;
  for (const uint32_t flags : kFlagSteps) {
    io_uring_params params{};
    params.flags = flags | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
    params.cq_entries = std::min(std::bit_ceil(completions), kMaxCompletions);
    result = io_uring_queue_init_params(entries, ring, &params);
    *known = flags;
    if (result != -EINVAL) break;
  }
  return result;
}

}  // namespace

struct Ring::State {
  io_uring ring{};
  uint32_t flags = 0;  // of kFlagSteps
  uint32_t inFlight = 0;
  uint32_t waiting = 0;  // of them, those that wait for somebody else's doing
  bool looked = false;   // in the last enter()
  uintptr_t base = 0;    // of the registered region
  uint64_t bytes = 0;
  std::vector<int> freeFiles;
  std::vector<Completion> early;  // taken from a full completion queue while submitting; reap() delivers them

  uint32_t take(Completion* out, uint32_t room) {
    io_uring_cqe* cqes[kBatch];
    const uint32_t count = io_uring_peek_batch_cqe(&ring, cqes, std::min(room, kBatch));
    for (uint32_t i = 0; i < count; ++i) {
      const uint64_t data = io_uring_cqe_get_data64(cqes[i]);
      waiting -= data & kWaits;
      out[i] = {reinterpret_cast<RingOp*>(data & ~kWaits), cqes[i]->res};
    }
    io_uring_cq_advance(&ring, count);
    return count;
  }

  // A submission that is small beside what is in flight waits for one look at what has completed meanwhile, and becomes
  // larger: for each the kernel wakes its workers anew.
  bool worthALook(uint32_t queued) {
    looked = !looked && queued > 0 && queued < kFew && inFlight - waiting >= kMany;
    return looked;
  }

  io_uring_sqe* entry() {
    for (;;) {
      if (io_uring_sqe* sqe = io_uring_get_sqe(&ring)) return sqe;
      if (io_uring_submit(&ring) < 0) {  // -EBUSY, -EAGAIN: the kernel wants completions taken first
        Completion taken[kBatch];
        io_uring_get_events(&ring);
        const uint32_t count = take(taken, kBatch);
        early.insert(early.end(), taken, taken + count);
      }
    }
  }
};

Ring::Ring(std::unique_ptr<State> state) : state_(std::move(state)) {}

Ring::~Ring() { io_uring_queue_exit(&state_->ring); }

std::unique_ptr<Ring> Ring::create(uint32_t entries, uint32_t completions, std::string* why) {
  auto state = std::make_unique<State>();
  completions = std::max(completions, entries);
  int result = setUp(&state->ring, entries, completions, &state->flags);
  // Some kernels count the queues as locked memory. Small ones do: what overflows them the kernel keeps.
  for (; result == -ENOMEM && entries > kFewest; result = setUp(&state->ring, entries, completions, &state->flags)) {
    entries = std::max(entries / 2, kFewest);
    completions = std::max(completions / 2, 2 * kFewest);
  }
  if (result < 0) {
    *why = reason(-result);
    return nullptr;
  }
  const uint32_t needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
  if ((state->ring.features & needed) != needed) {
    io_uring_queue_exit(&state->ring);
    *why = "io_uring of this kernel is too old: 5.11 is needed";
    return nullptr;
  }
  io_uring_register_ring_fd(&state->ring);  // an optimisation; older kernels do without
  if (io_uring_register_files_sparse(&state->ring, kFiles) == 0) {
    for (int slot = kFiles - 1; slot >= 0; --slot) state->freeFiles.push_back(slot);
  }
  return std::unique_ptr<Ring>(new Ring(std::move(state)));
}

int Ring::addFile(int fd) {
  if (state_->freeFiles.empty()) return -ENFILE;
  const int slot = state_->freeFiles.back();
  const int result = io_uring_register_files_update(&state_->ring, slot, &fd, 1);
  if (result < 0) return result;
  state_->freeFiles.pop_back();
  return slot;
}

void Ring::removeFile(int slot) {
  const int none = -1;
  io_uring_register_files_update(&state_->ring, slot, &none, 1);
  state_->freeFiles.push_back(slot);
}

int Ring::addBuffers(void* base, uint64_t bytes) {
  std::vector<iovec> chunks;
  for (uint64_t at = 0; at < bytes; at += kBufferChunk) {
    chunks.push_back({static_cast<char*>(base) + at, std::min(kBufferChunk, bytes - at)});
  }
  const int result = io_uring_register_buffers(&state_->ring, chunks.data(), chunks.size());
  if (result < 0) return result;
  state_->base = reinterpret_cast<uintptr_t>(base);
  state_->bytes = bytes;
  return 0;
}

bool Ring::fixed(const void* data, uint64_t length) const {
  const uint64_t at = reinterpret_cast<uintptr_t>(data) - state_->base;
  return at < state_->bytes && length != 0 && length <= state_->bytes - at &&
         at / kBufferChunk == (at + length - 1) / kBufferChunk;
}

void Ring::queue(RingOp* op, const RingEntry& entry) {
  io_uring_sqe* sqe = state_->entry();
  io_uring_prep_rw(opcode(entry.code), sqe, entry.file.number, entry.data, entry.length, entry.offset);
  sqe->flags = entry.file.fixed ? IOSQE_FIXED_FILE : 0;
  sqe->ioprio = entry.ioprio;
  if (entry.code == RingCode::kFdatasync) {
    sqe->fsync_flags = IORING_FSYNC_DATASYNC;
  } else {
    sqe->rw_flags = entry.rwFlags;
  }
  // Of the same kernel as COOP_TASKRUN, 5.19.
  if (entry.waits && (state_->flags & IORING_SETUP_COOP_TASKRUN)) sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
  if (entry.code == RingCode::kReadFixed || entry.code == RingCode::kWriteFixed) {
    sqe->buf_index = (reinterpret_cast<uintptr_t>(entry.data) - state_->base) / kBufferChunk;
  }
  const uintptr_t waits = entry.waits || entry.code == RingCode::kAccept ? kWaits : 0;
  io_uring_sqe_set_data64(sqe, reinterpret_cast<uintptr_t>(op) | waits);
  ++state_->inFlight;
  state_->waiting += waits;
}

uint32_t Ring::inFlight() const { return state_->inFlight; }

void Ring::enter(uint64_t timeout) {
  // Failures here (a signal, memory short, the time is up) leave entries queued for the next call.
  io_uring* ring = &state_->ring;
  const uint32_t queued = io_uring_sq_ready(ring);
  if (state_->worthALook(queued)) {
    io_uring_get_events(ring);
    if (io_uring_cq_ready(ring) > 0) return;
  }
  // Not one call to submit and to wait: on the way back from the first the kernel may run the worker that the
  // submission woke, on this CPU, and the wait then finds what is complete. A thread that sleeps inside the call has
  // its worker woken on another CPU, and is woken from there (x0.4 at depth 1 on a loop device).
  if (timeout == 0 || queued > 0) io_uring_submit_and_get_events(ring);
  if (timeout == 0 || !state_->early.empty() || io_uring_cq_ready(ring) > 0) return;
  if (timeout == kForever) {
    io_uring_submit_and_wait(ring, 1);
  } else {
    __kernel_timespec time{static_cast<int64_t>(timeout / 1'000'000'000),
                           static_cast<long long>(timeout % 1'000'000'000)};
    io_uring_cqe* cqe = nullptr;
    io_uring_submit_and_wait_timeout(ring, &cqe, 1, &time, nullptr);
  }
}

uint32_t Ring::reap() {
  if (state_->inFlight == 0) return 0;
  if (!state_->early.empty()) {
    std::vector<Completion> early;
    early.swap(state_->early);
    for (const Completion& c : early) {
      --state_->inFlight;
      c.op->done(c.op, c.result);
    }
    return early.size();
  }
  // Copied out first: completions queue new operations, and the kernel may want the room.
  Completion batch[kBatch];
  const uint32_t count = state_->take(batch, kBatch);
  state_->inFlight -= count;
  for (uint32_t i = 0; i < count; ++i) batch[i].op->done(batch[i].op, batch[i].result);
  return count;
}

#else  // without liburing no ring ever exists

struct Ring::State {};
Ring::Ring(std::unique_ptr<State> state) : state_(std::move(state)) {}
Ring::~Ring() = default;
std::unique_ptr<Ring> Ring::create(uint32_t, uint32_t, std::string* why) {
  *why = "built without liburing";
  return nullptr;
}
int Ring::addFile(int) { return -ENOSYS; }
void Ring::removeFile(int) {}
int Ring::addBuffers(void*, uint64_t) { return -ENOSYS; }
bool Ring::fixed(const void*, uint64_t) const { return false; }
void Ring::queue(RingOp* op, const RingEntry&) { op->done(op, -ENOSYS); }
uint32_t Ring::inFlight() const { return 0; }
void Ring::enter(uint64_t) {}
uint32_t Ring::reap() { return 0; }

#endif

}  // namespace sm
