// Loop devices by ioctl (LOOP_CONFIGURE, LOOP_CLR_FD; Linux Documentation/admin-guide/… and <linux/loop.h>), never by
// running a program.
#pragma once

#include <cstdint>
#include <string>

namespace sm {

struct LoopOptions {
  std::string file;
  bool directIo = true;
  bool readOnly = false;
  bool autoclear = false;    // the kernel detaches it when its last user closes it
  uint32_t blockSize = 512;  // bytes; 512…page size, a power of two
};

struct LoopDevice {
  std::string path;  // "/dev/loop7"
  int number = -1;
  bool directIo = false;  // whether the kernel granted it
  int fd = -1;            // held open where autoclear is set, so that it lives until detach; -1 else
  uint64_t backingDevice = 0, backingInode = 0;  // of the file: the device may be another's when it is to be detached
};

// Returns 0 or a negative errno; `what` then says which step failed and what to do.
int loopAttach(const LoopOptions& options, LoopDevice* out, std::string* what);
// Waits until the device is free again. -EBUSY while someone has it open; -ENXIO where someone else has detached it
// already. Detaching again does nothing.
int loopDetach(LoopDevice* device, std::string* what);

}  // namespace sm
