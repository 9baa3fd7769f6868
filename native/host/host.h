// A host: I/O threads, devices, volumes, virtual disks. The storage stack that gets intercepted, and knows nothing of
// it.
//
// Thread contract: everything here may be called from any thread but an I/O thread, and may block; one Host serialises
// its own calls. Objects returned stay valid until closed. Closing refuses (EBUSY) what is still in use; ~Host closes
// everything, in order, whatever is in flight.
#pragma once

#include <stratamap/services.h>
#include <stratamap/volume.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/device.h"
#include "disks/virtual_disk.h"
#include "engine/failure.h"

namespace sm {

struct HostOptions {
  uint32_t threads = 1;
  uint32_t requests = 8192;         // for each thread
  uint64_t bufferBytes = 32 << 20;  // for each thread
  bool uring = true;
};

using DeviceOptions = DeviceSpec;
using DeviceInfo = DeviceFacts;

using Options = std::vector<std::pair<std::string, std::string>>;

struct DiskInfo {
  std::string vm, name;
  uint64_t bytes = 0;
};

class Host;

class Volume {
 public:
  const std::string& name() const;
  const std::string& type() const;
  const std::vector<sm_device*>& devices() const;  // that it was given
  // Those that the volume has opened itself for an open disk. Until that is closed or resized; nobody else's.
  std::vector<sm_device*> ownDevices(const VirtualDisk* disk) const;
  std::vector<std::string> ownPaths(const VirtualDisk* disk) const;  // of their files
  Failure createDisk(const std::string& vm, const std::string& name, uint64_t bytes,
                     VirtualDisk** out);  // and opens it
  Failure openDisk(const std::string& vm, const std::string& name, VirtualDisk** out);
  Failure listDisks(std::vector<DiskInfo>* out);
  Failure deleteDisk(const std::string& vm, const std::string& name);
  Failure resizeDisk(VirtualDisk* disk, uint64_t bytes);  // waits for what is in flight
  Failure closeDisk(VirtualDisk* disk);                   // waits for what is in flight

  struct State;
  explicit Volume(std::unique_ptr<State> state);
  ~Volume();
  std::unique_ptr<State> state;
};

class Host {
 public:
  static Failure open(const HostOptions& options, std::unique_ptr<Host>* out);
  ~Host();

  Failure openDevice(const DeviceOptions& options, sm_device** out);
  Failure closeDevice(sm_device* device);
  // Someone who is no volume sends requests to a device: until as many calls of unclaimDevice it is not closed, and no
  // volume gets it. Refused (EBUSY) where a volume has it. `shared`: beside volumes, before and after it.
  Failure claimDevice(sm_device* device, bool shared);
  void unclaimDevice(sm_device* device, bool shared);
  DeviceInfo info(const sm_device* device) const;

  // `type` is a registered volume or a path that ends in ".so"; devices go to those alone that take some, at least one
  // (EINVAL). Refuses devices that carry a signature it knows
  // (ERR_STRATAMAP_SIGNATURE, naming it), unless `force`.
  Failure formatVolume(const std::string& type, const std::vector<sm_device*>& devices, const Options& options,
                       bool force);
  Failure openVolume(const std::string& name, const std::string& type, const std::vector<sm_device*>& devices,
                     const Options& options, Volume** out);
  Failure closeVolume(Volume* volume);

  // Closes disks, volumes and devices; reports the first failure, goes on all the same. Afterwards nothing works.
  Failure close();

  const sm_stack* stack() const;
  const std::vector<std::unique_ptr<IoThread>>& threads() const;
  // What the user should know: io_uring refused and why, buffers not registered, … One sentence each.
  std::vector<std::string> notices() const;

 private:
  Host();
  struct State;
  std::unique_ptr<State> state_;
};

// Names of the registered volumes and drivers, for messages and for the conformance suites.
std::vector<std::string> volumeTypes();
std::vector<std::string> deviceDrivers();

}  // namespace sm
