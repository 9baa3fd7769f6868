// The devices that a volume opens itself, for the files that it keeps its data in: sm_services.device_open.
//
// Thread contract: under the lock of the volume, which whoever calls one of its entries holds.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "devices/device.h"
#include "host/device_names.h"
#include "host/disk_registry.h"

namespace sm {

class OwnDevices {
 public:
  // `threads` and `names` are the host's.
  OwnDevices(std::string volume, std::vector<IoThread*> threads, DeviceNames& names);
  ~OwnDevices();  // as closeAll
  OwnDevices(const OwnDevices&) = delete;
  OwnDevices& operator=(const OwnDevices&) = delete;

  // What is opened from now on is this disk's.
  void openFor(const DiskRegistry::Name& disk) { disk_ = disk; }
  // Errors: those of openDevice; EEXIST (the name), EINVAL ERR_STRATAMAP_NAME.
  Failure open(const std::string& name, const std::string& path, sm_device** out);
  void close(const sm_device* device);
  void closeAll();

  std::vector<sm_device*> of(const DiskRegistry::Name& disk) const;
  std::vector<std::string> pathsOf(const DiskRegistry::Name& disk) const;

 private:
  struct Entry {
    std::unique_ptr<Device> device;
    DiskRegistry::Name disk;
    std::string path;  // of the file, where the volume named it by a descriptor (/proc/self/fd) as well
  };
  const std::string volume_;
  const std::vector<IoThread*> threads_;
  DeviceNames& names_;
  DiskRegistry::Name disk_;
  std::vector<Entry> entries_;
};

}  // namespace sm
