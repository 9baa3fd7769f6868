// The correlator: from what is seen above and below to what is mapped. rules_model.py states what it does as a program;
// the comments here name the rules.
//
// A context is what is kept of a request above, evidence what is kept of one below; evidence finds its owner, a
// context, by the association: when it is issued (`descend`), when it lands (`meet`), or when the owner completes
// (`ascend`; by content, reads always). Everything it taught is decided when its owner completes. Until its owner has
// been looked for it is pending, at most until the last request has completed that was in flight when it was issued.
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
//    completes, and made stale (once: `demoted`) then, or as soon as other evidence for these bytes turns up before;
//  - evidence stands in the list of pending ones, in the list of each owner that lives, or is still in flight.
#pragma once

#include <stratamap/services.h>

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "correlate/association.h"
#include "correlate/evidence.h"
#include "correlate/fetch_ahead.h"
#include "correlate/live_buffers.h"
#include "correlate/observed.h"
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
  // Seen, and nothing to be kept of it: it teaches nothing.
  static constexpr uint64_t kKnownRead = UINT64_MAX - 2;

  // `capacity`: contexts recorded at once; children that are pending at once. `slots`: requests followed at once,
  // recorded or not (at least `capacity`). `shadowBytes`: room for copies of what reads brought up.
  Correlator(const sm_stack* stack, AddressMap& map, const AssociationSpec& association, Correlation correlation,
             uint32_t capacity, uint32_t slots, uint64_t shadowBytes);
  ~Correlator();

  // --- the two points
  uint64_t submitted(sm_request* above, DiskKey disk);
  void completed(sm_request* above, DiskKey disk, uint64_t word);
  uint64_t issued(const sm_request* below, DeviceKey device);
  void landed(const sm_request* below, DeviceKey device, uint64_t word);
  // A completion will never be seen: rule 7 begins anew.
  void lost();
  void lostLocked();
  // Whose request a request below serves, as this request's association says (rule 11; `descend` alone). kNoKey:
  // nobody's that is known.
  DiskKey ownerOf(const sm_request* below) const;
  // Whether it ever names anyone.
  bool attributesAtIssue() const { return correlation_ == kDescend && !content_ && !hints_; }

  // --- the point below where it is the kernel's: instead of issued and landed. Under the map's lock, of the devices
  // that are observed; every I/O of a request has happened before its completion is told.
  void happened(const BlockIo& io);
  // The clock of these times, ns; not the stack's, which may be that of the last batch.
  static uint64_t clockNow();
  // Nothing that modifies the device and began before `time` (ns of CLOCK_MONOTONIC) is in flight any more.
  void quiet(DeviceKey device, uint64_t time);
  // Whether something waits for that.
  bool awaitsQuiet(DeviceKey device) const;
  HintAssociation* hints() const { return hints_; }
  // So many requests of the known priority began that nobody told of. Their bytes are counted at their completion.
  void countedKnown(DeviceKey device, uint64_t operations);
  // Where the kernel finds what is expected, so that it need not tell it; before the first request.
  void expectThrough(sm_expected_word* words) { observed_->words = words; }
  // Sampling: one is taken of a request that completes after a call of takeSample that returned false. What it says was
  // true all the time if holdsStill, once, after the places were read. All under the map's lock.
  bool takeSample(Sample* out);
  bool holdsStill(const Sample& sample);
  // From this device of the disk's chain on, top first, bytes are not what they were above, whoever's they are.
  void distrust(DiskKey disk, size_t level);

  // --- watching
  bool watchDisk(DiskKey disk);  // false: another probe watches it with this map
  bool watchDevice(DeviceKey device, bool shared);
  // Of a device that is watched: the kernel tells what happens there, from `since` on (ns).
  void observeDevice(DeviceKey device, uint64_t since);
  // The devices beneath a disk, top first.
  // of which the first `trusted` keep priorities and bytes.
  void followDisk(DiskKey disk, std::vector<DeviceKey> chain, size_t trusted);
  // Only what the map does not know for certain is tagged from now on, or has not seen for up to `maxAge` ns.
  void tagWhatIsUnknown(uint64_t maxAge);
  ObservedCounters observedCounters() const;
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
    bool watched = false, settled = false, left = false;
    uint64_t since = kNever;  // everything allocated before this stamp has to end before it is settled
    uint64_t inside = 0;
    uint64_t blind = 0;              // in flight without a slot: nothing that begins meanwhile teaches
    ActiveRanges* active = nullptr;  // the map's
  };
  struct DeviceState : Watched {
    bool shared = false;
    bool observed = false, quiet = false;  // what was in flight before observedSince has ended
    uint64_t observedSince = 0;            // ns
    DeviceLedger* ledger = nullptr;        // the map's
  };
  struct Found {
    Range virt;
    Place place;
  };

  // Times are for completion events alone.
  uint64_t now() const { return ring_ ? stack_->now(stack_) : 0; }
  static Range rangeOf(const sm_request* request) { return {request->offset, request->offset + request->length}; }

  // correlator.cc
  bool tryLearning();
  void enter(Watched* watched);

  // above.cc
  void taint(Taints* taints, Range part);
  void track(uint32_t slot, Context* context, ActiveRanges& active);
  void untrack(Context* context);
  void record(uint32_t slot, Context* context, sm_request* above);
  void enlist(uint32_t slot);
  void delist(uint32_t slot);

  // below.cc
  void modifies(DeviceKey device, Range phys, Evidence* own);
  void demote(Evidence* evidence);
  uint32_t takeEvidence(uint8_t op, Range phys, DeviceKey device);
  void enterActive(uint32_t slot, ActiveRanges& active);
  uint32_t enterEvidence(uint8_t op, Range phys, DeviceKey device);
  void disown(Evidence* evidence);
  void unmapDiscarded(Evidence* evidence);
  uint64_t issuedBlind(const sm_request* below, DeviceKey device);
  uint64_t issuedMalformed(const sm_request* below, DeviceKey device);
  bool mayFindOwner(const sm_request* below) const;
  bool isKnown(const Evidence& evidence, const Context& context) const;
  bool wholeBuffer(const sm_request* below, uint64_t* stamp) const;
  void keepCopy(const sm_request* below, Evidence* evidence, const Context* context);
  void makeRoom(uint64_t bytes);
  void dropCopy(Evidence* evidence);
  void dropEvidence(uint32_t slot);

  // owners.cc
  bool findOwners(const sm_request* below, uint32_t slot);
  void own(uint32_t slot, uint32_t contextSlot);
  std::span<const uint32_t> distinctCandidates();
  void ownByContent(uint32_t slot, uint32_t contextSlot, const std::byte* bytes);
  void locate(Evidence& evidence, const iovec* iov, uint32_t count, const Context& context);
  void count(const Evidence& evidence, Fate fate);
  const std::byte* bytesOf(const sm_request* below);
  void makePending(uint32_t slot);
  void endPending(uint32_t slot);
  void collectPending(uint32_t contextSlot);
  void collectByContent(uint32_t contextSlot);
  void expirePending();
  void expire(uint32_t slot);
  void readBeside(const Evidence& evidence);
  void release(uint32_t contextSlot);
  // f(slot, evidence, index of this owner), in the order of attribution; f may drop the evidence.
  template <class F>
  void eachEvidence(uint32_t contextSlot, F&& f) {
    for (uint32_t slot = contexts_[contextSlot].firstEvidence; slot != kNoSlot;) {
      Evidence& evidence = evidence_[slot];
      const int owner = evidence.ownerIndex(contextSlot);
      const uint32_t next = evidence.owners[owner].next;
      f(slot, evidence, owner);
      slot = next;
    }
  }

  // predict.cc
  uint64_t halfNow();
  Freshness& freshnessOf(DiskKey disk);
  bool knowsPlaces(DiskKey disk, Range virt);
  bool predict(Context* context, sm_request* above);
  bool predictRead(sm_request* above, DiskKey disk);
  void completedKnownRead(sm_request* above, DiskKey disk);
  void countKnownBytes(DiskKey disk, uint64_t bytes);
  bool expect(Context* context);
  bool endExpectations(Context* context, bool succeeded);
  bool isExpected(const BlockIo& io);
  void tellKernel(Observed::Expectation* expected);
  bool beganUntold(const Observed::Expectation& expected) const;
  void doubtExpected(DeviceKey device, Range phys);
  void settlePredicted(uint32_t slot, bool succeeded);

  // observed.cc
  void mustBeQuiet();
  void taintByStrays(Evidence* evidence);
  void taintByExpected(Evidence* evidence);
  void beginTrail(uint32_t slot);
  void issuedBy(const BlockIo& io, uint16_t tag);
  void passedOn(const BlockIo& io);
  void untagged(const BlockIo& io, bool merged);
  void strayed(const BlockIo& io, bool merged);
  void tookPlace(const BlockIo& io);
  void discarded(const BlockIo& io);

  // compose.cc
  void settleObserved(uint32_t slot, bool succeeded);
  void compose(uint32_t slot, const Observed::Trail& trail);
  void keepSample(uint32_t slot);
  bool startedOnce();
  bool issuedAsStarted(const Observed::Trail& trail, DeviceKey device);
  bool issuedInOrder(const Context& context, const Observed::Trail& trail, DeviceKey device);
  bool layPieces();

  // resolve.cc
  void resolve(uint32_t slot, bool succeeded);
  bool isConfirmed(const Context& context) const;
  void compareRead(const Context& context, Evidence* evidence);
  void collect(const Context& context, const Evidence& evidence, int owner);
  void applyModification(uint32_t slot, bool succeeded);
  void applyRead(const Context& context);
  void addFound(const Context& context, const Found& found);

  // report.cc
  void countUnmapped(uint32_t slot, bool succeeded);
  void report(uint32_t slot, int32_t status, uint64_t now);

  const sm_stack* const stack_;
  AddressMap& map_;
  const Correlation correlation_;
  const uint32_t capacity_;

  // --- guarded by map_.mutex()
  Slots<Context> contexts_;
  Slots<Evidence> evidence_;
  LiveBuffers buffers_;
  const std::unique_ptr<Association> association_;
  FetchAhead ahead_;
  HintAssociation* const hints_;                                // null but where the kernel is the carrier
  const std::unique_ptr<Observed> observed_;                    // likewise
  ContentIndex* const content_;                                 // null but where the payload is the carrier
  const bool mayPend_;                                          // evidence may have to wait for its owner
  uint64_t clock_ = 0;                                          // of stamps
  uint32_t oldest_ = kNoSlot, newest_ = kNoSlot;                // contexts in flight, by stamp, where evidence may wait
  uint32_t oldestPending_ = kNoSlot, newestPending_ = kNoSlot;  // evidence, by stamp
  uint32_t pendingCount_ = 0;
  std::vector<DeviceState> devices_;
  std::vector<Watched> disks_;
  uint32_t recorded_ = 0;    // contexts bound now
  uint64_t blindAbove_ = 0;  // requests above in flight without a slot
  uint64_t untracked_ = 0;   // of the others, those whose buffers are not among the live ones
  uint64_t shadowRoom_;
  bool learning_ = false, settling_ = false, lostBefore_ = false;
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
  std::vector<uint32_t> candidates_;
};

}  // namespace sm
