// The point below, where it is the kernel's: what its block layer tells, as it happens (observed.h).
#include "correlate/observed.h"

#include <algorithm>
#include <ctime>

#include "correlate/correlator.h"
#include "correlate/hint.h"

namespace sm {

void Correlator::followDisk(DiskKey disk, std::vector<DeviceKey> chain, size_t trusted) {
  std::lock_guard lock(map_.mutex());
  auto& chains = observed_->chains;
  if (chains.size() <= disk) chains.resize(disk + 1);
  chains[disk] = {std::move(chain), trusted};
}

void Correlator::observeDevice(DeviceKey device, uint64_t since) {
  std::lock_guard lock(map_.mutex());
  DeviceState& state = devices_[device];
  state.observed = true;
  state.quiet = state.settled = false;
  state.observedSince = since;
  state.since = Watched::kNever;  // until entered
  if (observed_->strays.size() > device) return;
  observed_->strays.resize(device + 1);
  observed_->expected.resize(device + 1);
}

ObservedCounters Correlator::observedCounters() const {
  std::lock_guard lock(map_.mutex());
  return observed_ ? observed_->counters : ObservedCounters{};
}

// Rule 7, where nobody tells what else is in flight: of what had started before `time`, nothing is any more.
void Correlator::quiet(DeviceKey device, uint64_t time) {
  Observed::Strays& strays = observed_->strays[device];
  DeviceState& state = devices_[device];
  if (!state.quiet && time >= state.observedSince) {
    state.quiet = true;
    tryLearning();
  }
  if (strays.last <= time) strays.everywhere = false;
  clean_.clear();
  strays.ranges.each({0, UINT64_MAX}, [&](Range part, const Observed::Tick& since) {
    if (since.tick < Observed::Tick::of(time).tick) clean_.push_back(part);
  });
  for (Range part : clean_) strays.ranges.erase(part);
}

bool Correlator::awaitsQuiet(DeviceKey device) const {
  const Observed::Strays& strays = observed_->strays[device];
  return !devices_[device].quiet || strays.everywhere || strays.ranges.size() > 0;
}

bool Correlator::takeSample(Sample* out) {
  Sample& sample = observed_->sample;
  if (!sample.taken) {
    sample.wanted = Sample::kWindow;
    return false;
  }
  *out = sample;
  return true;
}

bool Correlator::holdsStill(const Sample& sample) {
  const bool still = observed_->sample.taken && observed_->sample.number == sample.number;
  if (still) observed_->sample.taken = false;
  return still;
}

void Correlator::distrust(DiskKey disk, size_t level) {
  const DeviceKey from = observed_->chains[disk].devices[level];
  for (Observed::Chain& chain : observed_->chains) {
    const auto found = std::find(chain.devices.begin(), chain.devices.end(), from);
    if (found == chain.devices.end()) continue;
    for (auto device = found; device != chain.devices.end(); ++device) map_.staleDevice(*device);
    chain.trusted = std::min(chain.trusted, static_cast<size_t>(found - chain.devices.begin()));
  }
}

uint64_t Correlator::clockNow() {
  timespec clock;
  clock_gettime(CLOCK_MONOTONIC, &clock);
  return uint64_t(clock.tv_sec) * 1'000'000'000 + uint64_t(clock.tv_nsec);
}

// What has not been told may be in flight still.
void Correlator::mustBeQuiet() {
  const uint64_t since = clockNow();
  observed_->sample.taken = false;
  for (DeviceState& device : devices_) {
    if (!device.watched || !device.observed) continue;
    device.quiet = device.settled = false;
    device.observedSince = since;
    device.since = settleStamp_;
    unsettled_ = true;
  }
}

void Correlator::beginTrail(uint32_t slot) {
  Observed& seen = *observed_;
  const uint16_t tag = hints_->tagFor(slot);
  if (seen.trails.empty()) {
    seen.trails.resize(HintAssociation::kTags);
    seen.trailNumbers.resize(HintAssociation::kTags);
  }
  seen.trails[tag].clear();
  seen.trailNumbers[tag] = ++seen.trailCount;
}

void Correlator::happened(const BlockIo& io) {
  DeviceState& state = devices_[io.device];
  if (!state.watched) return;
  if (io.kind == BlockIo::kQueue) return discarded(io);
  passedOn(io);
  const bool merged = io.kind == BlockIo::kBackMerge || io.kind == BlockIo::kFrontMerge;
  const uint32_t owner = hints_->contextOf(io.ioprio);
  const bool known = owner != Association::kNone && contexts_[owner].live;
  if (io.kind == BlockIo::kIssue) {
    if (known) issuedBy(io, hints_->tagFor(owner));
    return;
  }
  if (io.op == SM_OP_FLUSH || io.phys.empty()) return state.ledger->fates[static_cast<int>(Fate::kControl)].add(0);
  if (!known) return untagged(io, merged);
  const uint32_t slot = enterEvidence(io.op, io.phys, io.device);
  state.ledger->fates[static_cast<int>(Fate::kAttributed)].add(io.phys.length(), merged ? 0 : 1);
  if (slot == kNoSlot) {
    contexts_[owner].lostEvidence = true;
    ++counters_.evidenceLost;
    if (sm_op_modifies(io.op)) tookPlace(io);
    return;
  }
  Evidence& evidence = evidence_[slot];
  taintByStrays(&evidence);
  taintByExpected(&evidence);
  if (sm_op_modifies(io.op)) {
    doubtExpected(io.device, io.phys);
    observed_->sample.modifiedPlace(io.device, io.phys);
  }
  own(slot, owner);
  if (io.op == contexts_[owner].op) {
    observed_->trails[hints_->tagFor(owner)].push_back({io.time, io.phys, io.device, slot, io.thread});
  } else {
    evidence.unfit = true;
    ++observed_->counters.foreign;
  }
}

void Correlator::issuedBy(const BlockIo& io, uint16_t tag) {
  Observed::Trail& trail = observed_->trails[tag];
  observed_->lastIssues[io.thread % Observed::kThreads] = {io.thread, tag, static_cast<uint32_t>(trail.size()),
                                                           observed_->trailNumbers[tag]};
  trail.push_back({io.time, io.phys, io.device, kNoSlot, io.thread});
}

// Whatever the thread does now, it has handed over what it issued before.
void Correlator::passedOn(const BlockIo& io) {
  Observed& seen = *observed_;
  Observed::LastIssue& last = seen.lastIssues[io.thread % Observed::kThreads];
  if (last.trail == 0 || last.thread != io.thread) return;
  if (seen.trailNumbers[last.tag] == last.trail) seen.trails[last.tag][last.step].passed = io.time;
  last.trail = 0;
}

// Of a request that the map knows all about, or nobody's.
void Correlator::untagged(const BlockIo& io, bool merged) {
  if (io.op == SM_OP_WRITE && io.ioprio == hints_->knownPriority()) {
    if (isExpected(io)) {
      devices_[io.device].ledger->fates[static_cast<int>(Fate::kAttributed)].add(io.phys.length(), merged ? 0 : 1);
      return;
    }
    doubtExpected(io.device, {0, UINT64_MAX});
  }
  strayed(io, merged);
}

// Nobody's that is known (rules 4 and 5).
void Correlator::strayed(const BlockIo& io, bool merged) {
  devices_[io.device].ledger->fates[static_cast<int>(Fate::kUnattributed)].add(io.phys.length(), merged ? 0 : 1);
  if (!sm_op_modifies(io.op)) {
    if (io.ioprio != hints_->ownPriority()) map_.moving(io.device, io.phys);
    return;
  }
  if (io.op == SM_OP_DISCARD) map_.removePhysical(io.device, io.phys);
  tookPlace(io);
}

void Correlator::taintByStrays(Evidence* evidence) {
  const Observed::Strays& strays = observed_->strays[evidence->device];
  if (strays.everywhere) evidence->unfit = true;
  strays.ranges.each(evidence->phys, [&](Range part, const Observed::Tick&) { taint(&evidence->taints, part); });
}

// A write that is known has no evidence either, and nobody may tell when it begins.
void Correlator::taintByExpected(Evidence* evidence) {
  observed_->expected[evidence->device].overlapping(
      evidence->phys, [&](ActiveRanges::Ref, Range common) { taint(&evidence->taints, common); });
}

void Correlator::discarded(const BlockIo& io) {
  map_.removePhysical(io.device, io.phys);
  tookPlace(io);
}

// A modification that has no evidence: it takes from all others what they would teach, until it has ended.
void Correlator::tookPlace(const BlockIo& io) {
  observed_->sample.modifiedPlace(io.device, io.phys);
  map_.stalePhysical(io.device, io.phys);
  modifies(io.device, io.phys, nullptr);
  doubtExpected(io.device, io.phys);
  Observed::Strays& strays = observed_->strays[io.device];
  strays.last = std::max(strays.last, io.time);
  if (strays.everywhere) return;
  // Records of several CPUs may come a little late: the later of two counts.
  uint64_t tick = Observed::Tick::of(io.time).tick;
  strays.ranges.each(io.phys, [&](Range, const Observed::Tick& since) { tick = std::max(tick, since.tick); });
  strays.ranges.assign(io.phys, {tick});
  if (strays.ranges.size() <= Observed::kMostStrays) return;
  strays.everywhere = true;
  strays.ranges.erase({0, UINT64_MAX});
  devices_[io.device].active->overlapping(
      {0, UINT64_MAX}, [&](ActiveRanges::Ref ref, Range) { evidence_[ref & ActiveRanges::kSlot].unfit = true; });
}

}  // namespace sm
