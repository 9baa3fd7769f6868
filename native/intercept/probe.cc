#include "intercept/probe.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "correlate/correlator.h"
#include "intercept/deadline.h"
#include "intercept/dispatch.h"
#include "intercept/keep.h"
#include "intercept/kernel/observer.h"
#include "intercept/record_filter.h"

namespace sm {

namespace {

constexpr uint64_t kSettleTimeout = 10'000'000'000;  // ns

std::vector<std::string> namesOf(uint8_t correlations) {
  std::vector<std::string> names;
  for (Correlation each : kCorrelations) {
    if (correlations & each) names.emplace_back(correlationName(each));
  }
  return names;
}

// Below: shows each request to the correlator, issued and landed.
class Tap : public Interposer {
 public:
  Tap(Correlator& correlator, DeviceKey key) : correlator_(correlator), key_(key) {}

  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    const uint64_t word = correlator_.issued(request, key_);
    if (word != Correlator::kUnseen && sm_request_push(request, landed, this, word) != 0) {
      // No room to see it come back: it counts as ended, and as a lost event.
      correlator_.landed(request, key_, word);
      correlator_.lost();
    }
    next->submit(next, device, request);
  }
  uint64_t inside() const override { return correlator_.insideDevice(key_); }
  const char* name() const override { return "probe"; }
  DeviceKey key() const { return key_; }

 private:
  static void landed(sm_request* request, void* context, uint64_t word) {
    Tap* tap = static_cast<Tap*>(context);
    tap->correlator_.landed(request, tap->key_, word);
    sm_request_pop(request);
  }

  Correlator& correlator_;
  const DeviceKey key_;
};

}  // namespace

struct Probe::State {
  const sm_stack* stack = nullptr;
  std::shared_ptr<AddressMap> map;
  std::unique_ptr<Correlator> correlator;
  // Where the kernel is the carrier: what stands in for the devices' taps, and what it could not see.
  std::unique_ptr<Observer> observer;
  std::function<std::string(const sm_disk*)> fileOf;
  std::vector<std::string> unseen;  // under the map's lock
  struct DiskPoint {
    sm_disk* disk;
    DiskKey key;
    std::unique_ptr<RecordFilter> filter;
  };
  struct DevicePoint {
    sm_device* device;
    DeviceKey key;
    std::unique_ptr<Tap> tap;
  };
  std::vector<DiskPoint> disks;
  std::vector<DevicePoint> devices;
  bool begun = false;
  bool ownsLock = false;  // the I/O thread, the map's
  bool stuck = false;     // something may still be inside: nothing is ever freed

  int removeDisk(size_t i, const Deadline& deadline);
  int removeDevice(size_t i, const Deadline& deadline);
};

int Probe::create(const sm_stack* stack, std::shared_ptr<AddressMap> map, const ProbeOptions& options,
                  std::unique_ptr<Probe>* out, std::string* why) {
  const auto registry = associationRegistry();
  auto spec = std::find_if(registry.begin(), registry.end(),
                           [&](const AssociationSpec& each) { return options.association == each.name; });
  if (spec == registry.end()) {
    *why = "there is no association '" + options.association + "'; there are:";
    for (const auto& each : registry) *why += std::string(" ") + each.name;
    return -ENOTSUP;
  }
  const auto correlation = std::find_if(std::begin(kCorrelations), std::end(kCorrelations),
                                        [&](Correlation each) { return correlationName(each) == options.correlation; });
  if (correlation == std::end(kCorrelations) || !(spec->correlations & *correlation)) {
    *why = "association '" + options.association + "' does not allow correlation '" + options.correlation +
           "'; it allows:";
    for (const std::string& each : namesOf(spec->correlations)) *why += " " + each;
    return -ENOTSUP;
  }
  if (options.capacity < 64 || options.capacity > (1u << 22)) {
    *why = "capacity must be between 64 and 4194304 contexts";
    return -EINVAL;
  }
  out->reset(new Probe());
  (*out)->state_ = std::make_shared<State>();
  State& state = *(*out)->state_;
  state.stack = stack;
  state.map = std::move(map);
  state.correlator = std::make_unique<Correlator>(stack, *state.map, *spec, *correlation, options.capacity,
                                                  options.slots, options.shadowBytes);
  if (!state.correlator->hints()) return 0;
  state.fileOf = options.fileOf;
  if (options.maxAge != 0) state.correlator->tagWhatIsUnknown(options.maxAge);
  return Observer::open(*state.map, *state.correlator, options.levels, &state.observer, why);
}

