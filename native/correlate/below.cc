// The point below: requests to a device, from issue to landing.
#include <algorithm>

#include "correlate/correlator.h"
#include "correlate/seeded_bugs.h"

namespace sm {

// Rule 4: a modification of `phys` takes from all that is in flight what it would teach of these bytes; and the other
// way round, where the other is a modification in flight.
void Correlator::modifies(DeviceKey device, Range phys, Evidence* own) {
  map_.activeOn(device).overlapping(phys, [&](ActiveRanges::Ref ref, Range common) {
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
  if (evidence->done) map_.activeOn(evidence->device).decided(evidence->position);
}

uint32_t Correlator::takeEvidence(const sm_request* below, DeviceKey device, uint32_t context) {
  const uint32_t slot = evidence_.take();
  if (slot == kNoSlot) return kNoSlot;
  Evidence& evidence = evidence_[slot];
  evidence.op = below->op;
  evidence.done = evidence.ok = evidence.located = evidence.demoted = evidence.adrift = false;
  evidence.unfit = devices_[device].blind > 0 || !devices_[device].settled;
  evidence.pieceCount = 0;
  evidence.device = device;
  evidence.context = context;
  evidence.next = kNoSlot;
  evidence.phys = rangeOf(below);
  evidence.taints.clear();
  return slot;
}

uint64_t Correlator::issued(const sm_request* below, DeviceKey device) {
  std::lock_guard lock(map_.mutex());
  DeviceState& state = devices_[device];
  if (!state.watched) return kUnseen;
  DeviceLedger& ledger = map_.ledgerOf(device);
  if (below->op == SM_OP_FLUSH) {
    ledger.fates[static_cast<int>(Fate::kControl)].add(0);
    return kUnseen;
  }
  const Range phys = rangeOf(below);
  const bool modification = sm_op_modifies(below->op);
  uint32_t owner = association_->find(below);
  if (owner == Association::kAmbiguous) {
    ledger.fates[static_cast<int>(Fate::kAmbiguous)].add(below->length);
  } else {
    if (owner != Association::kNone && !(contexts_[owner].live && contexts_[owner].recorded))
      owner = Association::kNone;
    ledger.fates[static_cast<int>(owner == Association::kNone ? Fate::kUnattributed : Fate::kAttributed)].add(
        below->length);
  }
  const bool attributed = owner < Association::kAmbiguous;

  if (!modification && !attributed) {
    map_.moving(device, phys);  // rule 5: something read it, perhaps to move it
    return kUnseen;
  }
  if (!attributed) {
    if (below->op == SM_OP_DISCARD) {
      map_.removePhysical(device, phys);
    } else if (!seeded(Bug::kNoStale)) {
      map_.stalePhysical(device, phys);
    }
  }

  const uint32_t slot = takeEvidence(below, device, attributed ? owner : kNoSlot);
  if (slot == kNoSlot) {
    ++counters_.evidenceLost;
    if (attributed) contexts_[owner].lostEvidence = true;
    if (!modification) return kUnseen;
    map_.stalePhysical(device, phys);
    modifies(device, phys, nullptr);
    ++state.blind;
    ++state.inside;
    return kBlind;
  }

  Evidence& evidence = evidence_[slot];
  evidence.demoted = !attributed;
  ActiveRanges& active = map_.activeOn(device);
  if (modification) {
    modifies(device, phys, &evidence);
    evidence.position = active.add(phys, slot | ActiveRanges::kModifies | ActiveRanges::kInFlight);
  } else {
    active.overlapping(phys, [&](ActiveRanges::Ref ref, Range common) {
      if (ref & ActiveRanges::kInFlight) taint(&evidence.taints, common);
    });
    evidence.position = active.add(phys, slot);
  }
  if (attributed) {
    Context& context = contexts_[owner];
    if (context.evidenceCount++ == 0) {
      context.firstEvidence = slot;
      context.firstIssued = stack_->now(stack_);
    } else {
      evidence_[context.lastEvidence].next = slot;
    }
    context.lastEvidence = slot;
    locate(below, context, &evidence);
  }
  ++state.inside;
  return slot;
}

// Rule 6: where in its parent the child's bytes stand. A write's are compared now, while both are sure to be in memory.
void Correlator::locate(const sm_request* below, const Context& context, Evidence* evidence) {
  if (below->op != context.op) {
    evidence->unfit = true;
    return;
  }
  if (below->iov_count == 0) {
    if (below->length == context.virt.length()) {
      evidence->addPiece({0, 0, below->length});
      evidence->located = true;
    }
    return;
  }
  if (locateByAddress(below, context, evidence)) {
    evidence->located = true;
    return;
  }
  if (below->op != SM_OP_WRITE || !context.learns) return;
  const std::byte* bytes = static_cast<const std::byte*>(below->iov[0].iov_base);
  if (below->iov_count > 1) {
    gathered_.resize(std::max<size_t>(gathered_.size(), below->length));
    gather(below->iov, below->iov_count, gathered_.data());
    bytes = gathered_.data();
  }
  locateByContent(bytes, below->length, context, evidence);
  evidence->located = evidence->pieceCount > 0;
}

// What a read brought up is kept until its parent's completion shows what the issuer was given; not where that could
// only tell what the map knows already.
void Correlator::keepCopy(const sm_request* below, const Context& context, Evidence* evidence) {
  if (!context.learns || context.sharedBuffer || evidence->unfit || overlapsItself(below->iov, below->iov_count)) {
    evidence->unfit = true;
    return;
  }
  if (evidence->located) {
    bool known = true;
    for (int i = 0; i < evidence->pieceCount && known; ++i) {
      const Piece& piece = evidence->pieces[i];
      Range virt{context.virt.begin + piece.at, context.virt.begin + piece.at + piece.length};
      const Place place{evidence->device, evidence->phys.begin + piece.from};
      known = map_.holds(context.disk, virt, place) &&
              !map_.activeOn(place.device).doubts({place.offset, place.offset + piece.length});
    }
    if (known) {
      evidence->unfit = true;
      return;
    }
  }
  if (below->length > shadowRoom_) {
    ++counters_.evidenceLost;
    evidence->unfit = true;
    return;
  }
  shadowRoom_ -= below->length;
  evidence->shadow.reset(new std::byte[below->length]);
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
  if (evidence.context == kNoSlot) {
    dropEvidence(slot);
    return;
  }
  Context& context = contexts_[evidence.context];
  context.lastCompleted = stack_->now(stack_);
  if (!evidence.adrift) {
    map_.activeOn(device).landed(evidence.position);
    if (evidence.demoted) map_.activeOn(device).decided(evidence.position);
  }
  if (evidence.op == SM_OP_READ && evidence.ok) keepCopy(below, context, &evidence);
}

void Correlator::dropEvidence(uint32_t slot) {
  Evidence& evidence = evidence_[slot];
  if (!evidence.adrift) {
    map_.activeOn(evidence.device).remove(evidence.position, [&](uint32_t moved, uint32_t position) {
      evidence_[moved].position = position;
    });
  }
  if (evidence.shadow) {
    shadowRoom_ += evidence.phys.length();
    evidence.shadow.reset();
  }
  evidence_.give(slot);
}

}  // namespace sm
