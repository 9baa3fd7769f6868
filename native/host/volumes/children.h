// Children that carry a part of a parent's data, by clone or fresh.
//
// Thread contract: on the home I/O thread. Nothing here allocates after the constructor.
#pragma once

#include <stratamap/services.h>

#include <vector>

#include "options.h"

namespace sm {

// Zeroes `length` bytes of a read's buffers from byte `from`.
void fillZeroes(const iovec* iov, uint64_t from, uint64_t length);

class Children {
 public:
  Children(const sm_services* services, Issue issue);

  // A child that does `op` with `length` bytes of the parent's data from byte `from`; its offset is left to the caller.
  // A flush has no length. Null while there is none to be had.
  sm_request* make(const sm_request* parent, uint8_t op, uint64_t from, uint64_t length);
  // Gives back a child that has completed.
  void put(sm_request* child);

 private:
  struct Segments {
    iovec iov[SM_IOV_MAX];
  };
  sm_request* makeFresh(const sm_request* parent, uint8_t op, uint64_t from, uint64_t length);

  const sm_services* services_;
  const Issue issue_;
  std::vector<Segments> segments_;  // for fresh children; a clone has its own
  std::vector<uint32_t> unused_;    // of segments_
};

}  // namespace sm
