// A physical device as an export: requests go through its dispatch table as it is at that moment, and so past every
// interposer that is in it. Whoever makes it has claimed the device (Host::claimDevice): no volume has it meanwhile.
#pragma once

#include <stratamap/device.h>

#include <string>

#include "nbd/export.h"

namespace sm::nbd {

struct DeviceExportOptions {
  std::string description;
  bool readOnly = false;  // a device that is read-only is so in any case
};

class DeviceExport final : public Export {
 public:
  // `home`: one of the I/O threads that the device was opened for.
  DeviceExport(sm_device& device, IoThread& home, const DeviceExportOptions& options)
      : Export(device.name, options.description), device_(device), home_(home), options_(options) {}

  IoThread& home() override { return home_; }
  ExportFacts facts() const override {
    ExportFacts facts;
    facts.bytes = device_.bytes;
    facts.minimumBlock = device_.block_size;
    facts.maxTransfer = device_.max_transfer;
    facts.readOnly = options_.readOnly || (device_.flags & SM_DEVICE_READ_ONLY);
    return facts;
  }
  sm_request* allocate() override { return home_.allocate(); }
  void release(sm_request* request) override { home_.release(request); }
  void submit(sm_request* request) override { sm_device_submit(&device_, request); }

 private:
  sm_device& device_;
  IoThread& home_;
  const DeviceExportOptions options_;
};

}  // namespace sm::nbd
