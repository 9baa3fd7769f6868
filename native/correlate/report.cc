// What is told of a request at its completion: to the ledger, and as an event.
#include <algorithm>

#include "correlate/correlator.h"

namespace sm {

void Correlator::countUnmapped(uint32_t slot, bool succeeded) {
  const Context& context = contexts_[slot];
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
  eachEvidence(slot, [&](uint32_t, const Evidence& evidence, int) {
    any = true;
    late |= !evidence.done;
    failed |= evidence.done && !evidence.ok;
    raced |= !evidence.taints.empty();
  });
  if (!succeeded) count(Unmapped::kFailed, left);
  if (!context.learns) count(Unmapped::kSettling, left);
  count(Unmapped::kOverlap, context.taints.bytesOf(context.virt));
  if ((!context.recorded && !context.predicted) || context.lostEvidence) count(Unmapped::kUnrecorded, left);
  if (failed) count(Unmapped::kFailed, left);
  if (late) count(Unmapped::kLate, left);
  if (raced) count(Unmapped::kRace, left);
  count(any ? Unmapped::kDiffers : Unmapped::kAbsent, left);
}

// The completion event: the request, its times, and where its pieces went.
void Correlator::report(uint32_t slot, int32_t status, uint64_t now) {
  const Context& context = contexts_[slot];
  using Words = EventWords;
  // An owner's own pieces; where it has none, all of the child, at a position that is not known.
  auto eachPiece = [&](auto&& f) {
    eachEvidence(slot, [&](uint32_t, const Evidence& evidence, int owner) {
      bool any = false;
      for (int i = 0; i < evidence.pieceCount; ++i) {
        const Piece& piece = evidence.pieces[i];
        if (piece.owner != owner) continue;
        any = true;
        f(evidence, piece.from, piece.length, static_cast<double>(piece.at));
      }
      if (!any) f(evidence, 0, evidence.phys.length(), -1.0);
    });
  };
  size_t pieces = 0;
  eachPiece([&](const Evidence&, uint64_t, uint64_t, double) { ++pieces; });
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
  eachPiece([&](const Evidence& evidence, uint64_t from, uint64_t length, double position) {
    if (at + Words::kPiece > words) return;
    ring_->set(at++, static_cast<double>(evidence.device));
    ring_->set(at++, static_cast<double>(evidence.phys.begin + from));
    ring_->set(at++, static_cast<double>(length));
    ring_->set(at++, position);
  });
  if (ring_->commit(words) && wake_) wake_(wakeContext_);
}

}  // namespace sm
