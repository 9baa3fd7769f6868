// What the tests of disks and of the host share: a volume in memory that can be told to misbehave, files and loop
// devices that clean up after themselves, and I/O that is awaited.
#pragma once

#include <stratamap/volume.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "disks/virtual_disk.h"
#include "disks/workload.h"
#include "engine/io_thread.h"
#include "sys/loop.h"

namespace sm::test {

// One disk of a volume that keeps its bytes in memory. All members belong to the home I/O thread while I/O is in
// flight.
struct MemoryVolume {
  IoThread* home = nullptr;
  std::vector<uint8_t> bytes;
  bool atOnce = false;  // complete within submit
  bool hold = false;    // keep what arrives in `held`
  std::vector<sm_request*> held;
  std::function<int32_t(sm_request*)> first;                // looks at a request; a status other than 0 fails it
  std::function<void(MemoryVolume&, sm_request*)> instead;  // executes the request in place of the volume

  void execute(sm_request* request) {
    uint8_t* at = bytes.data() + request->offset;
    for (uint32_t i = 0; i < request->iov_count; ++i) {
      const iovec& part = request->iov[i];
      if (request->op == SM_OP_READ) std::memcpy(part.iov_base, at, part.iov_len);
      if (request->op == SM_OP_WRITE) std::memcpy(at, part.iov_base, part.iov_len);
      at += part.iov_len;
    }
    if (request->op == SM_OP_DISCARD || request->op == SM_OP_WRITE_ZEROES) std::memset(at, 0, request->length);
  }

  static void submit(void* volume, void*, sm_request* request) {
    auto* self = static_cast<MemoryVolume*>(volume);
    if (self->hold) return self->held.push_back(request);
    int32_t status = self->first ? self->first(request) : 0;
    if (status == 0) self->instead ? self->instead(*self, request) : self->execute(request);
    self->atOnce ? sm_request_complete(request, status) : self->home->completeLater(request, status);
  }

  static const sm_volume_ops* ops() {
    static const sm_volume_ops table = [] {
      sm_volume_ops ops{};
      ops.version = SM_CONTRACT_VERSION;
      ops.size = sizeof ops;
      ops.type = "memory";
      ops.submit = &MemoryVolume::submit;
      return ops;
    }();
    return &table;
  }
};

template <typename F>
void onThread(IoThread& thread, F&& run) {
  thread.call([](void* context) { (*static_cast<std::remove_reference_t<F>*>(context))(); }, &run);
}

// A virtual disk over a MemoryVolume, on an I/O thread of its own.
struct MemoryDisk {
  explicit MemoryDisk(uint64_t bytes = 1 << 20, uint32_t requests = 1024)
      : thread({.requests = requests, .bufferBytes = 4 << 20, .uring = false}, clock) {
    volume.home = &thread;
    volume.bytes.resize(bytes);
    disk = std::make_unique<VirtualDisk>(thread, MemoryVolume::ops(), &volume, nullptr, "vm-1", "vda", bytes, 512);
  }
  ~MemoryDisk() { disk->quiesce(VirtualDisk::Quiesce::kClose); }

  HostClock clock;
  IoThread thread;
  MemoryVolume volume;
  std::unique_ptr<VirtualDisk> disk;
};

// A DiskIo that can be waited for.
struct AwaitedIo {
  DiskIo io;  // first: found from it
  std::promise<int32_t> promise;
  std::future<int32_t> done = promise.get_future();

  void submit(VirtualDisk& disk, uint8_t op, uint64_t offset, void* data, uint64_t length) {
    io.op = op;
    io.offset = offset;
    io.length = length;
    if (data) {
      io.iov[0] = {data, length};
      io.iovCount = 1;
    }
    io.done = [](DiskIo* io) { reinterpret_cast<AwaitedIo*>(io)->promise.set_value(io->status); };
    disk.submit(&io);
  }
};

inline int32_t diskIo(VirtualDisk& disk, uint8_t op, uint64_t offset, void* data, uint64_t length) {
  AwaitedIo io;
  io.submit(disk, op, offset, data, length);
  return io.done.get();
}

// A workload that runs until it ends; stop() ends it.
struct RunningWorkload {
  RunningWorkload(VirtualDisk& disk, const WorkloadOptions& options) : workload(disk, options) {
    workload.start([this](const WorkloadResult& result) { promise.set_value(result); });
  }
  WorkloadResult wait() { return done.get(); }

  Workload workload;
  std::promise<WorkloadResult> promise;
  std::future<WorkloadResult> done = promise.get_future();
};

inline WorkloadResult runWorkload(VirtualDisk& disk, const WorkloadOptions& options) {
  RunningWorkload running(disk, options);
  return running.wait();
}

// Where files are to be in memory, where that can be.
inline const char* memoryFolder() {
  if (const char* given = std::getenv("SM_MEMORY")) return given;
  return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::getenv("TMPDIR");
}

struct TempFolder {
  TempFolder() : TempFolder(std::getenv("TMPDIR")) {}
  explicit TempFolder(const char* base) {
    path = std::string(base ? base : "/tmp") + "/stratamap-test-XXXXXX";
    if (!mkdtemp(path.data())) std::abort();
  }
  ~TempFolder() { std::filesystem::remove_all(path); }
  std::string file(const std::string& name, uint64_t bytes) {
    std::string file = path + "/" + name;
    std::unique_ptr<FILE, int (*)(FILE*)> opened(fopen(file.c_str(), "wb"), fclose);
    if (!opened || ftruncate(fileno(opened.get()), static_cast<off_t>(bytes)) != 0) std::abort();
    files.push_back(file);
    return file;
  }

  std::string path;
  std::vector<std::string> files;
};

// A loop device; `path` is empty where there is none, and `why` says why.
struct Loop {
  explicit Loop(const std::string& file, uint32_t blockSize = 512) {
    if (geteuid() != 0) {
      why = "loop devices need root";
      return;
    }
    LoopOptions options;
    options.file = file;
    options.blockSize = blockSize;
    attached = loopAttach(options, &device, &why) == 0;
    if (attached) path = device.path;
  }
  ~Loop() {
    std::string what;
    if (attached) loopDetach(&device, &what);
  }

  LoopDevice device;
  bool attached = false;
  std::string path, why;
};

}  // namespace sm::test
