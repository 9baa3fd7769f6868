#include "host/services.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <utility>

#include "engine/buffer_pool.h"
#include "host/own_devices.h"

namespace sm {
namespace {

// A blocking I/O: its pieces go out one after the other, each from the completion of the last.
struct DeviceIo {
  sm_task task{};  // first: found from it
  IoThread* home;
  sm_device* device;
  uint8_t op;
  uint64_t offset;
  char* data;
  uint64_t length;  // still to do
  iovec iov{};
  uint64_t piece = 0;

  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  int32_t status = 0;

  // Also when a request has been given back.
  static void next(sm_task* task) {
    DeviceIo* io = reinterpret_cast<DeviceIo*>(task);
    sm_request* request = io->home->allocate();
    if (!request) return io->home->wait(task);
    io->piece = std::min<uint64_t>(io->length, io->device->max_transfer);
    request->op = io->op;
    if (io->op != SM_OP_FLUSH) {
      request->offset = io->offset;
      request->length = io->piece;
    }
    if (io->op == SM_OP_READ || io->op == SM_OP_WRITE) {
      io->iov = {io->data, io->piece};
      request->iov = &io->iov;
      request->iov_count = 1;
    }
    sm_request_push(request, &DeviceIo::completed, io, 0);
    sm_device_submit(io->device, request);
  }

  static void completed(sm_request* request, void* context, uint64_t) {
    DeviceIo* io = static_cast<DeviceIo*>(context);
    const int32_t status = request->status;
    io->home->release(request);
    io->offset += io->piece;
    io->length -= io->piece;
    if (io->data) io->data += io->piece;
    if (status == 0 && io->length > 0) return io->home->post(&io->task);  // not from here: a driver may be fast
    std::lock_guard<std::mutex> lock(io->mutex);
    io->status = status;
    io->done = true;
    io->changed.notify_all();
  }
};

}  // namespace

int32_t deviceIo(IoThread& home, sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length) {
  if (op == SM_OP_FLUSH) {
    length = 0;
  } else if (offset > device->bytes || length > device->bytes - offset ||
             (offset | length) & (device->block_size - 1)) {
    return -EINVAL;
  } else if (length == 0) {
    return 0;
  }
  DeviceIo io;
  io.task.run = &DeviceIo::next;
  io.home = &home;
  io.device = device;
  io.op = op;
  io.offset = offset;
  io.data = static_cast<char*>(data);
  io.length = length;
  home.post(&io.task);
  std::unique_lock<std::mutex> lock(io.mutex);
  io.changed.wait(lock, [&] { return io.done; });
  return io.status;
}

const VolumeServices& VolumeServices::of(const sm_services* table) {
  return *reinterpret_cast<const VolumeServices*>(table);
}

VolumeServices::VolumeServices(IoThread& home, Log log, OwnDevices* own)
    : table_{}, home_(home), log_(std::move(log)), own_(own) {
  table_.version = SM_CONTRACT_VERSION;
  table_.size = sizeof table_;
  table_.now = [](const sm_services* self) { return of(self).home_.now(); };
  table_.buffer_get = [](const sm_services* self, uint64_t length, sm_buffer* out) -> int32_t {
    BufferPool& pool = of(self).home_.buffers();
    if (length == 0 || length > pool.largest()) return -EINVAL;
    return pool.get(length, &out->data, &out->length) ? 0 : -ENOMEM;
  };
  table_.buffer_put = [](const sm_services* self, sm_buffer* buffer) { of(self).home_.buffers().put(buffer->data); };
  table_.post = [](const sm_services* self, sm_task* task) { of(self).home_.post(task); };
  table_.call = [](const sm_services* self, void (*run)(void*), void* context) { of(self).home_.call(run, context); };
  table_.timer_start = [](const sm_services* self, sm_timer* timer, uint64_t delay) {
    of(self).home_.timerStart(timer, delay);
  };
  table_.timer_stop = [](const sm_services* self, sm_timer* timer) { of(self).home_.timerStop(timer); };
  table_.clone = [](const sm_services* self, const sm_request* parent, uint64_t from, uint64_t length) {
    return of(self).home_.clone(parent, from, length);
  };
  table_.fresh = [](const sm_services* self) { return of(self).home_.allocate(); };
  table_.wait = [](const sm_services* self, sm_task* task) { of(self).home_.wait(task); };
  table_.release = [](const sm_services* self, sm_request* child) { of(self).home_.release(child); };
  table_.io = [](const sm_services* self, sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length) {
    return deviceIo(of(self).home_, device, op, offset, data, length);
  };
  table_.log = [](const sm_services* self, int level, const char* message) { of(self).log_(level, message); };
  table_.device_open = [](const sm_services* self, const char* name, const char* path, sm_device** out,
                          sm_error* error) -> int32_t {
    OwnDevices* own = of(self).own_;
    const Failure failure = own ? own->open(name, path, out)
                                : failed(EOPNOTSUPP, "device", "a volume that is being formatted opens no device");
    if (!failure) return 0;
    if (error) {
      error->code = -failure.error;
      std::snprintf(error->message, sizeof error->message, "%s", failure.message.c_str());
    }
    return -failure.error;
  };
  table_.device_close = [](const sm_services* self, sm_device* device) {
    if (OwnDevices* own = of(self).own_) own->close(device);
  };
}

}  // namespace sm
