// The driver `uring`: reads, writes and flushes through the submitting thread's ring, with registered files and, where
// a request's data is one piece of the pool, registered buffers. Discards and write-zeroes block in the kernel wherever
// they come from: worker threads make those calls. On a file in memory the kernel would give every read and write to a
// thread of its own, which costs more than the copy: there the I/O thread makes the call. Where a thread has no ring,
// the driver posix serves.
#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

#include "devices/blocking.h"
#include "devices/check.h"
#include "devices/device.h"
#include "devices/open.h"
#include "devices/workers.h"
#include "engine/buffer_pool.h"
#include "sys/ring.h"

#ifndef RWF_DSYNC
#define RWF_DSYNC 2
#endif

namespace sm::uring {

namespace {

constexpr unsigned kWorkers = 2;

class UringDevice;

// A request's state, in request->driver: waiting for a buffer of the pool to bounce through, or in the ring.
struct Io {
  union {
    sm_task waiting;
    struct {
      RingOp op;
      void* bounce;  // null: the request's own buffers are used
    } ring;
  };
  UringDevice* device;
  uint32_t moved;      // bytes done
  bool plainPriority;  // the kernel refused the request's I/O priority

  sm_request* request() {
    return reinterpret_cast<sm_request*>(reinterpret_cast<char*>(this) - offsetof(sm_request, driver));
  }
};
static_assert(sizeof(Io) <= sizeof(sm_request::driver));
static_assert(offsetof(Io, waiting) == 0 && offsetof(Io, ring.op) == 0);

class UringDevice final : public Device {
 public:
  UringDevice(const OpenFile& file, DeviceFacts facts, const std::vector<IoThread*>& threads);
  ~UringDevice() override;

  void start(sm_request* request);

 private:
  // One I/O thread's way to the file.
  struct Lane {
    IoThread* thread = nullptr;
    Ring* ring = nullptr;
    RingFile file;
    std::unique_ptr<Scratch> scratch;  // for a file in memory
  };

  Lane& here() { return lanes_[IoThread::current()->index()]; }
  void bounce(Lane& lane, sm_request* request, Io* io);
  void advance(Lane& lane, sm_request* request, Io* io);
  void moved(sm_request* request, Io* io, int result);
  void finish(Lane& lane, sm_request* request, Io* io, int32_t status);