Probe::~Probe() {
  if (state_ && state_->stuck) keepForever(std::move(state_));
}

int Probe::addDisk(sm_disk* disk) {
  const DiskKey key = state_->map->internDisk({disk->vm, disk->name});
  const std::string file = state_->observer ? state_->fileOf(disk) : "";
  if (state_->observer && file.empty()) return 0;
  if (!state_->correlator->watchDisk(key)) return -EEXIST;
  if (std::string why; state_->observer && state_->observer->watch(key, file, &why) != 0) {
    state_->correlator->unwatchDisk(key);
    std::lock_guard lock(state_->map->mutex());
    state_->unseen.push_back(std::string("disk ") + disk->vm + "/" + disk->name + ": " + why);
    return 0;
  }
  auto filter = std::make_unique<RecordFilter>(*state_->correlator, key);
  int error = state_->stack->filter_attach(state_->stack, disk, RecordFilter::ops(), filter.get());
  if (error != 0) {
    state_->correlator->unwatchDisk(key);
    return error;
  }
  if (state_->begun) state_->correlator->entered(state_->stack->stamp(state_->stack));
  state_->disks.push_back({disk, key, std::move(filter)});
  return 0;
}

int Probe::addDevice(sm_device* device) {
  if (state_->observer) return 0;
  const DeviceKey key = state_->map->internDevice(device->name);
  if (!state_->correlator->watchDevice(key, (device->flags & SM_DEVICE_SHARED) != 0)) return -EEXIST;
  auto tap = std::make_unique<Tap>(*state_->correlator, key);
  int error = DispatchChain::of(device).insert(tap.get());
  if (error != 0) {
    state_->correlator->unwatchDevice(key);
    return error;
  }
  if (state_->begun) state_->correlator->entered(state_->stack->stamp(state_->stack));
  state_->devices.push_back({device, key, std::move(tap)});
  return 0;
}

