// Watching: its beginning, its end, and when learning may begin (rule 7).
#include "correlate/correlator.h"

#include <algorithm>
#include <utility>

#include "correlate/seeded_bugs.h"

namespace sm {

Correlator::Correlator(const sm_stack* stack, AddressMap& map, const AssociationSpec& association,
                       Correlation correlation, uint32_t capacity, uint32_t slots, uint64_t shadowBytes)
    : stack_(stack),
      map_(map),
      correlation_(correlation),
      capacity_(capacity),
      contexts_(std::max(capacity, slots)),
      evidence_(2 * std::max(capacity, slots)),
      buffers_(contexts_),
      association_(association.make(std::max(capacity, slots), buffers_)),
      hints_(association_->hints()),
      observed_(hints_ ? std::make_unique<Observed>() : nullptr),
      content_(association_->content()),
      mayPend_(correlation_ != kDescend || content_),
      shadowRoom_(shadowBytes) {}

Correlator::~Correlator() = default;

bool Correlator::tryLearning() {
  if (settling_ && stack_->busy_before(stack_, settleStamp_) == 0) {
    settling_ = false;
    learning_ = true;
  }
  if (unsettled_) {
    unsettled_ = false;
    auto settle = [this](Watched& each, bool quiet) {
      if (each.settled || each.since == Watched::kNever) return;
      each.settled = quiet && stack_->busy_before(stack_, each.since) == 0;
      unsettled_ |= !each.settled;
    };
    for (Watched& disk : disks_) settle(disk, true);
    for (DeviceState& device : devices_) settle(device, device.quiet || !device.observed);
  }
  return learning_;
}

void Correlator::enter(Watched* watched) {
  watched->watched = true;
  watched->settled = watched->left = false;
  watched->since = Watched::kNever;
}

void Correlator::entered(uint64_t stamp) {
  std::lock_guard lock(map_.mutex());
  auto enter = [&](Watched& each) {
    if (!each.watched || each.since != Watched::kNever) return;
    each.since = stamp;
    each.settled = seeded(Bug::kAttachLearns);
    unsettled_ = true;
    settleTick_ = 0;
  };
  for (Watched& disk : disks_) enter(disk);
  for (DeviceState& device : devices_) enter(device);
  tryLearning();
}

void Correlator::settle(uint64_t stamp) {
  std::lock_guard lock(map_.mutex());
  settleStamp_ = stamp;
  settleTick_ = 0;
  settling_ = true;
  learning_ = seeded(Bug::kAttachLearns);
  tryLearning();
}

bool Correlator::learning() {
  std::lock_guard lock(map_.mutex());
  return tryLearning() && !unsettled_;
}

void Correlator::lost() {
  std::lock_guard lock(map_.mutex());
  lostLocked();
}

void Correlator::lostLocked() {
  ++counters_.losses;
  if (seeded(Bug::kLostKeeps)) return;
  if (learning_ || !lostBefore_) {  // else nothing has become mapped since the last loss
    map_.staleAll();
    for (uint32_t i = 0; i < contexts_.made(); ++i) contexts_[i].learns = false;
  }
  lostBefore_ = true;
  learning_ = false;
  settling_ = true;
  settleStamp_ = stack_->stamp(stack_);
  settleTick_ = 0;
  if (observed_) mustBeQuiet();
}

bool Correlator::watchDisk(DiskKey disk) {
  std::lock_guard lock(map_.mutex());
  if (!map_.watchDisk(disk, this)) return false;
  map_.staleDisk(disk);
  if (disks_.size() <= disk) disks_.resize(disk + 1);
  enter(&disks_[disk]);
  disks_[disk].active = &map_.activeOf(disk);
  return true;
}

bool Correlator::watchDevice(DeviceKey device, bool shared) {
  std::lock_guard lock(map_.mutex());
  if (!map_.watchDevice(device, this)) return false;
  map_.staleDevice(device);
  if (devices_.size() <= device) devices_.resize(device + 1);
  enter(&devices_[device]);
  devices_[device].shared = shared;
  devices_[device].observed = false;
  devices_[device].active = &map_.activeOn(device);
  devices_[device].ledger = &map_.ledgerOf(device);
  return true;
}

void Correlator::leaveDisk(DiskKey disk) {
  std::lock_guard lock(map_.mutex());
  if (std::exchange(disks_[disk].left, true)) return;
  if (!seeded(Bug::kDetachKeeps)) map_.staleDisk(disk);
  disks_[disk].settled = false;
  disks_[disk].since = Watched::kNever;
  disks_[disk].active->overlapping(
      {0, UINT64_MAX}, [&](ActiveRanges::Ref ref, Range) { contexts_[ref & ActiveRanges::kSlot].learns = false; });
}

void Correlator::leaveDevice(DeviceKey device) {
  std::lock_guard lock(map_.mutex());
  if (std::exchange(devices_[device].left, true)) return;
  if (!seeded(Bug::kDetachKeeps)) map_.staleDevice(device);
  devices_[device].settled = false;
  devices_[device].since = Watched::kNever;
  devices_[device].active->overlapping(
      {0, UINT64_MAX}, [&](ActiveRanges::Ref ref, Range) { evidence_[ref & ActiveRanges::kSlot].unfit = true; });
}

void Correlator::unwatchDisk(DiskKey disk) {
  std::lock_guard lock(map_.mutex());
  for (uint32_t i = 0; i < contexts_.made(); ++i) {
    if (!contexts_[i].live || contexts_[i].adrift || contexts_[i].disk != disk) continue;
    delist(i);
    contexts_[i].adrift = true;
    contexts_[i].virt = {};
  }
  disks_[disk].active->clear();
  disks_[disk].watched = false;
  map_.unwatchDisk(disk);
  expirePending();
}

void Correlator::unwatchDevice(DeviceKey device) {
  std::lock_guard lock(map_.mutex());
  devices_[device].active->overlapping(
      {0, UINT64_MAX}, [&](ActiveRanges::Ref ref, Range) { evidence_[ref & ActiveRanges::kSlot].adrift = true; });
  devices_[device].active->clear();
  devices_[device].watched = false;
  map_.unwatchDevice(device);
}

void Correlator::subscribe(EventRing* ring, void (*wake)(void*), void* context) {
  std::lock_guard lock(map_.mutex());
  ring_ = ring;
  wake_ = wake;
  wakeContext_ = context;
}

CorrelatorCounters Correlator::counters() const {
  std::lock_guard lock(map_.mutex());
  return counters_;
}

uint64_t Correlator::insideDisk(DiskKey disk) const {
  std::lock_guard lock(map_.mutex());
  return disks_[disk].inside;
}

uint64_t Correlator::insideDevice(DeviceKey device) const {
  std::lock_guard lock(map_.mutex());
  return devices_[device].inside;
}

}  // namespace sm
