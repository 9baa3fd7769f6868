// The probe: ties the two points of interception to one correlator. Above, a recording filter on each disk; below, an
// interposer in each device's dispatch table.
//
// Thread contract: create, the functions that add and remove, learning() and detach() from any thread that is not an
// I/O thread, one at a time (the owner serialises). What runs on I/O threads is in record_filter and correlator.
// A Probe must be detached before it is destroyed; what a request in flight may still reach is never freed.
#pragma once

#include <stratamap/services.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "correlate/observed.h"
#include "map/address_map.h"
#include "map/event_ring.h"

namespace sm {

class Correlator;
class Interposer;

struct ProbeOptions {
  std::string association = "serial";
  std::string correlation = "descend";
  uint32_t capacity = 65536;           // contexts in flight, and pieces of evidence; 64 … 2^22
  uint32_t slots = 65536;              // requests followed at once, recorded or not; at least `capacity`
  uint64_t shadowBytes = 16ull << 20;  // room for copies of what reads brought up, until it is compared
  // Of `hint`: the image file of a disk, empty where it has none (then the probe does not see the disk); and the levels
  // of the best-effort class whose hints are used.
  std::function<std::string(const sm_disk*)> fileOf;
  std::vector<uint16_t> levels{4};
  // Of `hint`: only what the map does not know for certain, or has not seen for so long (ns), is tagged; 0: everything.
  uint64_t maxAge = 0;
};

struct ProbeCounters {
  uint64_t recorded = 0;       // requests above, with a context
  uint64_t unrecorded = 0;     // requests above that went on without one (rule 9)
  uint64_t evidenceLost = 0;   // requests below for which there was no room
  uint64_t taintOverflow = 0;  // requests given up whole because too many parts of them were in doubt
  uint64_t losses = 0;         // events that were never seen: rule 7 began anew
  ObservedCounters observed;   // of `hint`
};

class Probe {
 public:
  // Returns 0, or -ENOTSUP / -EINVAL with `why`.
  static int create(const sm_stack* stack, std::shared_ptr<AddressMap> map, const ProbeOptions& options,
                    std::unique_ptr<Probe>* out, std::string* why);
  ~Probe();

  // 0, -EEXIST, -ENOSPC. Disks and devices that are opened later are added later. A disk that is added has been out of
  // sight: its mappings are stale. So are a device's, and a device that is shared never has any that are not.
  int addDisk(sm_disk* disk);
  int addDevice(sm_device* device);
  // Before a disk or device is closed: 0, or -ETIMEDOUT (passing through from now on, but something is inside).
  int removeDisk(sm_disk* disk, uint64_t timeout);
  int removeDevice(sm_device* device, uint64_t timeout);
  // A disk was deleted or resized: what it no longer has is unmapped.
  void forget(const DiskName& disk, uint64_t fromOffset);

  // Once all is added: everything in flight now has to end before learning starts (rule 7).
  void begin();
  bool learning();

  // Completion events go into `ring` from now on (null: no more). `wake(context)` is called on an I/O thread when the
  // ring was armed. The ring must live until subscribe(nullptr, …) or detach has returned.
  void subscribe(EventRing* ring, void (*wake)(void* context), void* context);

  ProbeCounters counters() const;
  // What the user should know, one sentence each: that some disk or device is not mapped, and why.
  std::vector<std::string> notices() const;

  // For policies (rule 11). The probe's interposer of a device, null where it has none.
  Interposer* on(const sm_device* device) const;
  // Whose a request below is, to be asked as long as the pointer lives; after detach: nobody's. Null where requests
  // below are not attributed one by one when they are issued: correlated by other than `descend`, or by content.
  std::shared_ptr<const Correlator> owners() const;
  DiskKey keyOf(const DiskName& disk);

  // Takes both points out, with I/O in flight, and makes every mapping stale (rule 7). Returns 0, or -ETIMEDOUT: taken
  // out, passing through, but something is still inside after `timeout` ns.
  int detach(uint64_t timeout);

 private:
  Probe() = default;
  struct State;
  std::shared_ptr<State> state_;
};

// The registered associations and correlations, for messages, types and the conformance suites.
struct AssociationInfo {
  std::string name, carrier;
  std::vector<std::string> correlations;
  bool kernel = false;  // through the kernel's stack, beneath this process
};
std::vector<AssociationInfo> associations();

}  // namespace sm
