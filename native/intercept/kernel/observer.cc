#include "intercept/kernel/observer.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <utility>

#include "correlate/hint.h"
#include "sys/perf_rings.h"

namespace sm {

namespace {

constexpr size_t kRingBytes = 2 << 20;       // for each CPU: 20,000 records or so
constexpr int kSoon = 10, kLater = 200;      // ms between two looks
constexpr uint64_t kSampling = 500'000'000;  // ns from one sample to the next
// How long a request may be on its way from being told to being counted as in flight, ns.
constexpr uint64_t kMargin = 50'000'000;

uint64_t clockNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return uint64_t(now.tv_sec) * 1'000'000'000 + uint64_t(now.tv_nsec);
}

std::string onlineCpus() {
  std::string line;
  std::getline(std::ifstream("/sys/devices/system/cpu/online"), line);
  return line;
}

}  // namespace

Observer::Observer(AddressMap& map, Correlator& correlator) : map_(map), correlator_(correlator) {}

int Observer::open(AddressMap& map, Correlator& correlator, const std::vector<uint16_t>& levels,
                   std::unique_ptr<Observer>* out, std::string* why) {
  std::unique_ptr<Observer> observer(new Observer(map, correlator));
  if (const int error = observer->decoder_.open(why)) return error;
  if (const int error = observer->ranges_.acquire(HintRanges::kLockFile, why)) return error;
  std::vector<uint16_t> tags;
  for (const uint16_t level : levels) {
    for (const uint16_t hint : observer->ranges_.hints()) tags.push_back(HintAssociation::tagOf(hint, level));
  }
  observer->online_ = onlineCpus();
  observer->rings_ = std::make_unique<PerfRings>(kRingBytes);
  if (const int error = observer->rings_->open(why)) return error;
  observer->tender_ = std::thread([self = observer.get()] { self->tend(); });
  {
    std::lock_guard lock(map.mutex());
    correlator.hints()->give(tags);
    map.feedFrom(
        [](void* context, bool ledger) {
          static_cast<Observer*>(context)->drain();
          if (ledger) static_cast<Observer*>(context)->countReads();
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
  rings_->wake();
  tender_.join();
  std::lock_guard lock(map_.mutex());
  map_.feedFrom(nullptr, nullptr);
}

int Observer::observe(const BlockLevel& level, DeviceKey* key, std::string* why) {
  std::vector<uint32_t> numbers = {TraceDecoder::numberOf(level.device)};
  for (const dev_t part : partitionsOf(level.device)) numbers.push_back(TraceDecoder::numberOf(part));
  for (const Device& device : devices_) {
    if (device.numbers[0] != numbers[0]) continue;
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
    devices_.push_back({level, std::move(numbers), *key});
    error = listen(&devices_.back(), why);
    if (error != 0) devices_.pop_back();
  }
  if (error != 0) {
    correlator_.unwatchDevice(*key);
  } else {
    correlator_.observeDevice(*key, clockNow());
  }
  return error;
}

// A read that is known is not told, but counted. Only what has a tag is seen issued.
int Observer::listen(Device* device, std::string* why) {
  const auto tracepoints = decoder_.tracepoints();
  const std::string dev = "dev == " + std::to_string(device->numbers[0]);
  const std::string known = "ioprio == " + std::to_string(correlator_.hints()->knownPriority());
  const std::string reads = known + " && rwbs ~ \"R*\"";
  auto add = [&](BlockIo::Kind kind, const std::string& filter) {
    return rings_->add({&tracepoints[kind], 1}, filter, why);
  };
  if (const int error = add(BlockIo::kStart, dev + " && !(" + reads + ")")) return error;
  if (const int error = add(BlockIo::kBackMerge, dev)) return error;
  if (const int error = add(BlockIo::kFrontMerge, dev)) return error;
  std::string any;
  for (const uint32_t number : device->numbers)
    any += (any.empty() ? "dev == " : " || dev == ") + std::to_string(number);
  if (const int error = add(BlockIo::kQueue, "rwbs ~ \"D*\" && (" + any + ")")) return error;
  device->reads = rings_->addCounter(tracepoints[BlockIo::kStart], dev + " && " + reads, why);
  if (device->reads < 0) return device->reads;
  const uint16_t first = HintAssociation::priorityOf(HintAssociation::tagOf(HintAssociation::kFirstHint, 0));
  return add(BlockIo::kIssue, dev + " && ioprio >= " + std::to_string(first) + " && !(" + known + ")");
}

int Observer::watch(DiskKey disk, const std::string& file, std::string* why) {
  BlockChain chain;
  if (const int error = findBlockChain(file, &chain, why)) return error;
  std::vector<DeviceKey> keys;
  for (const BlockLevel& level : chain.levels) {
    DeviceKey key;
    if (const int error = observe(level, &key, why)) return error;
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
  if (!rings_->pending()) return;
  const uint64_t lost = rings_->drain([this](const PerfRings::Record& record) {
    BlockIo io;
    uint32_t number;
    if (!decoder_.decode(record.data, &number, &io)) return;
    for (const Device& device : devices_) {
      if (std::find(device.numbers.begin(), device.numbers.end(), number) == device.numbers.end()) continue;
      io.device = device.key;
      io.time = record.time;
      if (checking_ && io.ioprio == correlator_.hints()->ownPriority()) [[unlikely]]
        seen_.push_back(io);
      return correlator_.happened(io);
    }
  });
  if (lost > 0) correlator_.lostLocked();
}

// Under the map's lock.
void Observer::countReads() {
  for (Device& device : devices_) {
    const uint64_t counted = rings_->counted(device.reads);
    correlator_.countedReads(device.key, counted - std::exchange(device.counted, counted));
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
    const uint64_t time = clockNow();
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
    rings_->wait(soon ? kSoon : kLater);
    if (ending_) break;
    if (!blinded_) lookForQuiet();
    if (const uint64_t time = clockNow(); time - sampled > kSampling) {
      compareSample();
      sampled = time;
    }
    const bool moreCpus = !blinded_ && onlineCpus() != online_;
    std::lock_guard lock(map_.mutex());
    drain();
    soon = !blinded_ && std::any_of(devices_.begin(), devices_.end(),
                                    [this](const Device& device) { return correlator_.awaitsQuiet(device.key); });
    if (!moreCpus) continue;
    // What starts there is not told; without a device that is quiet nothing is learned any more.
    blinded_ = true;
    correlator_.lostLocked();
    notices_.push_back("CPUs came or went: what new ones start is not seen. Detach the probe and attach it again");
  }
}

}  // namespace sm