  const OwnedFd fd_;
  const OpenFile file_;
  std::vector<Lane> lanes_;  // by the thread's index
  Workers workers_;
};

void submit(const sm_device_ops*, sm_device* device, sm_request* request) {
  int32_t status;
  if (endsEarly(*device, *request, &status)) {
    IoThread::current()->completeLater(request, status);
  } else {
    static_cast<UringDevice*>(device->driver)->start(request);
  }
}

constexpr sm_device_ops kOps = {SM_CONTRACT_VERSION, sizeof(sm_device_ops), submit};

// Runs `work` on the thread, and waits.
template <typename Work>
void on(IoThread* thread, Work work) {
  thread->call([](void* context) { (*static_cast<Work*>(context))(); }, &work);
}

UringDevice::UringDevice(const OpenFile& file, DeviceFacts facts, const std::vector<IoThread*>& threads)
    : fd_(file.fd), file_(file), workers_(file, kWorkers) {
  facts_ = std::move(facts);
  facts_.driver = "uring";
  for (IoThread* thread : threads) {
    if (lanes_.size() <= thread->index()) lanes_.resize(thread->index() + 1);
    Lane& lane = lanes_[thread->index()];
    lane.thread = thread;
    lane.ring = thread->ring();
    if (file.inMemory) lane.scratch = std::make_unique<Scratch>();
    on(thread, [&lane, &file] {
      const int slot = lane.ring->addFile(file.fd);
      lane.file = slot >= 0 ? RingFile{slot, true} : RingFile{file.fd, false};
    });
  }
  publish(&kOps);
}

UringDevice::~UringDevice() {
  for (Lane& lane : lanes_) {
    if (lane.file.fixed) on(lane.thread, [&lane] { lane.ring->removeFile(lane.file.number); });
  }
}

void UringDevice::start(sm_request* request) {
  if (request->op == SM_OP_DISCARD || request->op == SM_OP_WRITE_ZEROES) return workers_.submit(request);
  if (const auto& scratch = here().scratch) {
    return here().thread->completeLater(request, execute(file_, *request, *scratch));
  }
  Io* io = new (request->driver) Io;
  io->device = this;
  io->moved = 0;
  io->plainPriority = false;
  Lane& lane = here();
  if (request->op != SM_OP_FLUSH && !file_.aligned(*request)) return bounce(lane, request, io);
  io->ring.bounce = nullptr;
  advance(lane, request, io);
}

// Takes a buffer of the pool in the place of the request's own, as soon as there is one.
void UringDevice::bounce(Lane& lane, sm_request* request, Io* io) {
  BufferPool& pool = lane.thread->buffers();
  if (pool.largest() < facts_.blockSize) return lane.thread->completeLater(request, -ENOMEM);
  void* data;
  uint64_t capacity;
  if (!pool.get(std::min(request->length, pool.largest()), &data, &capacity)) {
    io->waiting.run = [](sm_task* task) {
      Io* io = reinterpret_cast<Io*>(task);
      io->device->bounce(io->device->here(), io->request(), io);
    };
    return lane.thread->wait(&io->waiting);
  }
  io->ring.bounce = data;
  advance(lane, request, io);
}

// Sends what is left, or the next part of it, to the ring.
void UringDevice::advance(Lane& lane, sm_request* request, Io* io) {
  io->ring.op.done = [](RingOp* op, int result) {
    Io* io = reinterpret_cast<Io*>(op);
    io->device->moved(io->request(), io, result);
  };
  RingEntry entry{.code = RingCode::kFdatasync, .file = lane.file};
  if (!io->plainPriority) entry.ioprio = request->ioprio;
  if (request->op == SM_OP_FLUSH) {
    entry.ioprio = 0;  // the kernel takes none with a sync
    return lane.ring->queue(&io->ring.op, entry);
  }
  const bool write = request->op == SM_OP_WRITE;
  entry.offset = request->offset + io->moved;
  if (write && (request->flags & SM_FLAG_FUA)) entry.rwFlags = RWF_DSYNC;
  const uint64_t left = request->length - io->moved;
  if (io->ring.bounce) {
    entry.data = io->ring.bounce;
    entry.length = std::min(left, lane.thread->buffers().largest());
    if (write) gather(*request, io->moved, entry.length, io->ring.bounce);
  } else if (request->iov_count > 1 && io->moved == 0) {
    entry.data = request->iov;
    entry.length = request->iov_count;
    entry.code = write ? RingCode::kWritev : RingCode::kReadv;
    return lane.ring->queue(&io->ring.op, entry);
  } else {
    // After a short transfer, one segment at a time.
    eachPiece(*request, io->moved, left, [&entry](const char* data, uint64_t bytes) {
      if (entry.data) return;
      entry.data = data;
      entry.length = bytes;
    });
  }
  if (lane.ring->fixed(entry.data, entry.length)) {
    entry.code = write ? RingCode::kWriteFixed : RingCode::kReadFixed;
  } else {
    entry.code = write ? RingCode::kWrite : RingCode::kRead;
  }
  lane.ring->queue(&io->ring.op, entry);
}

void UringDevice::moved(sm_request* request, Io* io, int result) {
  Lane& lane = here();
  if (result == -EINTR || result == -EAGAIN) return advance(lane, request, io);
  if ((result == -EINVAL || result == -EPERM) && request->ioprio && !io->plainPriority) {
    io->plainPriority = true;
    return advance(lane, request, io);
  }
  if (result < 0 || request->op == SM_OP_FLUSH) return finish(lane, request, io, std::min(result, 0));
  const uint32_t kept = result & ~file_.lengthMask;       // direct I/O goes on at a block
  if (kept == 0) return finish(lane, request, io, -EIO);  // the medium ended
  if (io->ring.bounce && request->op == SM_OP_READ) scatter(*request, io->moved, kept, io->ring.bounce);
  io->moved += kept;
  if (io->moved == request->length) return finish(lane, request, io, 0);
  advance(lane, request, io);
}

void UringDevice::finish(Lane& lane, sm_request* request, Io* io, int32_t status) {
  if (io->ring.bounce) lane.thread->buffers().put(io->ring.bounce);
  sm_request_complete(request, status);
}

}  // namespace

Failure open(const DeviceSpec& spec, const std::vector<IoThread*>& threads, std::unique_ptr<Device>* out) {
  for (IoThread* thread : threads) {
    if (!thread->ring()) {
      DeviceSpec instead = spec;
      instead.driver = "posix";
      return openDevice(instead, threads, out);
    }
  }
  OpenFile file;
  DeviceFacts facts;
  if (Failure failure = openFile(spec, &file, &facts)) return failure;
  *out = std::make_unique<UringDevice>(file, std::move(facts), threads);
  return {};
}

}  // namespace sm::uring
