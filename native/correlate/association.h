// An association finds, for a request below, the context of the request above that it serves. Each names its carrier:
// the property of a request that it needs to survive the volume.
//
// There are three ways to correlate. `descend`: the context is recorded above and looked up when the child is issued.
// `meet`: the same, but looked up when the child lands. `ascend`: nothing is recorded above; the child's key is kept,
// and the parent's completion collects the children that carry its own.
//
// Thread contract: called under the map's lock, but find of those that a clone carries, which may run at any time
// beside the others. None may fail an I/O (rule 9).
#pragma once

#include <stratamap/request.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace sm {

struct Context;
struct Evidence;
class LiveBuffers;
class ContentIndex;
class HintAssociation;

class Association {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;           // no context
  static constexpr uint32_t kAmbiguous = UINT32_MAX - 1;  // more than one
  static constexpr uint64_t kNoKey = 0;

  virtual ~Association() = default;

  // Puts the carrier into the request above where it does not have it by itself. False: it could not, and the request
  // goes on unrecorded. unmark leaves the request as it was.
  virtual bool mark(uint32_t /*context*/, const Context&, sm_request* /*above*/) { return true; }
  virtual void unmark(uint32_t /*context*/, sm_request* /*above*/) {}

  // Enters the context, marked before, so that find finds it, until forget. False: out of room.
  virtual bool record(uint32_t context, const sm_request* above) = 0;
  virtual void forget(uint32_t context, const sm_request* above) = 0;
  virtual uint32_t find(const sm_request* below) const = 0;

  // What a child and its parent have in common, and no other request ever has; kNoKey: it carries nothing.
  virtual uint64_t key(const sm_request* request) const = 0;
  // For `ascend`: whether a child, by what was kept of it, carries what the context of a marked request has.
  virtual bool carries(const Evidence& below, const Context& above) const;
  // Whether a context teaches nothing once its buffer has been another live request's as well.
  virtual bool needsOwnBuffer() const { return false; }
  // Null but where the payload is the carrier: then a child may have several owners, and a read is looked up when its
  // parent completes, whatever the correlation.
  virtual ContentIndex* content() { return nullptr; }
  // Null but where the kernel is the carrier: then what happens below is told by its block layer (observed.h).
  virtual HintAssociation* hints() { return nullptr; }
};

enum Correlation : uint8_t { kDescend = 1, kAscend = 2, kMeet = 4 };
inline constexpr uint8_t kEveryCorrelation = kDescend | kAscend | kMeet;
inline constexpr Correlation kCorrelations[] = {kDescend, kAscend, kMeet};
std::string_view correlationName(Correlation correlation);

struct AssociationSpec {
  const char* name;
  const char* carrier;
  uint8_t correlations;  // those that it allows
  std::unique_ptr<Association> (*make)(uint32_t capacity, const LiveBuffers& buffers);
  bool kernel = false;  // through the kernel's stack, beneath this process
};

// The registry: one line for each association.
std::span<const AssociationSpec> associationRegistry();

}  // namespace sm