int Probe::State::removeDisk(size_t i, const Deadline& deadline) {
  DiskPoint& point = disks[i];
  // First of all: requests that the filter no longer sees may come while it waits for those that it saw.
  correlator->leaveDisk(point.key);
  int error = stack->filter_detach(stack, point.disk, point.filter.get(), deadline.left());
  while (error == 0 && correlator->insideDisk(point.key) != 0) {
    if (deadline.over()) error = -ETIMEDOUT;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  correlator->unwatchDisk(point.key);
  if (error != 0) {
    stuck = true;
    keepForever(std::move(point.filter));
  }
  disks.erase(disks.begin() + static_cast<ptrdiff_t>(i));
  return error;
}

int Probe::State::removeDevice(size_t i, const Deadline& deadline) {
  DevicePoint& point = devices[i];
  correlator->leaveDevice(point.key);
  int error = DispatchChain::of(point.device).remove(stack, point.tap.get(), deadline.left());
  correlator->unwatchDevice(point.key);
  if (error != 0) {
    stuck = true;
    keepForever(std::move(point.tap));
  }
  devices.erase(devices.begin() + static_cast<ptrdiff_t>(i));
  return error;
}

int Probe::removeDisk(sm_disk* disk, uint64_t timeout) {
  for (size_t i = 0; i < state_->disks.size(); ++i) {
    if (state_->disks[i].disk == disk) return state_->removeDisk(i, Deadline(timeout));
  }
  return -ENOENT;
}

int Probe::removeDevice(sm_device* device, uint64_t timeout) {
  for (size_t i = 0; i < state_->devices.size(); ++i) {
    if (state_->devices[i].device == device) return state_->removeDevice(i, Deadline(timeout));
  }
  return -ENOENT;
}

void Probe::forget(const DiskName& disk, uint64_t fromOffset) {
  const DiskKey key = state_->map->findDisk(disk);
  if (key == kNoKey) return;
  std::lock_guard lock(state_->map->mutex());
  state_->map->removeVirtual(key, {fromOffset, UINT64_MAX});
}

void Probe::begin() {
  // Everyone who is still on the old path got there before this stamp.
  state_->stack->everywhere(
      state_->stack,
      [](void* context) {
        State& state = *static_cast<State*>(context);
        if (state.stack->threads(state.stack) != 1) return;
        state.map->mutex().own();
        state.ownsLock = true;
      },
      state_.get(), kSettleTimeout);
  state_->begun = true;
  const uint64_t stamp = state_->stack->stamp(state_->stack);
  state_->correlator->entered(stamp);
  state_->correlator->settle(stamp);
}

bool Probe::learning() { return state_->correlator->learning(); }

void Probe::subscribe(EventRing* ring, void (*wake)(void*), void* context) {
  state_->correlator->subscribe(ring, wake, context);
}

ProbeCounters Probe::counters() const {
  const CorrelatorCounters from = state_->correlator->counters();
  return {from.recorded,      from.unrecorded, from.evidenceLost,
          from.taintOverflow, from.losses,     state_->correlator->observedCounters()};
}

Interposer* Probe::on(const sm_device* device) const {
  for (const auto& point : state_->devices) {
    if (point.device == device) return point.tap.get();
  }
  return nullptr;
}

std::shared_ptr<const Correlator> Probe::owners() const {
  if (!state_->correlator->attributesAtIssue()) return nullptr;
  return {state_, state_->correlator.get()};
}

DiskKey Probe::keyOf(const DiskName& disk) { return state_->map->internDisk(disk); }

std::vector<std::string> Probe::notices() const {
  std::vector<std::string> all;
  {
    std::lock_guard lock(state_->map->mutex());
    all = state_->unseen;
  }
  if (!state_->observer) return all;
  for (std::string& notice : state_->observer->notices()) all.push_back(std::move(notice));
  return all;
}

int Probe::detach(uint64_t timeout) {
  const Deadline deadline(timeout);
  int result = 0;
  const auto observed = state_->observer ? state_->observer->devices() : std::vector<DeviceKey>{};
  for (const DeviceKey device : observed) state_->correlator->leaveDevice(device);
  // Rule 7: all are stale before the first is out of sight.
  for (auto& point : state_->disks) state_->correlator->leaveDisk(point.key);
  for (auto& point : state_->devices) state_->correlator->leaveDevice(point.key);
  while (!state_->disks.empty()) {
    if (int error = state_->removeDisk(state_->disks.size() - 1, deadline)) result = error;
  }
  while (!state_->devices.empty()) {
    if (int error = state_->removeDevice(state_->devices.size() - 1, deadline)) result = error;
  }
  if (state_->observer) state_->observer->end();
  for (const DeviceKey device : observed) state_->correlator->unwatchDevice(device);
  state_->correlator->subscribe(nullptr, nullptr, nullptr);
  if (std::exchange(state_->ownsLock, false)) state_->map->mutex().disown();
  return result;
}

std::vector<AssociationInfo> associations() {
  std::vector<AssociationInfo> out;
  for (const AssociationSpec& spec : associationRegistry()) {
    out.push_back({spec.name, spec.carrier, namesOf(spec.correlations), spec.kernel});
  }
  return out;
}

}  // namespace sm
