// The path of an I/O through the stripe volume: arithmetic alone.
//
// Thread contract: on the home I/O thread, but for the constructor. A disk's row never changes, so nothing is shared.
#pragma once

#include "flow.h"

namespace sm {

// Where chunks lie: chunk n of a disk is on device n % devices, in row firstRow + n / devices.
struct StripeLayout {
  uint64_t chunkBytes;
  uint64_t dataAt;  // bytes: where row 0 begins on every device
  uint64_t rows;    // of all devices
  uint32_t devices;

  uint64_t rowBytes() const { return chunkBytes * devices; }
  uint64_t rowsOf(uint64_t bytes) const { return bytes / rowBytes() + (bytes % rowBytes() != 0); }
  struct Place {
    uint32_t device;
    uint64_t offset, span;  // bytes: on the device, and to the end of the chunk
  };
  Place find(uint64_t firstRow, uint64_t offset) const {
    const uint64_t chunk = offset / chunkBytes, within = offset % chunkBytes;
    return {static_cast<uint32_t>(chunk % devices), dataAt + (firstRow + chunk / devices) * chunkBytes + within,
            chunkBytes - within};
  }
};

struct StripeDisk {
  uint32_t id;
  uint64_t firstRow;
};

class StripeIo final : public Flow {
 public:
  StripeIo(const sm_services* services, sm_device* const* devices, Issue issue, const StripeLayout& layout,
           Durability& durability)
      : Flow(services, devices, layout.devices, issue, durability), layout_(layout) {}

 private:
  void advance(sm_request* request) override;
  static void onData(sm_request* child, void* io, uint64_t parent);

  const StripeLayout layout_;
};

}  // namespace sm
