#include "intercept/kernel/observer.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <mutex>
#include <utility>

#include "correlate/hint.h"

namespace sm {

namespace {

constexpr int kSoon = 10, kLater = 200;      // ms between two looks
constexpr uint64_t kSampling = 500'000'000;  // ns from one sample to the next
// How long a request may be on its way from being told to being counted as in flight, ns.
constexpr uint64_t kMargin = 50'000'000;

}  // namespace

Observer::Observer(AddressMap& map, Correlator& correlator) : map_(map), correlator_(correlator) {}

int Observer::open(AddressMap& map, Correlator& correlator, const std::vector<uint16_t>& levels,
                   std::unique_ptr<Observer>* out, std::string* why) {
  std::unique_ptr<Observer> observer(new Observer(map, correlator));
  if (const int error = observer->ranges_.acquire(HintRanges::kLockFile, why)) return error;
  std::vector<uint16_t> tags;
  for (const uint16_t level : levels) {
    for (const uint16_t hint : observer->ranges_.hints()) tags.push_back(HintAssociation::tagOf(hint, level));
  }
  {
    std::lock_guard lock(map.mutex());
    correlator.hints()->give(tags);
  }
  const auto told = [](void* self, const BlockIo& io) { static_cast<Observer*>(self)->told(io); };
  const uint16_t known = correlator.hints()->knownPriority();
  if (const int error = BlockEvents::open(known, told, observer.get(), &observer->events_, why)) return error;
  observer->tender_ = std::thread([self = observer.get()] { self->tend(); });
  {
    std::lock_guard lock(map.mutex());
    correlator.expectThrough(observer->events_->expected());
    map.feedFrom(
        [](void* context, bool asked) {
          static_cast<Observer*>(context)->drain();
          if (asked) static_cast<Observer*>(context)->countKnown();
        },
        observer.get());
  }
  *out = std::move(observer);
  return 0;
}

Observer::~Observer() { end(); }

void Observer::end() {
  if (!tender_.joinable()) return;
  ending_ = true;
  events_->wake();
  tender_.join();
  std::lock_guard lock(map_.mutex());
  drain();
  countKnown();
  map_.feedFrom(nullptr, nullptr);
}

int Observer::observe(const BlockLevel& level, bool hasBeneath, DeviceKey* key, std::string* why) {
  // The order of issues says what comes first beneath.
  if (const int error = events_->want({hasBeneath, mergesDiscards(level.device)}, why)) return error;
  for (const Device& device : devices_) {
    if (device.level.device != level.device) continue;
    *key = device.key;
    return 0;
  }
  *key = map_.internDevice(level.path);
  if (!correlator_.watchDevice(*key, false)) {
    *why = level.path + " is observed by another probe with this map";
    return -EEXIST;
  }
  correlator_.observeDevice(*key, UINT64_MAX);
  int error;
  {
    std::lock_guard lock(map_.mutex());
    error = events_->watch(level.device, *key, why);
    if (error == 0) devices_.push_back({level, *key});
  }
  if (error != 0) {
    correlator_.unwatchDevice(*key);
  } else {
    correlator_.observeDevice(*key, Correlator::clockNow());
  }
  return error;
}

int Observer::watch(DiskKey disk, const std::string& file, std::string* why) {
  BlockChain chain;
  if (const int error = findBlockChain(file, &chain, why)) return error;
  std::vector<DeviceKey> keys;
  for (const BlockLevel& level : chain.levels) {
    DeviceKey key;
    if (const int error = observe(level, &level != &chain.levels.back(), &key, why)) return error;
    keys.push_back(key);
  }
  size_t trusted = 0;
  std::string found;
  checkStack(std::filesystem::path(file).parent_path(), chain, keys, &trusted, &found);
  if (!found.empty()) say(found);
  correlator_.followDisk(disk, std::move(keys), trusted);
  return 0;
}

void Observer::say(const std::string& notice) {
  std::lock_guard lock(map_.mutex());
  if (std::find(notices_.begin(), notices_.end(), notice) == notices_.end()) notices_.push_back(notice);
}

std::vector<DeviceKey> Observer::devices() const {
  std::lock_guard lock(map_.mutex());
  std::vector<DeviceKey> keys;
  for (const Device& device : devices_) keys.push_back(device.key);
  return keys;
}

std::vector<std::string> Observer::notices() const {
  std::lock_guard lock(map_.mutex());
  return notices_;
}

// Under the map's lock.
void Observer::drain() {
  if (events_->drain() > 0) correlator_.lostLocked();
}

void Observer::told(const BlockIo& io) {
  if (checking_ && io.ioprio == correlator_.hints()->ownPriority()) [[unlikely]]
    seen_.push_back(io);
  correlator_.happened(io);
}

// Under the map's lock.
void Observer::countKnown() {
  if (events_->missed() > 0) correlator_.lostLocked();
  for (Device& device : devices_) {
    const uint64_t begun = events_->knownBegun(device.key);
    correlator_.countedKnown(device.key, begun - std::exchange(device.counted, begun));
  }
}

// What had begun before a device was seen without a request has ended; so has, on a device that is never without one,
// what its time ran out for long ago.
void Observer::lookForQuiet() {
  std::vector<Device> waiting;
  {
    std::lock_guard lock(map_.mutex());
    for (const Device& device : devices_) {
      if (correlator_.awaitsQuiet(device.key)) waiting.push_back(device);
    }
  }
  for (const Device& device : waiting) {
    const uint64_t time = Correlator::clockNow();
    uint64_t requests = 0;
    const bool idle = requestsInFlight(device.level.device, &requests) && requests == 0;
    const uint64_t margin = idle ? kMargin : 2 * requestTimeout(device.level.device);
    if (time < margin) continue;
    std::lock_guard lock(map_.mutex());
    drain();
    correlator_.quiet(device.key, time - margin);
  }
}

void Observer::tend() {
  bool soon = true;
  uint64_t sampled = 0;
  while (!ending_) {
    events_->wait(soon ? kSoon : kLater);
    if (ending_) break;
    lookForQuiet();
    if (const uint64_t time = Correlator::clockNow(); time - sampled > kSampling) {
      compareSample();
      sampled = time;
    }
    std::lock_guard lock(map_.mutex());
    drain();
    countKnown();
    soon = std::any_of(devices_.begin(), devices_.end(),
                       [this](const Device& device) { return correlator_.awaitsQuiet(device.key); });
  }
}

}  // namespace sm
