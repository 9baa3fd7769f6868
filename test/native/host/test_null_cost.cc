// What an I/O costs in the stack itself: a device that does nothing, under a volume that passes everything on. The
// figure is printed; that all I/Os arrive below is checked.
#include "host/services.h"
#include "stack_of.h"

using namespace sm;
using namespace sm::test;

namespace {

struct PassOn {
  const sm_services* services;
  sm_device* device;
  uint64_t children = 0;

  static void submit(void* volume, void*, sm_request* request) {
    auto* self = static_cast<PassOn*>(volume);
    sm_request* child = self->services->clone(self->services, request, 0, request->length);
    child->offset = request->offset;
    ++self->children;
    sm_request_push(
        child,
        [](sm_request* child, void* context, uint64_t parent) {
          auto* self = static_cast<PassOn*>(context);
          const int32_t status = child->status;
          self->services->release(self->services, child);
          sm_request_complete(reinterpret_cast<sm_request*>(parent), status);
        },
        self, reinterpret_cast<uint64_t>(request));
    sm_device_submit(self->device, child);
  }
};

}  // namespace

TEST_CASE("the cost of an I/O on a null device at depth 32") {
  auto host = openHost();
  sm_device* device = openNull(*host, "null", uint64_t{1} << 30);
  IoThread& home = *host->threads()[0];
  const VolumeServices services(home, [](int, const std::string&) {});
  PassOn volume{services.table(), device};
  sm_volume_ops ops{};
  ops.submit = &PassOn::submit;
  VirtualDisk disk(home, &ops, &volume, nullptr, "vm-1", "vda", device->bytes, 512);
  for (const std::string pattern : {"randread", "randwrite"}) {
    WorkloadOptions options;
    options.pattern = pattern;
    options.operations = 1'000'000;
    volume.children = 0;
    const WorkloadResult result = runWorkload(disk, options);
    CHECK(result.operations == options.operations);
    CHECK(result.errors == 0);
    CHECK(volume.children == options.operations);
    MESSAGE(pattern << " on null, depth 32: " << double(result.elapsedNs) / double(result.operations) << " ns elapsed, "
                    << double(result.cpuNs) / double(result.operations) << " ns CPU per I/O");
  }
  disk.quiesce(VirtualDisk::Quiesce::kClose);
}
