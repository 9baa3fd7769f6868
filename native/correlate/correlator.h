// The correlator: from what is seen above and below to what is mapped. rules_model.py states what it does as a program;
// the comments here name the rules.
//
// Correlation `descend`: a context is recorded above, a request below is looked up on its way down, and everything it
// taught is decided when the request above completes.
//
// Thread contract: submitted, completed, issued and landed on any I/O thread; each takes the map's lock once. The rest
// from any thread. A request is known from submitted to completed by the word that submitted gave; one below likewise
// from issued to landed.
//
// Invariants, under the lock:
//  - a range of a disk that a modification in flight is about stands in the disk's active ranges, as does that of every
//    read in flight; a range of a device stands in the device's for as long as it is evidence of a live context, and at
//    least as long as a modification of it is in flight;
//  - what a context or a piece of evidence may not teach is in its taints; nothing is ever taken out of them;
//  - an old mapping of a range that a child modifies is in doubt by the active ranges until the child's parent
//  completes,
//    and made stale (once: `demoted`) then, or as soon as other evidence for these bytes turns up before.
#pragma once

#include <stratamap/services.h>

#include <atomic>
#include <memory>
#include <vector>

#include "correlate/association.h"
#include "correlate/evidence.h"
#include "map/address_map.h"
#include "map/event_ring.h"

namespace sm {

struct CorrelatorCounters {
  uint64_t recorded = 0, unrecorded = 0, evidenceLost = 0, taintOverflow = 0, losses = 0;
};

class Correlator {
 public:
  // No frame is needed, or none can help: the request goes on unseen.
  static constexpr uint64_t kUnseen = UINT64_MAX;
  // Seen, but without a slot.
  static constexpr uint64_t kBlind = UINT64_MAX - 1;

  // `capacity`: contexts recorded at once. `slots`: requests followed at once, recorded or not (at least `capacity`).
  // `shadowBytes`: room for copies of what reads brought up.
  Correlator(const sm_stack* stack, AddressMap& map, const AssociationSpec& association, uint32_t capacity,
             uint32_t slots, uint64_t shadowBytes);
  ~Correlator();

  // --- the two points
  uint64_t submitted(sm_request* above, DiskKey disk);
  void completed(sm_request* above, DiskKey disk, uint64_t word);
  uint64_t issued(const sm_request* below, DeviceKey device);
  void landed(const sm_request* below, DeviceKey device, uint64_t word);
  // A completion will never be seen: rule 7 begins anew.
  void lost();

  // --- watching
  bool watchDisk(DiskKey disk);  // false: another probe watches it with this map
  bool watchDevice(DeviceKey device, bool shared);
  // All that is watched is seen from `stamp` on: of what was added last nothing is learned until what was in flight
  // before has ended.
  void entered(uint64_t stamp);
  // Before the end: all its mappings are stale from now on, whatever is still seen.
  void leaveDisk(DiskKey disk);
  void leaveDevice(DeviceKey device);
  // The end. What is in flight all the same is adrift: it changes nothing any more.
  void unwatchDisk(DiskKey disk);
  void unwatchDevice(DeviceKey device);
  // Learning starts when what was in flight before `stamp` has ended.
  void settle(uint64_t stamp);
  bool learning();
  void subscribe(EventRing* ring, void (*wake)(void*), void* context);
  CorrelatorCounters counters() const;
  // Requests that were seen on their way down and not yet on their way up.
  uint64_t insideDisk(DiskKey disk) const;
  uint64_t insideDevice(DeviceKey device) const;

 private:
  // Rule 7 for one disk or device.
  struct Watched {
    static constexpr uint64_t kNever = 0;
    bool watched = false, settled = false;
    uint64_t since = kNever;  // everything allocated before this stamp has to end before it is settled
    uint64_t inside = 0;
  };
  struct DeviceState : Watched {
    bool shared = false;
    uint64_t blind = 0;  // modifications in flight without a slot: nothing issued meanwhile teaches
  };
  struct Found {
    Range virt;
    Place place;
  };

  static Range rangeOf(const sm_request* request) { return {request->offset, request->offset + request->length}; }

  // correlator.cc
  bool tryLearning();
  void enter(Watched* watched);
  void lostLocked();

  // above.cc
  void taint(Taints* taints, Range part);
  void track(uint32_t slot, Context* context);
  void untrack(Context* context);

  // below.cc
  void modifies(DeviceKey device, Range phys, Evidence* own);
  void demote(Evidence* evidence);
  uint32_t takeEvidence(const sm_request* below, DeviceKey device, uint32_t context);
  void locate(const sm_request* below, const Context& context, Evidence* evidence);
  void keepCopy(const sm_request* below, const Context& context, Evidence* evidence);
  void dropEvidence(uint32_t slot);

  // resolve.cc
  void resolve(Context* context, bool succeeded);
  void compareRead(const Context& context, Evidence* evidence);
  void collect(const Context& context, const Evidence& evidence);
  void applyModification(Context* context, bool succeeded);
  void applyRead(const Context& context);
  void countUnmapped(const Context& context, bool succeeded);
  void report(const Context& context, int32_t status, uint64_t now);

  const sm_stack* const stack_;
  AddressMap& map_;
  const std::unique_ptr<Association> association_;
  const uint32_t capacity_;

  // --- guarded by map_.mutex()
  Slots<Context> contexts_;
  Slots<Evidence> evidence_;
  ActiveRanges buffers_;  // the memory of every live request above
  std::vector<DeviceState> devices_;
  std::vector<Watched> disks_;
  uint32_t recorded_ = 0;    // contexts bound now
  uint64_t blindAbove_ = 0;  // requests above in flight without a slot
  uint64_t shadowRoom_;
  bool learning_ = false, settling_ = false;
  bool unsettled_ = false;  // a disk or device is not settled
  uint64_t settleStamp_ = 0, settleTick_ = 0;
  CorrelatorCounters counters_;
  EventRing* ring_ = nullptr;
  void (*wake_)(void*) = nullptr;
  void* wakeContext_ = nullptr;
  // Scratch, kept so that nothing is allocated in the steady state.
  std::vector<Found> found_;
  std::vector<Range> clean_, cleanVirt_;
  std::vector<std::byte> gathered_;
};

}  // namespace sm
