// What interception adds to the path of an I/O: a virtual disk on an `extent` volume on the null device, one I/O
// thread, without and with the probe, in turn; CPU time of the I/O thread, medians and quartiles of the rounds.
//
//   bench_path [rounds] [association]
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "disks/workload.h"
#include "host.h"
#include "intercept/probe.h"

namespace {

using namespace sm;

constexpr uint64_t kDisk = 64 << 20;
constexpr uint64_t kSecond = 1'000'000'000;

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

WorkloadResult run(VirtualDisk& disk, const WorkloadOptions& options) {
  std::mutex mutex;
  std::condition_variable ended;
  bool over = false;
  WorkloadResult result;
  Workload workload(disk, options);
  workload.start([&](const WorkloadResult& r) {
    std::lock_guard lock(mutex);
    result = r;
    over = true;
    ended.notify_all();
  });
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return over; });
  return result;
}

struct Summary {
  std::vector<double> values;
  void print(const char* name, const char* unit) {
    std::sort(values.begin(), values.end());
    auto at = [&](double q) { return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))]; };
    std::printf("%-28s median %8.1f %s   quartiles %.1f … %.1f   (%zu rounds)\n", name, at(.5), unit, at(.25), at(.75),
                values.size());
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 9;
  const std::string association = argc > 2 ? argv[2] : "serial";
  std::unique_ptr<Host> host;
  check(Host::open({}, &host));
  sm_device* device = nullptr;
  DeviceOptions deviceOptions;
  deviceOptions.name = "null0";
  deviceOptions.driver = "null";
  deviceOptions.bytes = 2 * kDisk;
  check(host->openDevice(deviceOptions, &device));
  check(host->formatVolume("extent", {device}, {}, true));
  Volume* volume = nullptr;
  check(host->openVolume("v0", "extent", {device}, {}, &volume));
  VirtualDisk* disk = nullptr;
  check(volume->createDisk("vm-1", "vda", kDisk, &disk));

  WorkloadOptions fill;
  fill.pattern = "write";
  fill.blockSize = 64 << 10;
  fill.operations = kDisk / fill.blockSize;
  for (const char* pattern : {"randread", "randwrite"}) {
    Summary without, with, added;
    for (int round = 0; round < rounds; ++round) {
      WorkloadOptions options;
      options.pattern = pattern;
      options.operations = 2'000'000;
      options.seed = static_cast<uint64_t>(round) + 1;
      auto perIo = [&] {
        WorkloadResult result = run(*disk, options);
        return static_cast<double>(result.cpuNs) / static_cast<double>(result.operations);
      };
      double a = perIo();
      auto map = std::make_shared<AddressMap>();
      std::unique_ptr<Probe> probe;
      std::string why;
      ProbeOptions probeOptions;
      probeOptions.association = association;
      check(Probe::create(host->stack(), map, probeOptions, &probe, &why), why.c_str());
      check(probe->addDisk(disk->contract()), "addDisk");
      check(probe->addDevice(device), "addDevice");
      probe->begin();
      run(*disk, fill);  // the map is warm: what is measured is watching, not learning
      double b = perIo();
      check(probe->detach(kSecond), "detach");
      without.values.push_back(a);
      with.values.push_back(b);
      added.values.push_back(b - a);
    }
    std::printf("%s, 4 KiB, depth 32, association %s\n", pattern, association.c_str());
    without.print("  without probe", "ns CPU/IO");
    with.print("  with probe", "ns CPU/IO");
    added.print("  added", "ns CPU/IO");
  }
  check(host->close());
  return 0;
}
