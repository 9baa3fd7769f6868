// A native load generator on one virtual disk: runs on the disk's home I/O thread, so that what it measures is the path
// of an I/O and nothing else.
//
// With `verify` each block of 512 bytes carries (vm, disk, offset, generation, random) so that no two blocks are equal
// by accident, blocks in flight are never touched twice at once, every read is compared with what was last written, and
// everything that was written is read back and compared at the end. Zeroed and discarded blocks must read as zeroes. A
// block whose change failed is unknown, and is not compared until it is written again.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "disks/virtual_disk.h"

namespace sm {

struct WorkloadOptions {
  std::string pattern = "randread";  // read | write | randread | randwrite | randrw | mixed
  uint64_t blockSize = 4096;         // bytes of each I/O
  uint32_t queueDepth = 32;
  double seconds = 0;       // stop after this time, or
  uint64_t operations = 0;  // after so many; one of the two is given
  uint64_t seed = 1;
  bool verify = false;
  uint64_t offset = 0, length = 0;  // the part of the disk to use; length 0: to its end
  // Shares in percent; the rest are writes. randrw: readPercent defaults to 50. mixed: all of them.
  double readPercent = -1, discardPercent = 0, zeroesPercent = 0, flushPercent = 0;
};

struct LatencyHistogram {
  // Bucket b of 64 per power of two: values in ns; see bucketOf / lowest.
  static constexpr int kBuckets = 64 * 40;
  std::array<uint64_t, kBuckets> counts{};
  static int bucketOf(uint64_t ns);
  static uint64_t lowest(int bucket);
  void add(uint64_t ns) { ++counts[bucketOf(ns)]; }
  uint64_t percentile(double p) const;
};

struct WorkloadResult {
  uint64_t operations = 0, bytes = 0, errors = 0;
  uint64_t mismatches = 0;  // blocks of 512 bytes
  uint64_t reads = 0, writes = 0, discards = 0, zeroes = 0, flushes = 0;
  uint64_t verifiedBytes = 0;  // compared at the end
  uint64_t elapsedNs = 0;      // of the measured part; the read-back is not in it
  uint64_t cpuNs = 0;          // of the I/O thread, in that time
  int32_t firstError = 0;      // negative errno
  uint64_t firstErrorOffset = 0;
  std::string firstMismatch;  // what was found and where
  LatencyHistogram latency;
};

class Workload {
 public:
  Workload(VirtualDisk& disk, const WorkloadOptions& options);  // options are checked by checkOptions
  ~Workload();                                                  // not before done has run
  static Failure checkOptions(const VirtualDisk& disk, const WorkloadOptions& options);
  // `done` runs on the home I/O thread.
  void start(std::function<void(const WorkloadResult&)> done);
  // From any thread. The load ends as if its time were up; `verify` still reads back, unless stop is called twice.
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sm
