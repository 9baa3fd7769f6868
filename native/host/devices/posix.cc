// The driver `posix`: each device has threads of its own that make the system calls. Works everywhere.
#include <utility>

#include "devices/check.h"
#include "devices/device.h"
#include "devices/open.h"
#include "devices/workers.h"

namespace sm::posix {

namespace {

constexpr unsigned kThreads = 8;

void submit(const sm_device_ops*, sm_device* device, sm_request* request);

constexpr sm_device_ops kOps = {SM_CONTRACT_VERSION, sizeof(sm_device_ops), submit};

class PosixDevice final : public Device {
 public:
  PosixDevice(const OpenFile& file, DeviceFacts facts) : fd_(file.fd), workers_(file, kThreads) {
    facts_ = std::move(facts);
    facts_.driver = "posix";
    publish(&kOps);
  }

  Workers& workers() { return workers_; }

 private:
  const OwnedFd fd_;
  Workers workers_;
};

void submit(const sm_device_ops*, sm_device* device, sm_request* request) {
  int32_t status;
  if (endsEarly(*device, *request, &status)) {
    IoThread::current()->completeLater(request, status);
  } else {
    static_cast<PosixDevice*>(device->driver)->workers().submit(request);
  }
}

}  // namespace

Failure open(const DeviceSpec& spec, const std::vector<IoThread*>&, std::unique_ptr<Device>* out) {
  OpenFile file;
  DeviceFacts facts;
  if (Failure failure = openFile(spec, &file, &facts)) return failure;
  *out = std::make_unique<PosixDevice>(file, std::move(facts));
  return {};
}

}  // namespace sm::posix
