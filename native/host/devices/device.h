// A physical device that is open: its contract (the dispatch table through which everyone calls it), and what is known
// about it.
//
// Thread contract: openDevice and ~Device from any thread but an I/O thread (both visit the I/O threads by
// IoThread::call); contract() from anywhere. Requests are submitted on I/O threads that were passed to openDevice, and
// complete on the thread that submitted them.
#pragma once

#include <stratamap/device.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/failure.h"
#include "engine/io_thread.h"

namespace sm {

struct DeviceSpec {
  std::string name, path;        // of nbd: its URI
  std::string driver = "uring";  // one of deviceDriverNames()
  bool shared = false, readOnly = false;
  uint64_t bytes = 0;   // for null: its size
  bool direct = true;   // O_DIRECT where possible
  std::string journal;  // for recording: the file that is made for it; `path`.journal where none is given
};

struct DeviceFacts {
  std::string name, path, driver;  // the driver that serves, which may not be the one asked for
  uint64_t bytes = 0;
  uint32_t blockSize = 0;
  uint32_t maxTransfer = 1 << 20;  // bytes
  bool direct = false, shared = false, readOnly = false, discard = false;
  bool discardZeroes = false;        // what was discarded reads as zeroes
  std::string journal;               // of recording: its path
  std::vector<std::string> notices;  // what the user should know, one sentence each: no O_DIRECT, …
};

class Device {
 public:
  virtual ~Device() = default;  // no request is in flight; the threads still run
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  sm_device* contract() { return &contract_; }  // stable address; `id` is unique in the process, `bytes` never changes
  const DeviceFacts& facts() const { return facts_; }

 protected:
  Device() = default;
  // Fills in the contract from the facts, which are final then.
  void publish(const sm_device_ops* ops);

  sm_device contract_{};
  DeviceFacts facts_;
};

// Opens `spec.path` with `spec.driver` for use on `threads`, which must outlive the device. Errors, layer "device":
// ENOENT, EACCES and what else open(2) says; ENOTBLK ERR_STRATAMAP_NOT_A_DEVICE; EBUSY ERR_STRATAMAP_BUSY (someone has
// it); EAGAIN (no more threads); EINVAL ERR_STRATAMAP_DRIVER (no such driver), ERR_STRATAMAP_SIZE (null without a size,
// an empty file), ERR_STRATAMAP_JOURNAL (a block device without a path for its journal), ERR_STRATAMAP_URI (none of
// NBD); EEXIST (there is a journal); of nbd also what connect(2) says, ENOSYS (no io_uring), EACCES, EPROTO and
// ETIMEDOUT (by the server).
Failure openDevice(const DeviceSpec& spec, const std::vector<IoThread*>& threads, std::unique_ptr<Device>* out);

// Says that what is asked for cannot be opened, and what was found. `error`, `code`: see `failed`.
Failure openFailure(const DeviceSpec& spec, int error, const char* code, const std::string& found);

std::vector<std::string> deviceDriverNames();

}  // namespace sm
