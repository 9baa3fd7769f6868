// The driver `null`: a size and no data. Everything succeeds at once, reads leave their buffers as they are: what a
// benchmark measures on it is the stack above.
//
// Its beginning it does keep, as memory that reads as zeroes at first: volumes have their metadata there, and could not
// be opened without. That is 1 MiB, or a thousandth of its size where that is more.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "devices/check.h"
#include "devices/device.h"

namespace sm::null {

namespace {

constexpr uint64_t kKept = 1 << 20, kShare = 1024;

void submit(const sm_device_ops*, sm_device* device, sm_request* request);

constexpr sm_device_ops kOps = {SM_CONTRACT_VERSION, sizeof(sm_device_ops), submit};

class NullDevice final : public Device {
 public:
  NullDevice(const DeviceSpec& spec, char* kept, uint64_t keptBytes) : kept_(kept), keptBytes_(keptBytes) {
    facts_ = {.name = spec.name,
              .path = spec.path,
              .driver = "null",
              .bytes = spec.bytes,
              .blockSize = 512,
              .shared = spec.shared,
              .readOnly = spec.readOnly};
    publish(&kOps);
  }
  ~NullDevice() override { munmap(kept_, keptBytes_); }

  bool keeps(const sm_request& request) const { return request.offset < keptBytes_; }

  void keep(const sm_request& request) {
    const uint64_t bytes = std::min(request.length, keptBytes_ - request.offset);
    char* at = kept_ + request.offset;
    if (request.op == SM_OP_READ) scatter(request, 0, bytes, at);
    if (request.op == SM_OP_WRITE) gather(request, 0, bytes, at);
    if (request.op == SM_OP_WRITE_ZEROES) std::memset(at, 0, bytes);
  }

 private:
  char* const kept_;
  const uint64_t keptBytes_;
};

void submit(const sm_device_ops*, sm_device* device, sm_request* request) {
  int32_t status;
  if (!endsEarly(*device, *request, &status) && request->length > 0) {
    auto* self = static_cast<NullDevice*>(device->driver);
    if (self->keeps(*request)) self->keep(*request);
  }
  IoThread::current()->completeLater(request, status);
}

}  // namespace

Failure open(const DeviceSpec& spec, const std::vector<IoThread*>&, std::unique_ptr<Device>* out) {
  if (spec.bytes == 0 || spec.bytes % 512 != 0) {
    return {.error = EINVAL,
            .code = "ERR_STRATAMAP_SIZE",
            .layer = "device",
            .message = "open device '" + spec.name + "': the driver null needs a size, a multiple of 512 bytes",
            .device = spec.name};
  }
  const uint64_t kept = std::min(spec.bytes, std::max(kKept, spec.bytes / kShare));
  void* memory = mmap(nullptr, kept, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return {.error = ENOMEM,
            .code = "ENOMEM",
            .layer = "device",
            .message = "open device '" + spec.name + "': no memory for the " + std::to_string(kept) +
                       " bytes that it keeps; give it a smaller size",
            .device = spec.name};
  }
  *out = std::make_unique<NullDevice>(spec, static_cast<char*>(memory), kept);
  return {};
}

}  // namespace sm::null
