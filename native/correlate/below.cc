// The point below: requests to a device, from issue to landing.
#include <algorithm>
#include <new>

#include "correlate/content_index.h"
#include "correlate/correlator.h"
#include "correlate/seeded_bugs.h"

namespace sm {

// Rule 4: a modification of `phys` takes from all that is in flight what it would teach of these bytes; and the other
// way round, where the other is a modification in flight.
void Correlator::modifies(DeviceKey device, Range phys, Evidence* own) {
  devices_[device].active->overlapping(phys, [&](ActiveRanges::Ref ref, Range common) {
    Evidence& other = evidence_[ref & ActiveRanges::kSlot];
    taint(&other.taints, common);
    if (!(ref & ActiveRanges::kModifies)) return;
    demote(&other);
    if (!own) return;
    demote(own);
    if (ref & ActiveRanges::kInFlight) taint(&own->taints, common);
  });
}

void Correlator::demote(Evidence* evidence) {
  if (evidence->demoted || evidence->adrift) return;
  evidence->demoted = true;
  map_.stalePhysical(evidence->device, evidence->phys);
  if (evidence->done) devices_[evidence->device].active->decided(evidence->position);
}

namespace {

// Whether a request has a range, and segments that add up to it: a driver checks that only after us.
bool wellFormed(const sm_request* below) {
  if (below->length == 0 || below->length > UINT64_MAX - below->offset) return false;
  if (below->op != SM_OP_READ && below->op != SM_OP_WRITE) return sm_op_modifies(below->op) && below->iov_count == 0;
  if (!below->iov || below->iov_count > SM_IOV_MAX) return false;
  uint64_t left = below->length;
  for (uint32_t i = 0; i < below->iov_count; ++i) {
    if (below->iov[i].iov_len > left) return false;
    left -= below->iov[i].iov_len;
  }
  return left == 0;
}

}  // namespace

[[gnu::always_inline]] inline uint32_t Correlator::takeEvidence(uint8_t op, Range phys, DeviceKey device) {
  const uint32_t slot = evidence_.take();
  if (slot == kNoSlot) return kNoSlot;
  Evidence& evidence = evidence_[slot];
  evidence.op = op;
  evidence.done = evidence.ok = evidence.located = evidence.demoted = evidence.adrift = false;
  evidence.pending = evidence.ambiguous = false;
  evidence.unfit = devices_[device].blind > 0 || !devices_[device].settled;
  evidence.pieceCount = evidence.ownerCount = evidence.liveOwners = evidence.memoryCount = 0;
  evidence.device = device;
  evidence.stamp = ++clock_;
  evidence.issuedAt = now();
  evidence.landedAt = 0;
  evidence.phys = phys;
  evidence.taints.clear();
  return slot;
}

// Stands in the device's active ranges from now on; what overlaps it there is tainted, and taints it (rules 4 and 5).
[[gnu::always_inline]] inline void Correlator::enterActive(uint32_t slot, ActiveRanges& active) {
  Evidence& evidence = evidence_[slot];
  if (sm_op_modifies(evidence.op)) {
    modifies(evidence.device, evidence.phys, &evidence);
    evidence.position = active.add(evidence.phys, slot | ActiveRanges::kModifies | ActiveRanges::kInFlight);
  } else {
    active.doubtful(evidence.phys, [&](ActiveRanges::Ref ref, Range common) {
      if (ref & ActiveRanges::kInFlight) taint(&evidence.taints, common);
    });
    evidence.position = active.add(evidence.phys, slot);
  }
}

// The same for what the kernel tells: or kNoSlot.
uint32_t Correlator::enterEvidence(uint8_t op, Range phys, DeviceKey device) {
  const uint32_t slot = takeEvidence(op, phys, device);
  if (slot != kNoSlot) enterActive(slot, *devices_[device].active);
  return slot;
}

// What nobody above is known to have asked for (rules 4 and 5).
void Correlator::disown(Evidence* evidence) {
  count(*evidence, evidence->ambiguous ? Fate::kAmbiguous : Fate::kUnattributed);
  if (evidence->adrift) return;
  if (!sm_op_modifies(evidence->op)) {
    // Something read it, perhaps to move it. Of one issued a while ago: what was modified since was not read by it.
    clean_.assign(1, evidence->phys);
    if (evidence->stamp != clock_) {
      clean_.clear();
      evidence->taints.clean(evidence->phys, &clean_);
    }
    for (Range range : clean_) map_.moving(evidence->device, range);
  } else if (seeded(Bug::kNoStale)) {
    evidence->demoted = true;
  } else {
    demote(evidence);
  }
}

// What a discard leaves behind is undefined: where it is not known to be a guest's, nothing is there any more.
void Correlator::unmapDiscarded(Evidence* evidence) {
  if (evidence->op != SM_OP_DISCARD) return;
  map_.removePhysical(evidence->device, evidence->phys);
  evidence->demoted = true;
}

uint64_t Correlator::issued(const sm_request* below, DeviceKey device) {
  std::lock_guard lock(map_.mutex());
  DeviceState& state = devices_[device];
  if (!state.watched) return kUnseen;
  if (below->op == SM_OP_FLUSH) {
    devices_[device].ledger->fates[static_cast<int>(Fate::kControl)].add(0);
    return kUnseen;
  }
  if (!wellFormed(below)) return issuedMalformed(below, device);
  const bool modification = sm_op_modifies(below->op);
  const uint32_t slot = takeEvidence(below->op, rangeOf(below), device);
  if (slot == kNoSlot) return issuedBlind(below, device);

  Evidence& evidence = evidence_[slot];
  enterActive(slot, *state.active);

  const bool later = correlation_ != kDescend || (content_ && below->op == SM_OP_READ);
  if (later && mayFindOwner(below)) {
    makePending(slot);
    unmapDiscarded(&evidence);
    evidence.unfit |= !wholeBuffer(below, &evidence.bufferOf);
    if (correlation_ == kAscend) {
      evidence.key = association_->key(below);
      evidence.keepMemory(below->iov, below->iov_count);
    }
  } else if (later || !findOwners(below, slot)) {
    unmapDiscarded(&evidence);
    disown(&evidence);
    if (!modification) {
      dropEvidence(slot);
      return kUnseen;
    }
  }
  ++state.inside;
  return slot;
}

// Nothing of it is looked at: a driver refuses it, or does nothing.
uint64_t Correlator::issuedMalformed(const sm_request* below, DeviceKey device) {
  devices_[device].ledger->fates[static_cast<int>(Fate::kUnattributed)].add(below->length);
  if (sm_op_modifies(below->op)) {
    const uint64_t end = below->length > UINT64_MAX - below->offset ? UINT64_MAX : below->offset + below->length;
    map_.stalePhysical(device, {below->offset, end});
  }
  return kUnseen;
}

// Rule 9: it goes on without a slot.
uint64_t Correlator::issuedBlind(const sm_request* below, DeviceKey device) {
  DeviceState& state = devices_[device];
  const Range phys = rangeOf(below);
  const uint32_t owner = association_->find(below);
  const bool attributed = correlation_ == kDescend && owner < Association::kAmbiguous && contexts_[owner].live;
  const Fate fate = owner == Association::kAmbiguous ? Fate::kAmbiguous
                    : attributed                     ? Fate::kAttributed
                                                     : Fate::kUnattributed;
  devices_[device].ledger->fates[static_cast<int>(fate)].add(below->length);
  if (attributed) {
    contexts_[owner].lostEvidence = true;
    ++counters_.evidenceLost;
  }
  if (!sm_op_modifies(below->op)) {
    if (!attributed) map_.moving(device, phys);
    return kUnseen;
  }
  if (!attributed && below->op == SM_OP_DISCARD) map_.removePhysical(device, phys);
  map_.stalePhysical(device, phys);
  modifies(device, phys, nullptr);
  ++state.blind;
  ++state.inside;
  return kBlind;
}

// Whether a located read can only tell what the map knows already.
[[gnu::always_inline]] inline bool Correlator::isKnown(const Evidence& evidence, const Context& context) const {
  for (int i = 0; i < evidence.pieceCount; ++i) {
    const Piece& piece = evidence.pieces[i];
    const Range virt{context.virt.begin + piece.at, context.virt.begin + piece.at + piece.length};
    const Place place{evidence.device, evidence.phys.begin + piece.from};
    if (!map_.holds(context.disk, virt, place) ||
        devices_[place.device].active->doubts({place.offset, place.offset + piece.length})) {
      return false;
    }
  }
  return evidence.located;
}

// What a child carried is kept until its parent's completion shows what the issuer was given, or whose it was.
void Correlator::keepCopy(const sm_request* below, Evidence* evidence, const Context* context) {
  if (evidence->unfit || overlapsItself(below->iov, below->iov_count)) {
    evidence->unfit = true;
    return;
  }
  makeRoom(below->length);
  if (below->length <= shadowRoom_) {
    evidence->shadow.reset(new (std::nothrow) std::byte[below->length]);
  }
  if (!evidence->shadow) {
    ++counters_.evidenceLost;
    if (context) contexts_[evidence->owners[0].context].lostEvidence = true;
    evidence->unfit = true;
    return;
  }
  shadowRoom_ -= below->length;
  gather(below->iov, below->iov_count, evidence->shadow.get());
}

void Correlator::landed(const sm_request* below, DeviceKey device, uint64_t word) {
  std::lock_guard lock(map_.mutex());
  --devices_[device].inside;
  if (word == kBlind) {
    --devices_[device].blind;
    return;
  }
  const uint32_t slot = static_cast<uint32_t>(word);
  Evidence& evidence = evidence_[slot];
  evidence.done = true;
  evidence.ok = below->status == 0;
  evidence.landedAt = now();
  uint64_t bufferOf = 0;
  if (evidence.pending && (!wholeBuffer(below, &bufferOf) || bufferOf != evidence.bufferOf)) {
    evidence.unfit = true;  // its memory was not the same request's all the time: what is in it now is no evidence
  }
  if (evidence.pending && correlation_ == kMeet && !(content_ && evidence.op == SM_OP_READ)) {
    endPending(slot);
    if (!findOwners(below, slot)) disown(&evidence);
  }
  if (!evidence.pending && evidence.liveOwners == 0) return dropEvidence(slot);
  if (!evidence.adrift && sm_op_modifies(evidence.op)) {
    devices_[device].active->landed(evidence.position);
    if (evidence.demoted) devices_[device].active->decided(evidence.position);
  }
  for (int i = 0; i < evidence.ownerCount; ++i) {
    if (evidence.owners[i].context != kNoSlot) contexts_[evidence.owners[i].context].lastCompleted = evidence.landedAt;
  }
  if (!evidence.ok) return;
  if (evidence.pending) {
    const bool copied = evidence.op == SM_OP_WRITE && bufferOf == 0;
    if (below->iov_count > 0 && (evidence.op == SM_OP_READ || copied || content_)) {
      keepCopy(below, &evidence, nullptr);
      if (content_ && evidence.shadow && !content_->keep(slot, evidence.shadow.get(), below->length)) {
        ++counters_.evidenceLost;
        dropCopy(&evidence);
      }
    }
  } else if (evidence.op == SM_OP_READ) {
    const Context& context = contexts_[evidence.owners[0].context];
    if (!context.learns || context.sharedBuffer || isKnown(evidence, context)) {
      evidence.unfit = true;
    } else {
      keepCopy(below, &evidence, &context);
    }
  }
}

// Whether an owner may still turn up: it is older than its child.
bool Correlator::mayFindOwner(const sm_request* below) const {
  if (oldest_ == kNoSlot) return false;
  if (content_) return below->op == SM_OP_READ || below->op == SM_OP_WRITE;
  if (correlation_ == kMeet || association_->needsOwnBuffer()) return association_->find(below) != Association::kNone;
  return association_->key(below) != Association::kNoKey;
}

// Whose buffer a child's memory is in: the stamp of the live request, 0 where it is nobody's. False: it is several
// requests', or a read's is one that was ever shared.
bool Correlator::wholeBuffer(const sm_request* below, uint64_t* stamp) const {
  bool whole = true;
  *stamp = 0;
  buffers_.overlapping(below->iov, below->iov_count, [&](uint32_t slot) {
    const Context& context = contexts_[slot];
    if (*stamp != 0 || (context.sharedBuffer && below->op == SM_OP_READ)) whole = false;
    *stamp = context.stamp;
  });
  return whole;
}

// The copies that have waited longest for their parents give way.
void Correlator::makeRoom(uint64_t bytes) {
  for (uint32_t slot = oldestPending_; slot != kNoSlot && shadowRoom_ < bytes; slot = evidence_[slot].newerPending) {
    Evidence& evidence = evidence_[slot];
    if (!evidence.shadow) continue;
    if (content_) content_->drop(slot);
    ++counters_.evidenceLost;
    evidence.unfit = true;
    dropCopy(&evidence);
  }
}

void Correlator::dropCopy(Evidence* evidence) {
  if (!evidence->shadow) return;
  shadowRoom_ += evidence->phys.length();
  evidence->shadow.reset();
}

void Correlator::dropEvidence(uint32_t slot) {
  Evidence& evidence = evidence_[slot];
  if (!evidence.adrift) {
    devices_[evidence.device].active->remove(
        evidence.position, [&](uint32_t moved, uint32_t position) { evidence_[moved].position = position; });
  }
  dropCopy(&evidence);
  evidence_.give(slot);
}

}  // namespace sm
