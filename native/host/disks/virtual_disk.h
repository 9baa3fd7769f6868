// A virtual disk: bounds and alignment checks, the chain of filters, the volume below, and the door through which
// requests from other threads enter.
//
// Thread contract: submit(DiskIo*), check(), inFlight() and bytes() from any thread; attach/detachFilter, quiesce and
// proceed from any thread but an I/O thread; everything else on the home I/O thread. bytes() changes on the home
// thread.
#pragma once

#include <stratamap/disk.h>
#include <stratamap/filter.h>
#include <stratamap/volume.h>

#include <cstdint>
#include <memory>
#include <string>

#include "engine/failure.h"
#include "engine/io_thread.h"

namespace sm {

// One I/O from a thread that is not the disk's own. The caller owns the memory, and leaves it alone until `done`, which
// runs on the home I/O thread; it may submit again from there. The request that it becomes is the host's.
struct DiskIo {
  sm_task task{};
  class VirtualDisk* disk = nullptr;  // set by submit
  uint8_t op = 0;
  uint16_t ioprio = 0;
  uint32_t flags = 0;
  uint64_t offset = 0, length = 0;
  iovec iov[SM_IOV_MAX]{};
  uint32_t iovCount = 0;
  void (*done)(DiskIo*) = nullptr;
  int32_t status = 0;
};

constexpr uint64_t kMaxTransfer = 1 << 20;  // bytes: no request that carries data is longer

class VirtualDisk {
 public:
  // `volume` and `handle` are what the volume's disk_open gave.
  // Its memory is that of the path of an I/O: nothing is allocated after this, but by attachFilter.
  VirtualDisk(IoThread& home, const sm_volume_ops* ops, void* volume, void* handle, std::string vm, std::string name,
              uint64_t bytes, uint32_t blockSize);
  ~VirtualDisk();  // quiesced to close
  VirtualDisk(const VirtualDisk&) = delete;
  VirtualDisk& operator=(const VirtualDisk&) = delete;

  sm_disk* contract();  // stable address; finds the VirtualDisk back by fromContract
  static VirtualDisk* fromContract(sm_disk* disk);
  IoThread& home();
  uint64_t bytes() const;
  // Why the range cannot be served (RangeError before anything is touched), or nothing.
  Failure check(uint8_t op, uint64_t offset, uint64_t length) const;

  // Queues to the home thread. There it fails with -EINVAL if it does not pass check(), and waits its turn while the
  // thread has no request left.
  void submit(DiskIo* io);
  // A request for this disk, or null: wait for one by IoThread::wait. Half of a thread's requests are for the disks,
  // the rest are kept for children, so that every request for a disk can be carried out. Those who enter() requests
  // take and return them here.
  sm_request* allocate();
  void release(sm_request* request);
  // Through the filters, then the volume. `request` is complete but for disk and frames above it. What does not pass
  // check() fails with -EINVAL, before a filter sees it.
  void enter(sm_request* request);
  void resume(sm_request* request);
  uint64_t inFlight() const;  // requests between enter() and their completion

  // For those who go on issuing requests, as the workload: a disk does not become idle for closing before they let go.
  // After -ESHUTDOWN, which means that the disk is closing, they should.
  void pin();
  void unpin();

  // Stops new requests and waits for those in flight. To resize: what arrives is held until proceed. To close: what
  // arrives fails with -ESHUTDOWN, and the disk may be destroyed when this returns.
  enum class Quiesce { kResize, kClose };
  void quiesce(Quiesce why);
  void proceed(uint64_t bytes);  // the disk's size from now on

  int attachFilter(const sm_filter_ops* ops, void* context);
  int detachFilter(void* context, uint64_t timeoutNs);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sm
