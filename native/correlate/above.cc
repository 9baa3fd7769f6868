// The point above: requests to a disk, from submission to completion.
#include <algorithm>
#include <bit>

#include "correlate/content_index.h"
#include "correlate/correlator.h"
#include "correlate/seeded_bugs.h"

namespace sm {

namespace {

// Whether to look if learning may begin: at first often, then at every 64th submission.
bool looksAt(uint64_t tick) { return tick < 64 ? std::has_single_bit(tick) : tick % 64 == 0; }

}  // namespace

void Correlator::taint(Taints* taints, Range part) {
  if (!taints->add(part)) ++counters_.taintOverflow;
}

// Enters a context into the active ranges, and taints it and those in flight with each other (rules 3 and 5).
[[gnu::always_inline]] inline void Correlator::track(uint32_t slot, Context* context, ActiveRanges& active) {
  const bool modifies = sm_op_modifies(context->op);
  active.overlapping(context->virt, [&](ActiveRanges::Ref ref, Range common) {
    Context& other = contexts_[ref & ActiveRanges::kSlot];
    if (sm_op_modifies(other.op) && !seeded(Bug::kSubmitOrder)) taint(&context->taints, common);
    if (modifies) taint(&other.taints, common);
  });
  ActiveRanges::Ref doubt = modifies && !seeded(Bug::kNoDoubt) ? ActiveRanges::kModifies : 0;
  context->virtPosition = active.add(context->virt, slot | doubt);
}

[[gnu::always_inline]] inline void Correlator::untrack(Context* context) {
  disks_[context->disk].active->remove(
      context->virtPosition, [&](uint32_t slot, uint32_t position) { contexts_[slot].virtPosition = position; });
}

[[gnu::always_inline]] inline void Correlator::enlist(uint32_t slot) {
  contexts_[slot].stamp = ++clock_;
  if (!mayPend_) return;
  contexts_[slot].older = newest_;
  contexts_[slot].newer = kNoSlot;
  (newest_ == kNoSlot ? oldest_ : contexts_[newest_].newer) = slot;
  newest_ = slot;
}

void Correlator::delist(uint32_t slot) {
  if (!mayPend_) return;
  const Context& context = contexts_[slot];
  (context.older == kNoSlot ? oldest_ : contexts_[context.older].newer) = context.newer;
  (context.newer == kNoSlot ? newest_ : contexts_[context.newer].older) = context.older;
}

// Makes the context one that its children can find.
[[gnu::always_inline]] inline void Correlator::record(uint32_t slot, Context* which, sm_request* above) {
  Context& context = *which;
  if (observed_ && predict(which, above)) return;
  const bool room = correlation_ == kAscend || recorded_ < capacity_;
  context.recorded = room && association_->mark(slot, context, above);
  if (observed_ && context.recorded) beginTrail(slot);
  if (context.recorded && correlation_ == kAscend) {
    context.key = association_->key(above);
  } else if (context.recorded) {
    if (content_ && context.op == SM_OP_WRITE) content_->hash(slot, context);
    context.recorded = association_->record(slot, above);
    if (!context.recorded) association_->unmark(slot, above);
  }
  if (context.recorded) {
    ++recorded_;
    ++counters_.recorded;
  } else {
    ++counters_.unrecorded;
  }
}

uint64_t Correlator::submitted(sm_request* above, DiskKey disk) {
  std::lock_guard lock(map_.mutex());
  Watched& state = disks_[disk];
  if (!state.watched) return kUnseen;
  ++state.inside;
  if ((settling_ || unsettled_) && looksAt(++settleTick_)) tryLearning();
  const Range virt = rangeOf(above);

  const bool tracked = !observed_ || observed_->sample.wants();
  if (!tracked && !ring_ && predictRead(above, disk)) return kKnownRead;

  // Rule 6: a buffer that two live requests share is no evidence of what a read brought up. Where the kernel is the
  // carrier, buffers say nothing but in a sample.
  const Range hull = tracked ? hullOf(above->iov, above->iov_count) : Range{};
  const bool aliased = tracked && above->iov_count > 1 && overlapsItself(above->iov, above->iov_count);
  bool sharedBuffer = aliased || !tracked || untracked_ > 0 || blindAbove_ > 0;
  if (tracked) {
    buffers_.overlapping(above->iov, above->iov_count, hull, [&](uint32_t other) {
      contexts_[other].sharedBuffer = true;
      sharedBuffer = true;
    });
  }

  const uint32_t slot = contexts_.take();
  if (slot == kNoSlot) {
    // Rule 9: it goes on without a slot. Its range is unmapped now and again at its end; nothing that it overlaps
    // teaches, and nothing submitted while it is in flight.
    ++counters_.unrecorded;
    ++blindAbove_;
    ++state.blind;
    if (observed_) observed_->sample.taken = false;
    if (sm_op_modifies(above->op)) {
      map_.removeVirtual(disk, virt);
      state.active->overlapping(virt, [&](ActiveRanges::Ref ref, Range common) {
        taint(&contexts_[ref & ActiveRanges::kSlot].taints, common);
      });
    }
    return kBlind;
  }

  Context& context = contexts_[slot];
  context.live = true;
  context.learns = learning_ && state.settled && state.blind == 0;
  context.lostEvidence = false;
  context.sharedBuffer = sharedBuffer;
  context.aliased = aliased;
  context.tracked = tracked;
  context.adrift = false;
  context.recorded = context.predicted = context.confirmed = false;
  context.op = above->op;
  context.disk = disk;
  context.virt = virt;
  context.iov = above->iov;
  context.iovCount = above->iov_count;
  context.firstEvidence = context.lastEvidence = kNoSlot;
  context.evidenceCount = 0;
  context.taints.clear();
  context.submitted = now();
  context.firstIssued = context.lastCompleted = 0;
  if (!virt.empty()) track(slot, &context, *state.active);
  if (observed_ && sm_op_modifies(above->op)) observed_->sample.modified(disk, virt);
  if (tracked) {
    buffers_.add(slot, hull);
  } else {
    ++untracked_;
  }
  enlist(slot);
  record(slot, &context, above);
  return slot;
}

void Correlator::completed(sm_request* above, DiskKey disk, uint64_t word) {
  std::lock_guard lock(map_.mutex());
  --disks_[disk].inside;
  if (word == kKnownRead) return completedKnownRead(above, disk);
  if (observed_) map_.feed(false);
  if (word == kBlind) {
    --blindAbove_;
    --disks_[disk].blind;
    if (!disks_[disk].watched) return;
    if (sm_op_modifies(above->op)) map_.removeVirtual(disk, rangeOf(above));
    if (sm_op_modifies(above->op) && above->op != SM_OP_DISCARD) {
      map_.ledgerOfAll().unmapped[static_cast<int>(Unmapped::kUnrecorded)].add(above->length);
    }
    return;
  }
  const uint32_t slot = static_cast<uint32_t>(word);
  Context& context = contexts_[slot];
  if (mayPend_ && context.recorded) collectPending(slot);
  if (observed_) settleObserved(slot, above->status == 0);
  resolve(slot, above->status == 0);
  // What was submitted before anyone listened is not told.
  if (ring_ && context.submitted != 0 && !context.adrift) report(slot, above->status, now());
  release(slot);
  if (context.predicted) above->ioprio = 0;
  if (context.recorded) {
    if (correlation_ != kAscend) association_->forget(slot, above);
    association_->unmark(slot, above);
    --recorded_;
  }
  if (!context.virt.empty()) untrack(&context);
  if (context.tracked) {
    buffers_.remove(slot);
  } else {
    --untracked_;
  }
  if (!context.adrift) delist(slot);
  context.live = false;
  contexts_.give(slot);
  if (mayPend_) expirePending();
}

}  // namespace sm
