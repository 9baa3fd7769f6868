// Whose a request below is: at its issue, at its landing, or while it is pending.
#include <algorithm>
#include <span>

#include "correlate/content_index.h"
#include "correlate/correlator.h"
#include "correlate/seeded_bugs.h"

namespace sm {

namespace {
constexpr uint32_t kMostPending = 8192;  // they are looked through, and may end all at once (rule 9)
}

// The bytes of a write, in one piece.
const std::byte* Correlator::bytesOf(const sm_request* below) {
  if (below->iov_count == 1) return static_cast<const std::byte*>(below->iov[0].iov_base);
  gathered_.resize(std::max<size_t>(gathered_.size(), below->length));
  gather(below->iov, below->iov_count, gathered_.data());
  return gathered_.data();
}

// By what the request below carries, among the contexts that were there when it was issued. False: nobody is found.
bool Correlator::findOwners(const sm_request* below, uint32_t slot) {
  Evidence& evidence = evidence_[slot];
  auto fits = [&](uint32_t context) {
    return contexts_[context].live && contexts_[context].recorded && contexts_[context].stamp < evidence.stamp;
  };
  if (!content_) {
    const uint32_t owner = association_->find(below);
    evidence.ambiguous = owner == Association::kAmbiguous;
    if (owner >= Association::kAmbiguous || !fits(owner)) return false;
    own(slot, owner);
    const Context& context = contexts_[owner];
    count(evidence, Fate::kAttributed);
    locate(evidence, below->iov, below->iov_count, context);
    if (!evidence.located && evidence.op == SM_OP_WRITE && evidence.op == context.op && context.learns) {
      locateByContent(bytesOf(below), below->length, context, &evidence);
      evidence.located = evidence.pieceCount > 0;
    }
    if (evidence.pieceCount > 0) {
      const bool changes = evidence.op != SM_OP_READ;
      ahead_.expect(map_, context.disk, context.virt.begin + evidence.pieces[0].at,
                    {changes ? evidence.device : kNoKey, evidence.phys.begin + evidence.pieces[0].from});
    }
    return true;
  }
  if (below->op != SM_OP_WRITE) return false;
  const std::byte* bytes = bytesOf(below);
  candidates_.clear();
  content_->parents(bytes, below->length, [&](uint32_t context) { candidates_.push_back(context); });
  for (uint32_t context : distinctCandidates()) {
    if (fits(context)) ownByContent(slot, context, bytes);
  }
  if (evidence.ownerCount == 0) return false;
  count(evidence, evidence.ownerCount == 1 ? Fate::kAttributed : Fate::kAmbiguous);
  return true;
}

void Correlator::count(const Evidence& evidence, Fate fate) {
  devices_[evidence.device].ledger->fates[static_cast<int>(fate)].add(evidence.phys.length());
}

std::span<const uint32_t> Correlator::distinctCandidates() {
  std::sort(candidates_.begin(), candidates_.end());
  return {candidates_.begin(), std::unique(candidates_.begin(), candidates_.end())};
}

// Makes the context an owner if blocks of `bytes`, which were hashed just before, are its own.
void Correlator::ownByContent(uint32_t slot, uint32_t contextSlot, const std::byte* bytes) {
  Evidence& evidence = evidence_[slot];
  const Context& context = contexts_[contextSlot];
  if (evidence.op != context.op || evidence.ownerCount == Evidence::kOwners || evidence.ownerIndex(contextSlot) >= 0) {
    return;
  }
  const uint8_t before = evidence.pieceCount;
  if (evidence.pending) {
    content_->locate(slot, bytes, contextSlot, context, evidence.ownerCount, &evidence);
  } else {
    content_->locate(bytes, contextSlot, context, evidence.ownerCount, &evidence);
  }
  if (evidence.pieceCount == before) return;
  evidence.located = true;
  own(slot, contextSlot);
}

void Correlator::own(uint32_t slot, uint32_t contextSlot) {
  Evidence& evidence = evidence_[slot];
  Context& context = contexts_[contextSlot];
  evidence.owners[evidence.ownerCount++] = {contextSlot, kNoSlot};
  ++evidence.liveOwners;
  if (context.evidenceCount++ == 0) {
    context.firstEvidence = slot;
    context.firstIssued = evidence.issuedAt;
  } else {
    Evidence& last = evidence_[context.lastEvidence];
    last.owners[last.ownerIndex(contextSlot)].next = slot;
    context.firstIssued = std::min(context.firstIssued, evidence.issuedAt);
  }
  context.lastEvidence = slot;
  context.lastCompleted = std::max(context.lastCompleted, evidence.landedAt);
}

// Rule 6: where in its parent the child's bytes stand, by length where there is no payload, else by address.
void Correlator::locate(Evidence& evidence, const iovec* iov, uint32_t count, const Context& context) {
  if (evidence.op != context.op) {
    evidence.unfit = true;
  } else if (evidence.op != SM_OP_READ && evidence.op != SM_OP_WRITE) {
    if (evidence.phys.length() != context.virt.length()) return;
    evidence.addPiece({0, 0, context.virt.length()});
    evidence.located = true;
  } else if (count == 1 && context.iovCount == 1 && iov->iov_base == context.iov->iov_base &&
             iov->iov_len <= context.iov->iov_len) {
    // As below, for what is most frequent.
    evidence.addPiece({0, 0, iov->iov_len});
    evidence.located = true;
  } else {
    evidence.located = locateByAddress(iov, count, context, &evidence);
  }
}

void Correlator::makePending(uint32_t slot) {
  if (pendingCount_ >= std::min(capacity_, kMostPending)) {
    ++counters_.evidenceLost;
    expire(oldestPending_);
  }
  Evidence& evidence = evidence_[slot];
  evidence.pending = true;
  evidence.olderPending = newestPending_;
  evidence.newerPending = kNoSlot;
  (newestPending_ == kNoSlot ? oldestPending_ : evidence_[newestPending_].newerPending) = slot;
  newestPending_ = slot;
  ++pendingCount_;
}

void Correlator::endPending(uint32_t slot) {
  Evidence& evidence = evidence_[slot];
  (evidence.olderPending == kNoSlot ? oldestPending_ : evidence_[evidence.olderPending].newerPending) =
      evidence.newerPending;
  (evidence.newerPending == kNoSlot ? newestPending_ : evidence_[evidence.newerPending].olderPending) =
      evidence.olderPending;
  evidence.pending = false;
  --pendingCount_;
  if (content_ && evidence.shadow) content_->drop(slot);
}

// At the completion of a request: its children among those that are pending.
void Correlator::collectPending(uint32_t contextSlot) {
  const Context& context = contexts_[contextSlot];
  if (content_) {
    if (context.op == SM_OP_READ || correlation_ == kAscend) collectByContent(contextSlot);
    return;
  }
  if (correlation_ != kAscend) return;
  uint32_t slot = newestPending_;
  uint32_t first = kNoSlot;
  for (; slot != kNoSlot && evidence_[slot].stamp > context.stamp; slot = evidence_[slot].olderPending) first = slot;
  for (uint32_t next; first != kNoSlot; first = next) {
    Evidence& evidence = evidence_[first];
    next = evidence.newerPending;
    if (!association_->carries(evidence, context)) continue;
    if (association_->needsOwnBuffer() && context.sharedBuffer) {
      evidence.ambiguous = true;
      continue;
    }
    endPending(first);
    own(first, contextSlot);
    count(evidence, Fate::kAttributed);
    locate(evidence, evidence.memory, evidence.memoryCount, context);
    if (!evidence.located && evidence.op == SM_OP_WRITE && evidence.op == context.op && evidence.shadow) {
      locateByContent(evidence.shadow.get(), evidence.phys.length(), context, &evidence);
      evidence.located = evidence.pieceCount > 0;
    }
  }
}

// The children stay pending, for another request may have the same content.
void Correlator::collectByContent(uint32_t contextSlot) {
  const Context& context = contexts_[contextSlot];
  if (context.adrift) return;
  content_->hash(contextSlot, context);
  candidates_.clear();
  content_->children(contextSlot, [&](uint32_t child) { candidates_.push_back(child); });
  for (uint32_t child : distinctCandidates()) {
    const Evidence& evidence = evidence_[child];
    if (evidence.stamp > context.stamp) ownByContent(child, contextSlot, evidence.shadow.get());
  }
}

// What was issued before the oldest request that is in flight finds no parent any more.
void Correlator::expirePending() {
  const uint64_t since = oldest_ == kNoSlot ? UINT64_MAX : contexts_[oldest_].stamp;
  while (oldestPending_ != kNoSlot && evidence_[oldestPending_].stamp < since) expire(oldestPending_);
}

void Correlator::expire(uint32_t slot) {
  Evidence& evidence = evidence_[slot];
  endPending(slot);
  if (evidence.ownerCount == 0) {
    disown(&evidence);
  } else {
    count(evidence, evidence.ownerCount == 1 ? Fate::kAttributed : Fate::kAmbiguous);
    if (content_ && evidence.op == SM_OP_READ) readBeside(evidence);
  }
  if (evidence.done && evidence.liveOwners == 0) dropEvidence(slot);
}

// Some blocks of a read may be an owner's by chance, and the whole have been read to move it: what no owner explains
// was read by nobody that is known.
void Correlator::readBeside(const Evidence& evidence) {
  if (evidence.adrift) return;
  clean_.clear();
  evidence.taints.clean(evidence.phys, &clean_);
  for (Range range : clean_) {
    while (!range.empty()) {
      // The first piece in it, and what lies before that.
      Range known{range.end, range.end};
      for (int i = 0; i < evidence.pieceCount; ++i) {
        const uint64_t from = evidence.phys.begin + evidence.pieces[i].from;
        const Range piece{std::max(from, range.begin), std::min(from + evidence.pieces[i].length, range.end)};
        if (piece.begin < piece.end && piece.begin < known.begin) known = piece;
      }
      if (range.begin < known.begin) map_.moving(evidence.device, {range.begin, known.begin});
      range.begin = known.end;
    }
  }
}

// The end of a context: what is nobody's any more goes when it has landed.
void Correlator::release(uint32_t contextSlot) {
  eachEvidence(contextSlot, [&](uint32_t slot, Evidence& evidence, int owner) {
    evidence.owners[owner].context = kNoSlot;
    if (--evidence.liveOwners == 0 && evidence.done && !evidence.pending) dropEvidence(slot);
  });
}

DiskKey Correlator::ownerOf(const sm_request* below) const {
  if (!attributesAtIssue()) return kNoKey;
  std::lock_guard lock(map_.mutex());
  const uint32_t owner = association_->find(below);
  if (owner >= Association::kAmbiguous || !contexts_[owner].live || !contexts_[owner].recorded) return kNoKey;
  return contexts_[owner].disk;
}

}  // namespace sm
