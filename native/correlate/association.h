// An association finds, from a request below, the context that was recorded for a request above. Each names its
// carrier: the property of a request that it needs to survive the volume.
//
// Thread contract: bind and release on the thread of the request above; find on the thread of the request below; for
// different requests at the same time. None may allocate or fail an I/O (rule 9).
#pragma once

#include <stratamap/request.h>

#include <cstdint>
#include <memory>
#include <span>

namespace sm {

class Association {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;           // no context
  static constexpr uint32_t kAmbiguous = UINT32_MAX - 1;  // more than one

  virtual ~Association() = default;
  // Before the request goes down. False: out of room, the request goes on unrecorded.
  virtual bool bind(uint32_t context, sm_request* above) = 0;
  virtual uint32_t find(const sm_request* below) const = 0;
  // At the completion of the request above, if it was bound; no child is found by it any more.
  virtual void release(uint32_t context, sm_request* above) = 0;
};

enum Correlation : uint8_t { kDescend = 1, kAscend = 2, kMeet = 4 };

struct AssociationSpec {
  const char* name;
  const char* carrier;
  uint8_t correlations;  // those that it allows
  std::unique_ptr<Association> (*make)(uint32_t capacity);
};

// The registry: one line for each association.
std::span<const AssociationSpec> associationRegistry();

std::unique_ptr<Association> makeSerialAssociation(uint32_t capacity);
std::unique_ptr<Association> makeTagAssociation(uint32_t capacity);

}  // namespace sm
