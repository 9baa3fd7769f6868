// Virtual disks on null devices, to measure the path of an I/O: one for each I/O thread, with or without a probe.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "disks/workload.h"
#include "host.h"
#include "intercept/probe.h"

namespace bench {

struct PathOptions {
  uint64_t diskBytes = 64 << 20;  // of each disk
  std::string volume = "extent";
  uint32_t threads = 1;
  bool uring = true;
};

struct ProbeKind {
  std::string association = "serial", correlation = "descend";
  bool events = false;  // a thread takes the completion events
};

class PathRig {
 public:
  explicit PathRig(const PathOptions& options);
  ~PathRig();

  void attach(const ProbeKind& kind);
  void detach();
  // Writes all of every disk, so that there is something to know.
  void fill(uint64_t blockSize);

  struct Cost {
    double cpu = 0, elapsed = 0;  // ns for each I/O; elapsed: of all disks together
  };
  // 4 KiB at depth 32, `operations` on each disk at once.
  Cost run(const std::string& pattern, uint64_t operations, uint64_t seed);

 private:
  std::vector<sm::WorkloadResult> runAll(const sm::WorkloadOptions& options);

  std::unique_ptr<sm::Host> host_;
  std::vector<sm_device*> devices_;
  std::vector<sm::VirtualDisk*> disks_;
  std::unique_ptr<sm::Probe> probe_;
  std::unique_ptr<sm::EventRing> ring_;
  std::atomic<bool> draining_{false};
  std::thread drain_;
};

}  // namespace bench
