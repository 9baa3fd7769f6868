// What a request taught, decided at its completion.
#include <algorithm>
#include <utility>

#include "correlate/correlator.h"
#include "correlate/seeded_bugs.h"

namespace sm {

void Correlator::resolve(Context* context, bool succeeded) {
  found_.clear();
  uint64_t sum = 0;
  const bool teaches = context->learns && (succeeded || seeded(Bug::kParentFailed));
  for (uint32_t e = context->firstEvidence; e != kNoSlot; e = evidence_[e].next) {
    Evidence& evidence = evidence_[e];
    if (!evidence.done && !seeded(Bug::kEarlyMap)) {
      // It ends without a parent: nobody's from now on.
      if (sm_op_modifies(evidence.op)) demote(&evidence);
      evidence.context = kNoSlot;
      continue;
    }
    if (!teaches || evidence.unfit || evidence.adrift) continue;
    if (!evidence.ok && !seeded(Bug::kMapFailed) && !seeded(Bug::kEarlyMap)) continue;
    if (evidence.op == SM_OP_DISCARD && !seeded(Bug::kDiscardMaps)) continue;
    if (seeded(Bug::kSumLength) && !evidence.located && evidence.op == context->op && evidence.op != SM_OP_DISCARD) {
      evidence.pieceCount = 0;
      if (sum + evidence.phys.length() <= context->virt.length()) evidence.addPiece({0, sum, evidence.phys.length()});
      sum += evidence.phys.length();
    } else if (evidence.op == SM_OP_READ) {
      compareRead(*context, &evidence);
    }
    collect(*context, evidence);
  }
  if (sm_op_modifies(context->op) && !context->virt.empty()) return applyModification(context, succeeded);
  // A read or a flush may have children that modify.
  for (uint32_t e = context->firstEvidence; e != kNoSlot; e = evidence_[e].next) {
    if (sm_op_modifies(evidence_[e].op)) demote(&evidence_[e]);
  }
  if (succeeded) applyRead(*context);
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
void Correlator::collect(const Context& context, const Evidence& evidence) {
  for (int i = 0; i < evidence.pieceCount; ++i) {
    const Piece& piece = evidence.pieces[i];
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
void Correlator::applyModification(Context* context, bool succeeded) {
  const uint32_t first = context->firstEvidence;
  if (found_.size() == 1 && context->evidenceCount == 1 && !evidence_[first].demoted &&
      found_[0].virt.length() == context->virt.length() && evidence_[first].phys.length() == context->virt.length() &&
      map_.holds(context->disk, found_[0].virt, found_[0].place) && !devices_[found_[0].place.device].shared) {
    return;  // an overwrite in place: the map says so already
  }
  for (uint32_t e = first; e != kNoSlot; e = evidence_[e].next) {
    if (sm_op_modifies(evidence_[e].op)) demote(&evidence_[e]);
  }
  if (!succeeded && !seeded(Bug::kParentFailed)) {
    map_.staleVirtual(context->disk, context->virt);
  } else if (!(seeded(Bug::kKeepUnresolved) && found_.empty()) &&
             !(seeded(Bug::kMissedDiscard) && context->op == SM_OP_DISCARD)) {
    map_.removeVirtual(context->disk, context->virt);
  }
  if (seeded(Bug::kSwappedPiece) && found_.size() > 1 && found_[0].virt.length() == found_[1].virt.length()) {
    std::swap(found_[0].place, found_[1].place);
  }
  for (const Found& found : found_) {
    map_.add(seeded(Bug::kWrongOwner) ? 0 : context->disk, found.virt, found.place,
             devices_[found.place.device].shared ? State::kStale : State::kMapped);
  }
  countUnmapped(*context, succeeded);
}

// Rule 5: reads add.
void Correlator::applyRead(const Context& context) {
  for (const Found& found : found_) {
    // A modification of the place that is over, but not decided, must not take this with it.
    Range phys{found.place.offset, found.place.offset + found.virt.length()};
    map_.activeOn(found.place.device).overlapping(phys, [&](ActiveRanges::Ref ref, Range) {
      if (ref & ActiveRanges::kModifies) demote(&evidence_[ref & ActiveRanges::kSlot]);
    });
    if (map_.holds(context.disk, found.virt, found.place)) continue;
    map_.add(context.disk, found.virt, found.place,
             devices_[found.place.device].shared ? State::kStale : State::kMapped);
  }
}

void Correlator::countUnmapped(const Context& context, bool succeeded) {
  if (context.op == SM_OP_DISCARD) return;
  uint64_t left = context.virt.length();
  auto count = [&](Unmapped reason, uint64_t bytes) {
    bytes = std::min(bytes, left);
    if (bytes == 0) return;
    left -= bytes;
    map_.ledgerOfAll().unmapped[static_cast<int>(reason)].add(bytes);
  };
  // Several places of one byte count once, and one that is not shared suffices.
  std::sort(found_.begin(), found_.end(), [](const Found& a, const Found& b) { return a.virt.begin < b.virt.begin; });
  auto covered = [&](bool withShared) {
    uint64_t end = 0, bytes = 0;
    for (const Found& found : found_) {
      if (!withShared && devices_[found.place.device].shared) continue;
      const uint64_t begin = std::max(end, found.virt.begin);
      if (begin >= found.virt.end) continue;
      bytes += found.virt.end - begin;
      end = found.virt.end;
    }
    return bytes;
  };
  const uint64_t mapped = covered(false), sharedBytes = covered(true) - mapped;
  left -= mapped;
  count(Unmapped::kShared, sharedBytes);
  if (left == 0) return;

  bool failed = !succeeded, late = false, raced = false, any = false;
  for (uint32_t e = context.firstEvidence; e != kNoSlot; e = evidence_[e].next) {
    const Evidence& evidence = evidence_[e];
    any = true;
    late |= !evidence.done;
    failed |= evidence.done && !evidence.ok;
    raced |= !evidence.taints.empty();
  }
  if (!succeeded) count(Unmapped::kFailed, left);
  if (!context.learns) count(Unmapped::kSettling, left);
  count(Unmapped::kOverlap, context.taints.bytesOf(context.virt));
  if (!context.recorded || context.lostEvidence) count(Unmapped::kUnrecorded, left);
  if (failed) count(Unmapped::kFailed, left);
  if (late) count(Unmapped::kLate, left);
  if (raced) count(Unmapped::kRace, left);
  count(any ? Unmapped::kDiffers : Unmapped::kAbsent, left);
}

// The completion event: the request, its times, and where its pieces went.
void Correlator::report(const Context& context, int32_t status, uint64_t now) {
  using Words = EventWords;
  size_t pieces = 0;
  for (uint32_t e = context.firstEvidence; e != kNoSlot; e = evidence_[e].next) {
    pieces += std::max<size_t>(1, evidence_[e].pieceCount);
  }
  pieces = std::min<size_t>(pieces, Words::kMaxPieces);
  const size_t words = Words::kHead + pieces * Words::kPiece;
  if (!ring_->begin(words)) return;
  // The clock of a batch may be a little older than the ring; 0 is kept for what never happened.
  auto since = [&](uint64_t time) {
    return time == 0 ? 0.0 : time <= ring_->origin() ? 1.0 : static_cast<double>(time - ring_->origin());
  };
  const double head[Words::kHead] = {static_cast<double>(words),
                                     static_cast<double>(context.op),
                                     static_cast<double>(status),
                                     static_cast<double>(context.disk),
                                     static_cast<double>(context.virt.begin),
                                     static_cast<double>(context.virt.length()),
                                     since(context.submitted),
                                     since(context.firstIssued),
                                     since(context.lastCompleted),
                                     since(now),
                                     static_cast<double>(pieces)};
  size_t at = 0;
  for (double word : head) ring_->set(at++, word);
  auto piece = [&](const Evidence& evidence, uint64_t from, uint64_t length, double position) {
    if (at + Words::kPiece > words) return;
    ring_->set(at++, static_cast<double>(evidence.device));
    ring_->set(at++, static_cast<double>(evidence.phys.begin + from));
    ring_->set(at++, static_cast<double>(length));
    ring_->set(at++, position);
  };
  for (uint32_t e = context.firstEvidence; e != kNoSlot; e = evidence_[e].next) {
    const Evidence& evidence = evidence_[e];
    for (int i = 0; i < evidence.pieceCount; ++i) {
      piece(evidence, evidence.pieces[i].from, evidence.pieces[i].length, static_cast<double>(evidence.pieces[i].at));
    }
    if (evidence.pieceCount == 0) piece(evidence, 0, evidence.phys.length(), -1);
  }
  if (ring_->commit(words) && wake_) wake_(wakeContext_);
}

}  // namespace sm
