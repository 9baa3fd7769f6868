#include "bench/path_rig.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace bench {

using namespace sm;

namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr size_t kRingWords = 1 << 20;

void check(const Failure& failure) {
  if (!failure) return;
  std::fprintf(stderr, "%s\n", failure.message.c_str());
  std::exit(1);
}

void check(int error, const char* what) {
  if (error == 0) return;
  std::fprintf(stderr, "%s: error %d\n", what, error);
  std::exit(1);
}

}  // namespace

PathRig::PathRig(const PathOptions& options) {
  HostOptions hostOptions;
  hostOptions.threads = options.threads;
  hostOptions.uring = options.uring;
  check(Host::open(hostOptions, &host_));
  const size_t each = options.volume == "stripe" ? 2 : 1;
  for (uint32_t i = 0; i < options.threads; ++i) {
    std::vector<sm_device*> own;
    for (size_t k = 0; k < each; ++k) {
      DeviceOptions device;
      device.name = "null" + std::to_string(devices_.size());
      device.driver = "null";
      device.bytes = 2 * options.diskBytes;
      sm_device* opened = nullptr;
      check(host_->openDevice(device, &opened));
      own.push_back(opened);
      devices_.push_back(opened);
    }
    check(host_->formatVolume(options.volume, own, {}, true));
    Volume* volume = nullptr;
    check(host_->openVolume("v" + std::to_string(i), options.volume, own, {}, &volume));
    VirtualDisk* disk = nullptr;
    check(volume->createDisk("vm-" + std::to_string(i), "vda", options.diskBytes, &disk));
    disks_.push_back(disk);
  }
}

PathRig::~PathRig() {
  detach();
  check(host_->close());
}

void PathRig::attach(const ProbeKind& kind) {
  ProbeOptions options;
  options.association = kind.association;
  options.correlation = kind.correlation;
  std::string why;
  check(Probe::create(host_->stack(), std::make_shared<AddressMap>(), options, &probe_, &why), why.c_str());
  for (VirtualDisk* disk : disks_) check(probe_->addDisk(disk->contract()), "addDisk");
  for (sm_device* device : devices_) check(probe_->addDevice(device), "addDevice");
  probe_->begin();
  if (!kind.events) return;
  ring_ = std::make_unique<EventRing>(kRingWords, 0);
  draining_ = true;
  drain_ = std::thread([this] {
    std::vector<double> out(kRingWords);
    while (draining_) {
      if (ring_->drain(out.data(), out.size()) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  probe_->subscribe(
      ring_.get(), [](void*) {}, nullptr);
}

void PathRig::detach() {
  if (!probe_) return;
  probe_->subscribe(nullptr, nullptr, nullptr);
  check(probe_->detach(kSecond), "detach");
  probe_.reset();
  if (!ring_) return;
  draining_ = false;
  drain_.join();
  if (const uint64_t dropped = ring_->dropped()) {
    std::fprintf(stderr, "%llu completion events were dropped\n", static_cast<unsigned long long>(dropped));
  }
  ring_.reset();
}

std::vector<WorkloadResult> PathRig::runAll(const WorkloadOptions& options) {
  std::mutex mutex;
  std::condition_variable ended;
  std::vector<WorkloadResult> results;
  std::vector<std::unique_ptr<Workload>> workloads;
  for (VirtualDisk* disk : disks_) workloads.push_back(std::make_unique<Workload>(*disk, options));
  for (auto& workload : workloads) {
    workload->start([&](const WorkloadResult& result) {
      std::lock_guard lock(mutex);
      results.push_back(result);
      ended.notify_all();
    });
  }
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return results.size() == workloads.size(); });
  return results;
}

void PathRig::fill(uint64_t blockSize) {
  WorkloadOptions options;
  options.pattern = "write";
  options.blockSize = blockSize;
  options.operations = disks_[0]->contract()->bytes / blockSize;
  runAll(options);
}

PathRig::Cost PathRig::run(const std::string& pattern, uint64_t operations, uint64_t seed) {
  WorkloadOptions options;
  options.pattern = pattern;
  options.operations = operations;
  options.seed = seed;
  Cost cost;
  double done = 0;
  for (const WorkloadResult& result : runAll(options)) {
    cost.cpu += static_cast<double>(result.cpuNs);
    cost.elapsed = std::max(cost.elapsed, static_cast<double>(result.elapsedNs));
    done += static_cast<double>(result.operations);
  }
  return {cost.cpu / done, cost.elapsed / done};
}

}  // namespace bench
