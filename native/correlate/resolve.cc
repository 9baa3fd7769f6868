// What a request taught, decided at its completion.
#include <algorithm>
#include <utility>

#include "correlate/correlator.h"
#include "correlate/seeded_bugs.h"

namespace sm {

void Correlator::resolve(uint32_t slot, bool succeeded) {
  const Context& context = contexts_[slot];
  if (context.op == SM_OP_READ && context.evidenceCount == 1) {
    // A read of what the map knows already.
    const Evidence& only = evidence_[context.firstEvidence];
    if (only.op == SM_OP_READ && only.done && only.unfit) return;
  }
  found_.clear();
  uint64_t sum = 0;
  const bool ambiguous =
      context.sharedBuffer && (association_->needsOwnBuffer() || (content_ && context.op == SM_OP_READ));
  const bool teaches = context.learns && !ambiguous && (succeeded || seeded(Bug::kParentFailed));
  if (teaches && context.op == SM_OP_WRITE && (context.confirmed || isConfirmed(context))) return;
  eachEvidence(slot, [&](uint32_t, Evidence& evidence, int owner) {
    if (!evidence.done && !seeded(Bug::kEarlyMap)) {
      // It ends without this parent.
      if (sm_op_modifies(evidence.op)) demote(&evidence);
      return;
    }
    if (!teaches || evidence.unfit || evidence.adrift) return;
    if (!evidence.ok && !seeded(Bug::kMapFailed) && !seeded(Bug::kEarlyMap)) return;
    if (evidence.op == SM_OP_DISCARD && !seeded(Bug::kDiscardMaps)) return;
    if (seeded(Bug::kSumLength) && !evidence.located && evidence.op == context.op && evidence.op != SM_OP_DISCARD) {
      evidence.pieceCount = 0;
      if (sum + evidence.phys.length() <= context.virt.length()) evidence.addPiece({0, sum, evidence.phys.length()});
      sum += evidence.phys.length();
    } else if (evidence.op == SM_OP_READ && !content_ && !observed_) {
      compareRead(context, &evidence);
    }
    collect(context, evidence, owner);
  });
  if (sm_op_modifies(context.op) && !context.virt.empty()) return applyModification(slot, succeeded);
  // A read or a flush may have children that modify.
  eachEvidence(slot, [&](uint32_t, Evidence& evidence, int) {
    if (sm_op_modifies(evidence.op)) demote(&evidence);
  });
  if (succeeded) applyRead(context);
}

// An overwrite in place, all of it and by one child that nothing has tainted: the map says so already.
bool Correlator::isConfirmed(const Context& context) const {
  if (context.evidenceCount != 1 || !context.taints.empty()) return false;
  const Evidence& only = evidence_[context.firstEvidence];
  const Piece& piece = only.pieces[0];
  const uint64_t length = context.virt.length();
  return only.done && only.ok && only.located && !only.unfit && !only.adrift && !only.demoted &&
         only.op == context.op && only.taints.empty() && only.ownerCount == 1 && only.pieceCount == 1 &&
         only.phys.length() == length && piece.length == length && !devices_[only.device].shared &&
         map_.holds(context.disk, context.virt, {only.device, only.phys.begin});
}

// Rule 6: leaves of a read's pieces those whose bytes are what the issuer was given.
void Correlator::compareRead(const Context& context, Evidence* evidence) {
  if (!evidence->shadow || context.sharedBuffer) {
    evidence->pieceCount = 0;
    return;
  }
  if (!evidence->located) {
    locateByContent(evidence->shadow.get(), evidence->phys.length(), context, evidence);
    return;
  }
  Piece pieces[Evidence::kPieces];
  std::copy_n(evidence->pieces, evidence->pieceCount, pieces);
  const int count = std::exchange(evidence->pieceCount, uint8_t{0});
  for (int i = 0; i < count; ++i) {
    for (uint64_t done = 0; done < pieces[i].length; done += kCompared) {
      const Piece part{pieces[i].from + done, pieces[i].at + done, std::min(kCompared, pieces[i].length - done)};
      if (equalAt(context.iov, context.iovCount, part.at, evidence->shadow.get() + part.from, part.length)) {
        evidence->addPiece(part);
      }
    }
  }
}

// Appends to found_ what the evidence says and nothing has tainted, above or below.
void Correlator::collect(const Context& context, const Evidence& evidence, int owner) {
  for (int i = 0; i < evidence.pieceCount; ++i) {
    const Piece& piece = evidence.pieces[i];
    if (piece.owner != owner) continue;
    const uint64_t from = evidence.phys.begin + piece.from, at = context.virt.begin + piece.at;
    clean_.clear();
    evidence.taints.clean({from, from + piece.length}, &clean_);
    for (Range phys : clean_) {
      const uint64_t begin = at + (phys.begin - from);
      cleanVirt_.clear();
      if (context.op == SM_OP_READ && seeded(Bug::kReadModified)) {
        cleanVirt_.push_back({begin, begin + phys.length()});
      } else {
        context.taints.clean({begin, begin + phys.length()}, &cleanVirt_);
      }
      for (Range virt : cleanVirt_) {
        found_.push_back({virt, {evidence.device, phys.begin + (virt.begin - begin)}});
      }
    }
  }
}

// Rules 2, 4 and 5: what the children overwrote is stale, what was not resolved is unmapped, what was found is mapped.
void Correlator::applyModification(uint32_t slot, bool succeeded) {
  const Context& context = contexts_[slot];
  eachEvidence(slot, [&](uint32_t, Evidence& evidence, int) {
    if (sm_op_modifies(evidence.op)) demote(&evidence);
  });
  if (!succeeded && !seeded(Bug::kParentFailed)) {
    map_.staleVirtual(context.disk, context.virt);
  } else if (!(seeded(Bug::kKeepUnresolved) && found_.empty()) &&
             !(seeded(Bug::kMissedDiscard) && context.op == SM_OP_DISCARD)) {
    map_.removeVirtual(context.disk, context.virt);
  }
  if (seeded(Bug::kSwappedPiece) && found_.size() > 1 && found_[0].virt.length() == found_[1].virt.length()) {
    std::swap(found_[0].place, found_[1].place);
  }
  for (const Found& found : found_) addFound(context, found);
  countUnmapped(slot, succeeded);
}

void Correlator::addFound(const Context& context, const Found& found) {
  const State state = devices_[found.place.device].shared ? State::kStale : State::kMapped;
  map_.add(seeded(Bug::kWrongOwner) ? 0 : context.disk, found.virt, found.place, state, content_ != nullptr);
}

// Rule 5: reads add.
void Correlator::applyRead(const Context& context) {
  for (const Found& found : found_) {
    // A modification of the place that is over, but not decided, must not take this with it.
    Range phys{found.place.offset, found.place.offset + found.virt.length()};
    devices_[found.place.device].active->doubtful(
        phys, [&](ActiveRanges::Ref ref, Range) { demote(&evidence_[ref & ActiveRanges::kSlot]); });
    if (!map_.holds(context.disk, found.virt, found.place)) addFound(context, found);
  }
}

}  // namespace sm
