#include <bit>

#include "disks/workload.h"

namespace sm {
namespace {

constexpr int kBits = 6;  // 64 buckets for each power of two
constexpr uint64_t kLinear = 1 << kBits;

}  // namespace

// Below 64 ns a bucket is 1 ns wide; from each power of two 2^e on, 2^(e-6).
int LatencyHistogram::bucketOf(uint64_t ns) {
  if (ns < kLinear) return static_cast<int>(ns);
  const int shift = std::bit_width(ns) - 1 - kBits;
  const uint64_t bucket = (static_cast<uint64_t>(shift) + 1) * kLinear + ((ns >> shift) & (kLinear - 1));
  return bucket < kBuckets ? static_cast<int>(bucket) : kBuckets - 1;
}

uint64_t LatencyHistogram::lowest(int bucket) {
  const uint64_t b = static_cast<uint64_t>(bucket);
  if (b < kLinear) return b;
  return (kLinear + b % kLinear) << (b / kLinear - 1);
}

uint64_t LatencyHistogram::percentile(double p) const {
  uint64_t total = 0;
  for (uint64_t count : counts) total += count;
  if (total == 0) return 0;
  const double wanted = p / 100 * static_cast<double>(total);
  uint64_t seen = 0;
  int last = 0;
  for (int bucket = 0; bucket < kBuckets; ++bucket) {
    if (counts[bucket] == 0) continue;
    seen += counts[bucket];
    last = bucket;
    if (static_cast<double>(seen) >= wanted) break;
  }
  return lowest(last);
}

}  // namespace sm
