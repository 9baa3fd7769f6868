// Requests that the map knows all about go without a tag of their own: all of them have one I/O priority in common, so
// that their pieces keep being merged with each other. What the kernel then does with a write is expected, place by
// place; only if all of it, and exactly that, is seen, the mapping stands. What begins as expected the kernel marks
// itself, and tells nobody (expected_write.h). A read teaches nothing, and is not told either.
#include <algorithm>
#include <atomic>

#include "correlate/correlator.h"
#include "correlate/hint.h"
#include "correlate/observed.h"

namespace sm {

namespace {
constexpr size_t kMostPieces = 64;  // of a request; what is in more is tagged
constexpr uint64_t kSector = 512;   // bytes
}  // namespace

void Correlator::tagWhatIsUnknown(uint64_t maxAge) {
  std::lock_guard lock(map_.mutex());
  observed_->halfAge = std::max<uint64_t>(1, maxAge / 2);
}

// Seldom another than the last time: a division for each request would be a waste.
uint64_t Correlator::halfNow() {
  Observed& seen = *observed_;
  const uint64_t now = stack_->now(stack_);
  if (now - seen.half * seen.halfAge >= seen.halfAge) seen.half = now / seen.halfAge;
  return seen.half;
}

Freshness& Correlator::freshnessOf(DiskKey disk) {
  auto& all = observed_->freshness;
  if (all.size() <= disk) all.resize(disk + 1);
  return all[disk];
}

// Whether the map knows where all of it goes, on each device that it goes to, and has seen it of late. Leaves the
// places in `places`.
bool Correlator::knowsPlaces(DiskKey disk, Range virt) {
  Observed& seen = *observed_;
  if (seen.halfAge == 0 || virt.empty() || !freshnessOf(disk).isFresh(virt, halfNow())) return false;
  const Observed::Chain& down = seen.chains[disk];
  if (down.trusted == 1) {  // most requests have one place
    seen.places.resize(1);
    Mapping& only = seen.places[0];
    only.virt = virt;
    if (map_.onlyPlace(disk, virt, &only.place)) return only.place.device == down.devices[0];
  }
  seen.places.clear();
  if (down.trusted == 0 || !map_.mappedPlaces(disk, virt, &seen.places)) return false;
  if (seen.places.size() > kMostPieces) return false;
  // On each device all of it, once.
  std::sort(seen.places.begin(), seen.places.end(), [](const Mapping& a, const Mapping& b) {
    return std::pair(a.place.device, a.virt.begin) < std::pair(b.place.device, b.virt.begin);
  });
  size_t at = 0, devices = 0;
  while (at < seen.places.size()) {
    const DeviceKey device = seen.places[at].place.device;
    uint64_t next = virt.begin;
    for (; at < seen.places.size() && seen.places[at].place.device == device; ++at) {
      if (seen.places[at].virt.begin != next) return false;
      next = seen.places[at].virt.end;
    }
    const auto end = down.devices.begin() + static_cast<ptrdiff_t>(down.trusted);
    if (next != virt.end || std::find(down.devices.begin(), end, device) == end) return false;
    ++devices;
  }
  return devices == down.trusted;
}

// Whether the request can go without a tag of its own; then it has that of all that are known.
bool Correlator::predict(Context* context, sm_request* above) {
  if (above->ioprio != 0 || !context->learns || !context->taints.empty()) return false;
  if (context->op != SM_OP_READ && context->op != SM_OP_WRITE) return false;
  if (!knowsPlaces(context->disk, context->virt)) return false;
  if (context->op == SM_OP_WRITE && !expect(context)) return false;
  context->predicted = true;
  above->ioprio = hints_->knownPriority();
  return true;
}

// A read that is known, whose completion nobody asks for: nothing is kept of it. What meets it in flight does not
// matter, for it teaches nothing, wherever it goes.
bool Correlator::predictRead(sm_request* above, DiskKey disk) {
  if (above->op != SM_OP_READ || above->ioprio != 0 || !knowsPlaces(disk, rangeOf(above))) return false;
  above->ioprio = hints_->knownPriority();
  ++untracked_;
  return true;
}

void Correlator::completedKnownRead(sm_request* above, DiskKey disk) {
  --untracked_;
  above->ioprio = 0;
  ++observed_->counters.predicted;
  countKnownBytes(disk, above->length);
}

void Correlator::countKnownBytes(DiskKey disk, uint64_t bytes) {
  const Observed::Chain& down = observed_->chains[disk];
  for (size_t level = 0; level < down.trusted; ++level)
    devices_[down.devices[level]].ledger->fates[static_cast<int>(Fate::kAttributed)].add(bytes, 0);
}

// Where something else may be in flight, nothing is expected: nobody tells which of the two is there in the end.
bool Correlator::expect(Context* context) {
  Observed& seen = *observed_;
  for (const Mapping& each : seen.places) {
    const DeviceKey device = each.place.device;
    const Range phys = {each.place.offset, each.place.offset + each.virt.length()};
    const Observed::Strays& strays = seen.strays[device];
    bool meets = strays.everywhere || strays.ranges.meets(phys);
    const auto met = [&](ActiveRanges::Ref, Range) { meets = true; };
    devices_[device].active->overlapping(phys, met);
    seen.expected[device].overlapping(phys, met);
    const uint32_t number = meets ? kNoSlot : seen.expectations.take();
    if (number == kNoSlot) {
      endExpectations(context, false);
      return false;
    }
    Observed::Expectation& expected = seen.expectations[number];
    expected.doubted = false;
    expected.device = device;
    expected.phys = phys;
    expected.seen = 0;
    expected.slot = nullptr;
    expected.next = context->firstExpectation;
    expected.position = seen.expected[device].add(phys, number);
    tellKernel(&expected);
    context->firstExpectation = number;
    seen.sample.modifiedPlace(device, phys);
  }
  return true;
}

void Correlator::tellKernel(Observed::Expectation* expected) {
  if (!observed_->words || expected->phys.begin % kSector != 0 || expected->phys.length() % kSector != 0) return;
  const sm_expected_word word =
      sm_expected(expected->device, expected->phys.begin / kSector, expected->phys.length() / kSector);
  if (word == 0) return;
  sm_expected_word* slot = &observed_->words[sm_expected_slot(word)];
  if (*slot != 0) slot = &observed_->words[sm_expected_slot(word) ^ 1];
  if (*slot != 0) return;  // both are others': then its start is told
  std::atomic_ref(*slot).store(word, std::memory_order_release);
  expected->slot = slot;
  expected->word = word;
}

bool Correlator::beganUntold(const Observed::Expectation& expected) const {
  return expected.slot && std::atomic_ref(*expected.slot).load(std::memory_order_acquire) != expected.word;
}

// Whether all that was expected came, and nothing else could have been it. What failed may never have begun: what came
// then is another's, and may be in flight still.
bool Correlator::endExpectations(Context* context, bool succeeded) {
  Observed& seen = *observed_;
  bool all = succeeded;
  for (uint32_t number = context->firstExpectation; number != kNoSlot;) {
    const Observed::Expectation& expected = seen.expectations[number];
    const DeviceKey device = expected.device;
    const Range phys = expected.phys;
    uint64_t came = expected.seen;
    if (expected.slot && std::atomic_ref(*expected.slot).exchange(0, std::memory_order_acq_rel) != expected.word) {
      came += phys.length();
      devices_[device].ledger->fates[static_cast<int>(Fate::kAttributed)].add(phys.length(), 0);
    }
    all &= came == phys.length() && !expected.doubted;
    seen.expected[device].remove(
        expected.position, [&](uint32_t moved, uint32_t position) { seen.expectations[moved].position = position; });
    const uint32_t next = expected.next;
    seen.expectations.give(number);
    number = next;
    if (!succeeded && came > 0) [[unlikely]]
      tookPlace({.op = SM_OP_WRITE, .device = device, .phys = phys, .time = clockNow()});
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
      if (expected.phys.begin + expected.seen == at && !beganUntold(expected)) found = number;
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

// A known write went where none was expected: it may be any that has not come.
void Correlator::doubtExpected(DeviceKey device, Range phys) {
  observed_->expected[device].overlapping(
      phys, [&](ActiveRanges::Ref number, Range) { observed_->expectations[number].doubted = true; });
}

void Correlator::settlePredicted(uint32_t slot, bool succeeded) {
  Observed& seen = *observed_;
  Context& context = contexts_[slot];
  const bool all = endExpectations(&context, succeeded);
  ++(all ? seen.counters.predicted : seen.counters.astray);
  if (context.op == SM_OP_WRITE) {
    context.confirmed = all && context.taints.empty();
  } else {
    countKnownBytes(context.disk, context.virt.length());
  }
}

void Correlator::countedKnown(DeviceKey device, uint64_t operations) {
  devices_[device].ledger->fates[static_cast<int>(Fate::kAttributed)].add(0, operations);
}

}  // namespace sm
