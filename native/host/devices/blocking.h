// One request carried out by system calls that block.
#pragma once

#include <stratamap/request.h>

#include <cstdint>

#include "devices/open.h"

namespace sm {

// kDeviceMaxTransfer bytes of a thread's own memory, aligned to 4 KiB: for buffers that the kernel does not take.
class Scratch {
 public:
  Scratch();  // std::bad_alloc
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data() const { return data_; }

 private:
  void* data_;
};

// Returns the request's status. From any thread that may block.
int32_t execute(const OpenFile& file, const sm_request& request, const Scratch& scratch);

}  // namespace sm
