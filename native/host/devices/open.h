// What the drivers of real media share: opening exclusively, and what follows from the medium.
#pragma once

#include <cstdint>

#include "devices/check.h"
#include "devices/device.h"

namespace sm {

// A descriptor that is closed at the end.
class OwnedFd {
 public:
  explicit OwnedFd(int fd) : fd_(fd) {}
  ~OwnedFd();
  OwnedFd(const OwnedFd&) = delete;
  OwnedFd& operator=(const OwnedFd&) = delete;

 private:
  const int fd_;
};

// An open file, and what I/O on it has to respect. A value; the device that uses it owns the descriptor.
struct OpenFile {
  int fd = -1;
  bool blockDevice = false;
  bool inMemory = false;    // of tmpfs: reading and writing is copying, and never waits for a medium
  uint64_t memoryMask = 0;  // bits that must be clear in a buffer's address
  uint64_t lengthMask = 0;  // and in a segment's length

  // Whether the kernel takes the request's buffers as they are.
  bool aligned(const sm_request& request) const {
    uint64_t address = 0, length = 0;
    for (uint32_t i = 0; i < request.iov_count; ++i) {
      address |= reinterpret_cast<uintptr_t>(request.iov[i].iov_base);
      length |= request.iov[i].iov_len;
    }
    return ((address & memoryMask) | (length & lengthMask)) == 0;
  }
};

// See openDevice. Fills in `facts` but for the driver.
Failure openFile(const DeviceSpec& spec, OpenFile* file, DeviceFacts* facts);

}  // namespace sm
