// Requests that the map knows all about go without a tag of their own: all of them have one I/O priority in common, so
// that their pieces keep being merged with each other. What the kernel then does with a write is expected, place by
// place; only if all of it, and exactly that, is seen, the mapping stands. A read teaches nothing, and is not even
// told.
#include <algorithm>

#include "correlate/correlator.h"
#include "correlate/hint.h"
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

// Whether the request can go without a tag of its own; then it has that of all that are known.
bool Correlator::predict(Context* context, sm_request* above) {
  Observed& seen = *observed_;
  if (seen.halfAge == 0 || above->ioprio != 0 || !context->learns || !context->taints.empty() || context->virt.empty())
    return false;
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
  if (context->op == SM_OP_WRITE && !expect(context)) return false;
  context->predicted = true;
  above->ioprio = hints_->knownPriority();
  return true;
}

bool Correlator::expect(Context* context) {
  Observed& seen = *observed_;
  for (const Mapping& each : seen.places) {
    const uint32_t number = seen.expectations.take();
    if (number == kNoSlot) {
      endExpectations(context);
      return false;
    }
    Observed::Expectation& expected = seen.expectations[number];
    expected = {.device = each.place.device,
                .phys = {each.place.offset, each.place.offset + each.virt.length()},
                .next = context->firstExpectation};
    expected.position = seen.expected[expected.device].add(expected.phys, number);
    context->firstExpectation = number;
  }
  return true;
}

// Whether all that was expected came, and nothing else could have been it.
bool Correlator::endExpectations(Context* context) {
  Observed& seen = *observed_;
  bool all = true;
  for (uint32_t number = context->firstExpectation; number != kNoSlot;) {
    const Observed::Expectation expected = seen.expectations[number];
    seen.expected[expected.device].remove(
        expected.position, [&](uint32_t moved, uint32_t position) { seen.expectations[moved].position = position; });
    seen.expectations.give(number);
    number = expected.next;
    all &= expected.seen == expected.phys.length() && !expected.doubted;
  }
  context->firstExpectation = kNoSlot;
  return all;
}

// A write of those that are known: whether all of it was expected. Every piece comes once, and in order.
bool Correlator::isExpected(const BlockIo& io) {
  Observed& seen = *observed_;
  seen.matched.clear();
  for (uint64_t at = io.phys.begin; at < io.phys.end;) {
    uint32_t found = kNoSlot;
    seen.expected[io.device].overlapping({at, at + 1}, [&](ActiveRanges::Ref number, Range) {
      const Observed::Expectation& expected = seen.expectations[number];
      if (expected.phys.begin + expected.seen == at) found = number;
    });
    if (found == kNoSlot) return false;
    seen.matched.push_back(found);
    at = seen.expectations[found].phys.end;
  }
  const Observed::Strays& strays = seen.strays[io.device];
  bool doubted = strays.everywhere || strays.ranges.meets(io.phys);
  devices_[io.device].active->overlapping(io.phys, [&](ActiveRanges::Ref ref, Range common) {
    taint(&evidence_[ref & ActiveRanges::kSlot].taints, common);
    doubted = true;
  });
  uint64_t at = io.phys.begin;
  for (const uint32_t number : seen.matched) {
    Observed::Expectation& expected = seen.expectations[number];
    const uint64_t end = std::min(expected.phys.end, io.phys.end);
    expected.seen += end - at;
    expected.doubted |= doubted;
    at = end;
  }
  seen.sample.modifiedPlace(io.device, io.phys);
  return true;
}

// Whether a merge may have been of such a write: it lies beside one that has begun.
bool Correlator::mayBeKnown(const BlockIo& io) const {
  bool beside = false;
  observed_->expected[io.device].overlapping({0, UINT64_MAX}, [&](ActiveRanges::Ref number, Range) {
    const Observed::Expectation& expected = observed_->expectations[number];
    if (expected.seen == 0) return;
    beside |= io.kind == BlockIo::kBackMerge ? expected.phys.begin + expected.seen == io.phys.begin
                                             : expected.phys.begin == io.phys.end;
  });
  return beside;
}

// Whether a read without a priority that is told is one of those that are known, which went where the map says.
bool Correlator::isKnownRead(const BlockIo& io) const {
  DiskKey disk = kNoKey;
  Range virt;
  if (!map_.owner(io.device, io.phys, &disk, &virt)) return false;
  bool found = false;
  disks_[disk].active->overlapping(virt, [&](ActiveRanges::Ref ref, Range common) {
    const Context& context = contexts_[ref & ActiveRanges::kSlot];
    found |= context.predicted && context.op == SM_OP_READ && common.length() == virt.length();
  });
  return found;
}

// A known write went where none was expected: it may be any that has not come.
void Correlator::doubtExpected(DeviceKey device, Range phys) {
  observed_->expected[device].overlapping(
      phys, [&](ActiveRanges::Ref number, Range) { observed_->expectations[number].doubted = true; });
}

void Correlator::settlePredicted(uint32_t slot, bool succeeded) {
  Observed& seen = *observed_;
  Context& context = contexts_[slot];
  const bool all = endExpectations(&context);
  ++(all ? seen.counters.predicted : seen.counters.astray);
  if (context.op == SM_OP_WRITE) {
    context.confirmed = all && succeeded && context.taints.empty();
  } else {
    const Observed::Chain& down = seen.chains[context.disk];
    for (size_t level = 0; level < down.trusted; ++level) {
      devices_[down.devices[level]].ledger->fates[static_cast<int>(Fate::kAttributed)].add(context.virt.length(), 0);
    }
  }
}

void Correlator::countedReads(DeviceKey device, uint64_t operations) {
  devices_[device].ledger->fates[static_cast<int>(Fate::kAttributed)].add(0, operations);
}

}  // namespace sm
