// The inside of a Volume.
//
// Thread contract: any thread but an I/O thread; one call at a time for each volume, by `mutex`.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "host/disk_registry.h"
#include "host/host.h"
#include "host/own_devices.h"
#include "host/services.h"

namespace sm {

struct Volume::State {
  struct OpenDisk {
    std::shared_ptr<VirtualDisk> disk;
    void* handle;  // the volume's
    DiskRegistry::Name name;
  };

  // What a volume uses of its host.
  struct Surroundings {
    IoThread& home;
    std::vector<IoThread*> threads;
    VolumeServices::Log log;
    DiskRegistry& disks;
    DeviceNames& deviceNames;
  };

  State(std::string volumeName, std::string volumeType, std::vector<sm_device*> volumeDevices, Surroundings host);

  // Opens the volume itself.
  Failure open(const sm_volume_ops* volumeOps, const Options& options);
  // EBUSY while disks are open, unless they shall be closed too. Else it is closed afterwards, even where that fails.
  Failure close(bool disksToo);

  // With the lock held.
  Failure usable() const;
  Failure openDisk(const DiskRegistry::Name& diskName, VirtualDisk** out);
  Failure checkSize(uint64_t bytes, uint32_t block, const DiskRegistry::Name& diskName) const;
  void closeDisk(std::map<VirtualDisk*, OpenDisk>::iterator position);
  std::string asked(const std::string& what) const;  // "cannot <what> volume v0 (extent on d0, d1)"
  static Failure about(const DiskRegistry::Name& diskName, Failure failure);

  const std::string name, type;
  const std::vector<sm_device*> devices;
  OwnDevices own;
  VolumeServices services;
  DiskRegistry& registry;
  const sm_volume_ops* ops = nullptr;
  void* handle = nullptr;
  uint32_t blockSize = 512;  // of the devices that it was given

  std::mutex mutex;
  bool closed = true;
  std::map<VirtualDisk*, OpenDisk> disks;
};

// The volume's options as the contract has them; they live as long as `options`.
std::vector<sm_option> contractOptions(const Options& options);

}  // namespace sm
