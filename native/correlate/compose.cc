// Where the bytes of a request went through the kernel, by its trail: the exact rule of observed.h, level by level.
#include <algorithm>
#include <cstring>

#include "correlate/correlator.h"
#include "correlate/hint.h"
#include "correlate/issue_order.h"
#include "correlate/observed.h"

namespace sm {

namespace {

uint64_t lengthOf(const std::vector<Observed::Step>& steps) {
  uint64_t sum = 0;
  for (const Observed::Step& step : steps) sum += step.phys.length();
  return sum;
}

// Records of several CPUs come nearly in the order of time.
void inOrder(std::vector<Observed::Step>* steps) {
  std::stable_sort(steps->begin(), steps->end(), [](const auto& a, const auto& b) { return a.time < b.time; });
}

// The kernel may begin, wait for something, and begin again from the start (io_uring's attempt without waiting): then
// the first pieces are there twice, in the same places. Leaves the second attempt, of `length` bytes, where that is so.
// Of reads alone: what is written twice is in doubt.
void dropBegunAgain(std::vector<Observed::Step>* steps, uint64_t length) {
  const uint64_t sum = lengthOf(*steps);
  if (sum <= length || sum >= 2 * length) return;
  size_t again = 0;
  uint64_t before = 0;
  while (before < sum - length) before += (*steps)[again++].phys.length();
  if (before != sum - length) return;
  for (size_t first = 0, second = again; first < again; ++first, ++second) {
    const Range one = (*steps)[first].phys, two = (*steps)[second].phys;
    const bool last = first + 1 == again;  // it may have been cut short
    if (one.begin != two.begin || (last ? one.end > two.end : one.end != two.end)) return;
  }
  steps->erase(steps->begin(), steps->begin() + static_cast<ptrdiff_t>(again));
}

// A request that a driver could not take at once is issued again: the last time counts.
void dropReissued(std::vector<Observed::Step>* issues) {
  for (size_t i = issues->size(); i-- > 0;) {
    const Range phys = (*issues)[i].phys;
    const auto again = [&](const Observed::Step& step) {
      return step.phys.begin == phys.begin && step.phys.end == phys.end;
    };
    const auto end = issues->begin() + static_cast<ptrdiff_t>(i);
    const auto from = std::remove_if(issues->begin(), end, again);
    i -= static_cast<size_t>(end - from);
    issues->erase(from, end);
  }
}

bool byPlace(const Observed::Step& a, const Observed::Step& b) { return a.phys.begin < b.phys.begin; }

}  // namespace

// At the completion of a request, before it is resolved: all that the kernel did for it has ended, and was told.
void Correlator::settleObserved(uint32_t slot, bool succeeded) {
  Context& context = contexts_[slot];
  const uint64_t time = now();
  eachEvidence(slot, [&](uint32_t, Evidence& evidence, int) {
    evidence.done = true;
    evidence.ok = succeeded;
    evidence.landedAt = time;
    if (evidence.adrift || !sm_op_modifies(evidence.op)) return;
    ActiveRanges& active = *devices_[evidence.device].active;
    active.landed(evidence.position);
    if (evidence.demoted) active.decided(evidence.position);
  });
  context.lastCompleted = time;
  if (context.predicted) return settlePredicted(slot, succeeded);
  if (!succeeded || !context.recorded || !context.learns) return;
  compose(slot, observed_->trails[hints_->tagFor(slot)]);
}

void Correlator::compose(uint32_t slot, const Observed::Trail& trail) {
  const Context& context = contexts_[slot];
  Observed& seen = *observed_;
  const Observed::Chain& down = seen.chains[context.disk];
  const std::vector<DeviceKey>& chain = down.devices;
  if (down.trusted == 0) return;
  for (const Observed::Step& step : trail) {
    if (std::find(chain.begin(), chain.end(), step.device) != chain.end()) continue;
    ++seen.counters.foreign;
    return;
  }
  const uint64_t unordered = seen.counters.unordered;
  seen.lower.assign(1, {context.virt, 0});  // the request itself, above all levels
  for (size_t level = 0; level < down.trusted; ++level) {
    seen.starts.clear();
    for (const Observed::Step& step : trail) {
      if (step.device == chain[level] && step.evidence != kNoSlot) seen.starts.push_back(step);
    }
    inOrder(&seen.starts);
    if (context.op == SM_OP_READ) dropBegunAgain(&seen.starts, context.virt.length());
    const uint64_t bytes = lengthOf(seen.starts);
    if (bytes != context.virt.length()) {
      ++(bytes < context.virt.length() ? seen.counters.missing : seen.counters.excess);
      return;
    }
    if (!startedOnce()) return;
    // Of the lowest device issues need not be told.
    if (level + 1 < chain.size() && !issuedAsStarted(trail, chain[level])) return;
    seen.upper.swap(seen.lower);
    seen.issues.clear();
    if (level > 0 && !issuedInOrder(context, trail, chain[level - 1])) return;
    if (!layPieces()) return;
  }
  if (seen.counters.unordered == unordered) ++seen.counters.composed;
  if (seen.sample.wanted > 0) keepSample(slot);
  if (seen.halfAge != 0) freshnessOf(context.disk).confirm(context.virt, halfNow());
}

// Keeps the first bytes of a request whose pieces nothing has tainted.
void Correlator::keepSample(uint32_t slot) {
  const Context& context = contexts_[slot];
  Sample& sample = observed_->sample;
  const Observed::Chain& down = observed_->chains[context.disk];
  if (!context.taints.empty() || context.sharedBuffer || context.iovCount == 0) return;
  uint64_t length = std::min(Sample::kMost, context.iov[0].iov_len);
  sample.places.clear();
  for (size_t level = 0; level < down.trusted; ++level) {
    eachEvidence(slot, [&](uint32_t, const Evidence& evidence, int) {
      if (evidence.device != down.devices[level] || !evidence.taints.empty() || evidence.unfit) return;
      for (int i = 0; i < evidence.pieceCount; ++i) {
        const Piece& piece = evidence.pieces[i];
        if (piece.at != 0 || sample.places.size() != level) continue;
        sample.places.push_back({evidence.device, evidence.phys.begin + piece.from});
        length = std::min(length, piece.length);
      }
    });
    if (sample.places.size() != level + 1) return;
  }
  std::memcpy(sample.bytes.data(), context.iov[0].iov_base, length);
  sample.disk = context.disk;
  sample.virt = {context.virt.begin, context.virt.begin + length};
  sample.taken = true;
  sample.wanted = 0;
  ++sample.number;
}

// Sorts what started by its place. Whether no byte did twice: a read of a hole that was begun again has the right
// length by chance.
bool Correlator::startedOnce() {
  Observed& seen = *observed_;
  seen.startedThere = seen.starts;
  std::sort(seen.startedThere.begin(), seen.startedThere.end(), byPlace);
  for (size_t i = 1; i < seen.startedThere.size(); ++i) {
    if (seen.startedThere[i].phys.begin >= seen.startedThere[i - 1].phys.end) continue;
    ++seen.counters.excess;
    return false;
  }
  return true;
}

// Whether that is what was issued with the tag.
bool Correlator::issuedAsStarted(const Observed::Trail& trail, DeviceKey device) {
  Observed& seen = *observed_;
  seen.issuedThere.clear();
  for (const Observed::Step& step : trail) {
    if (step.device == device && step.evidence == kNoSlot) seen.issuedThere.push_back(step);
  }
  std::sort(seen.issuedThere.begin(), seen.issuedThere.end(), byPlace);
  auto issue = seen.issuedThere.begin();
  const auto end = seen.issuedThere.end();
  uint64_t done = 0;  // all that was issued up to here has started
  for (const Observed::Step& start : seen.startedThere) {
    for (uint64_t at = start.phys.begin; at < start.phys.end; at = done) {
      while (issue != end && issue->phys.end <= at) ++issue;
      if (issue == end || issue->phys.begin > at || (issue->phys.begin < at && done != at)) {
        ++seen.counters.missing;
        return false;
      }
      done = std::min(start.phys.end, issue->phys.end);
    }
  }
  while (issue != end && issue->phys.end <= done) ++issue;
  if (issue == end) return true;
  ++seen.counters.excess;
  return false;
}

// Brings what was laid on the upper device into the order in which it was issued there.
bool Correlator::issuedInOrder(const Context& context, const Observed::Trail& trail, DeviceKey device) {
  Observed& seen = *observed_;
  for (const Observed::Step& step : trail) {
    if (step.device == device && step.evidence == kNoSlot) seen.issues.push_back(step);
  }
  const uint64_t bytes = context.virt.length();
  inOrder(&seen.issues);
  if (context.op == SM_OP_READ) dropBegunAgain(&seen.issues, bytes);
  dropReissued(&seen.issues);
  const uint64_t issued = lengthOf(seen.issues);
  if (issued != bytes) {
    ++(issued < bytes ? seen.counters.missing : seen.counters.excess);
    return false;
  }
  if (!orderIssues(&seen.issues, seen.starts)) {
    ++seen.counters.unordered;
    return false;
  }
  const auto nowhere = [](const Observed::Step& issue) { return issue.phys.begin == Observed::kNowhere; };
  if (std::any_of(seen.issues.begin(), seen.issues.end(), nowhere)) ++seen.counters.unordered;
  std::sort(seen.upper.begin(), seen.upper.end(),
            [](const auto& a, const auto& b) { return a.phys.begin < b.phys.begin; });
  seen.lower.clear();
  for (const Observed::Step& issue : seen.issues) {
    if (nowhere(issue)) {
      seen.lower.push_back({issue.phys, Observed::kNowhere});
      continue;
    }
    auto laid = std::upper_bound(seen.upper.begin(), seen.upper.end(), issue.phys.begin,
                                 [](uint64_t offset, const Observed::Laid& each) { return offset < each.phys.begin; });
    if (laid != seen.upper.begin()) --laid;
    for (uint64_t at = issue.phys.begin; at < issue.phys.end; ++laid) {
      if (laid == seen.upper.end() || laid->phys.begin > at || laid->phys.end <= at) {
        ++seen.counters.missing;
        return false;
      }
      const uint64_t end = std::min(laid->phys.end, issue.phys.end);
      seen.lower.push_back({{at, end}, laid->from(at - laid->phys.begin)});
      at = end;
    }
  }
  seen.upper.swap(seen.lower);
  return true;
}

// Lays the pieces of a level, one behind the other, over what stands above it, and gives each its evidence's positions.
bool Correlator::layPieces() {
  Observed& seen = *observed_;
  seen.lower.clear();
  size_t above = 0;
  uint64_t used = 0;  // bytes of upper[above]
  size_t issue = 0;   // the piece's, where there are issues
  uint64_t left = seen.issues.empty() ? UINT64_MAX : seen.issues[0].phys.length();
  for (const Observed::Step& step : seen.starts) {
    // A loop device passes each request on by itself.
    if (left == 0) left = seen.issues[++issue].phys.length();
    if (step.phys.length() > left) {
      ++seen.counters.crossing;
      return false;
    }
    if (!seen.issues.empty()) left -= step.phys.length();
    Evidence& evidence = evidence_[step.evidence];
    evidence.located = true;
    for (uint64_t done = 0; done < step.phys.length();) {
      const Observed::Laid& laid = seen.upper[above];
      const uint64_t part = std::min(laid.phys.length() - used, step.phys.length() - done);
      if (laid.at != Observed::kNowhere) evidence.addPiece({done, laid.from(used), part});
      seen.lower.push_back({{step.phys.begin + done, step.phys.begin + done + part}, laid.from(used)});
      done += part;
      used += part;
      if (used == laid.phys.length()) ++above, used = 0;
    }
  }
  return true;
}

}  // namespace sm
