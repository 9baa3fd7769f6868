// What a tool that attaches to a running host gets: sm_stack.
//
// Thread contract: as sm_stack says, entry by entry.
#pragma once

#include <stratamap/services.h>

#include <memory>
#include <vector>

#include "engine/io_thread.h"
#include "host/disk_registry.h"

namespace sm {

class Stack {
 public:
  Stack(const std::vector<std::unique_ptr<IoThread>>& threads, HostClock& clock, DiskRegistry& disks);
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  const sm_stack* table() const { return &table_; }

 private:
  static const Stack& of(const sm_stack* table);
  int32_t everywhere(void (*run)(void*), void* context, uint64_t timeout) const;

  sm_stack table_;  // first: found from it
  const std::vector<std::unique_ptr<IoThread>>& threads_;
  HostClock& clock_;
  DiskRegistry& disks_;
};

}  // namespace sm
