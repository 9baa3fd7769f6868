// Requests that go without a tag, because the map knows where they go: their pieces keep being merged with others. What
// the kernel then does is expected, place by place; only if all of it, and exactly that, is seen, the mapping stands.
#include <algorithm>

#include "correlate/correlator.h"
#include "correlate/observed.h"

namespace sm {

namespace {
constexpr size_t kMostPieces = 64;  // of a request; what is in more is tagged
}

void Correlator::tagWhatIsUnknown(uint64_t maxAge) {
  std::lock_guard lock(map_.mutex());
  observed_->halfAge = std::max<uint64_t>(1, maxAge / 2);
}

uint64_t Correlator::halfNow() const { return stack_->now(stack_) / observed_->halfAge; }

Freshness& Correlator::freshnessOf(DiskKey disk) {
  auto& all = observed_->freshness;
  if (all.size() <= disk) all.resize(disk + 1);
  return all[disk];
}

// Whether the request can go without a tag; then what it will do is expected.
bool Correlator::predict(uint32_t slot, Context* context) {
  Observed& seen = *observed_;
  if (seen.halfAge == 0 || !context->learns || !context->taints.empty() || context->virt.empty()) return false;
  if (context->op != SM_OP_READ && context->op != SM_OP_WRITE) return false;
  if (!freshnessOf(context->disk).isFresh(context->virt, halfNow())) return false;
  const Observed::Chain& down = seen.chains[context->disk];
  seen.places.clear();
  if (down.trusted == 0 || !map_.mappedPlaces(context->disk, context->virt, &seen.places)) return false;
  if (seen.places.size() > kMostPieces) return false;
  // On each device all of it, once.
  std::sort(seen.places.begin(), seen.places.end(), [](const Mapping& a, const Mapping& b) {
    return std::pair(a.place.device, a.virt.begin) < std::pair(b.place.device, b.virt.begin);
  });
  size_t at = 0, devices = 0;
  while (at < seen.places.size()) {
    const DeviceKey device = seen.places[at].place.device;
    uint64_t next = context->virt.begin;
    for (; at < seen.places.size() && seen.places[at].place.device == device; ++at) {
      if (seen.places[at].virt.begin != next) return false;
      next = seen.places[at].virt.end;
    }
    const auto end = down.devices.begin() + static_cast<ptrdiff_t>(down.trusted);
    if (next != context->virt.end || std::find(down.devices.begin(), end, device) == end) return false;
    ++devices;
  }
  if (devices != down.trusted) return false;
  for (const Mapping& each : seen.places) {
    const uint32_t number = seen.expectations.take();
    Observed::Expectation& expected = seen.expectations[number];
    expected = {.context = slot,
                .op = context->op,
                .device = each.place.device,
                .phys = {each.place.offset, each.place.offset + each.virt.length()},
                .at = each.virt.begin - context->virt.begin};
    expected.position = seen.expected[expected.device].add(expected.phys, number);
    expected.next = context->firstExpectation;
    context->firstExpectation = number;
  }
  context->predicted = true;
  return true;
}

// Takes an I/O without a tag for what was expected, where all of it was. Every piece comes once, and in order.
bool Correlator::isExpected(const BlockIo& io, bool merged) {
  Observed& seen = *observed_;
  seen.matched.clear();
  for (uint64_t at = io.phys.begin; at < io.phys.end;) {
    uint32_t found = kNoSlot;
    seen.expected[io.device].overlapping({at, at + 1}, [&](ActiveRanges::Ref number, Range) {
      const Observed::Expectation& expected = seen.expectations[number];
      if (expected.op == io.op && expected.phys.begin + expected.seen == at) found = number;
    });
    if (found == kNoSlot) return false;
    seen.matched.push_back(found);
    at = seen.expectations[found].phys.end;
  }
  uint64_t at = io.phys.begin;
  for (const uint32_t number : seen.matched) {
    Observed::Expectation& expected = seen.expectations[number];
    const Range part{at, std::min(expected.phys.end, io.phys.end)};
    const uint64_t position = expected.at + expected.seen;
    expected.seen += part.length();
    at = part.end;
    follow(expected.context, io.op, part, io.device, position);
    devices_[io.device].ledger->fates[static_cast<int>(Fate::kAttributed)].add(part.length(), 0);
  }
  devices_[io.device].ledger->fates[static_cast<int>(Fate::kAttributed)].add(0, merged ? 0 : 1);
  return true;
}

// Enters what is known to be a context's, at `position` of it.
void Correlator::follow(uint32_t contextSlot, uint8_t op, Range phys, DeviceKey device, uint64_t position) {
  const uint32_t slot = enterEvidence(op, phys, device);
  if (slot == kNoSlot) {
    contexts_[contextSlot].lostEvidence = true;
    ++counters_.evidenceLost;
    return;
  }
  Evidence& evidence = evidence_[slot];
  taintByStrays(&evidence);
  own(slot, contextSlot);
  evidence.addPiece({0, position, phys.length()});
  evidence.located = true;
}

// Something else was modified on the device: it might be what was expected elsewhere.
void Correlator::doubtExpected(DeviceKey device) {
  observed_->expected[device].overlapping({0, UINT64_MAX}, [&](ActiveRanges::Ref number, Range) {
    Observed::Expectation& expected = observed_->expectations[number];
    if (sm_op_modifies(expected.op)) expected.doubted = true;
  });
}

// At its completion: whether all that was expected came, and nothing else could have been it. What did not come, or is
// in doubt, teaches nothing.
void Correlator::settlePredicted(uint32_t slot) {
  Observed& seen = *observed_;
  Context& context = contexts_[slot];
  bool all = !context.lostEvidence;
  for (uint32_t number = context.firstExpectation; number != kNoSlot;) {
    const Observed::Expectation expected = seen.expectations[number];
    seen.expected[expected.device].remove(
        expected.position, [&](uint32_t moved, uint32_t position) { seen.expectations[moved].position = position; });
    seen.expectations.give(number);
    number = expected.next;
    const bool came = expected.seen == expected.phys.length() && !expected.doubted;
    all &= came;
    if (came) continue;
    eachEvidence(slot, [&](uint32_t, Evidence& evidence, int) {
      if (evidence.device == expected.device) evidence.unfit = true;
    });
  }
  context.firstExpectation = kNoSlot;
  ++(all ? seen.counters.predicted : seen.counters.astray);
  // It taught that all is as it was.
  context.confirmed = all && context.op == SM_OP_WRITE && context.taints.empty();
  eachEvidence(slot, [&](uint32_t, Evidence& evidence, int) {
    context.confirmed &=
        evidence.ok && !evidence.unfit && !evidence.adrift && !evidence.demoted && evidence.taints.empty();
    evidence.unfit |= context.op == SM_OP_READ;
  });
}

}  // namespace sm
