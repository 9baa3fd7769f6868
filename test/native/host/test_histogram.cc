#include <doctest/doctest.h>

#include <memory>

#include "disks/workload.h"

using sm::LatencyHistogram;

TEST_CASE("every time falls into the bucket whose bounds hold it, 64 for each power of two") {
  for (uint64_t ns : {0ull, 1ull, 63ull, 64ull, 65ull, 127ull, 128ull, 129ull, 1000ull, 123456789ull, 1ull << 40}) {
    const int bucket = LatencyHistogram::bucketOf(ns);
    CHECK(LatencyHistogram::lowest(bucket) <= ns);
    CHECK(LatencyHistogram::lowest(bucket + 1) > ns);
  }
  CHECK(LatencyHistogram::bucketOf(2048) - LatencyHistogram::bucketOf(1024) == 64);
  CHECK(LatencyHistogram::bucketOf(UINT64_MAX) == LatencyHistogram::kBuckets - 1);
}

TEST_CASE("percentiles are the lowest of the bucket in which they fall") {
  auto histogram = std::make_unique<LatencyHistogram>();
  CHECK(histogram->percentile(50) == 0);
  for (uint64_t ns = 1; ns <= 100; ++ns) histogram->add(ns);
  CHECK(histogram->percentile(50) == 50);
  CHECK(histogram->percentile(99) == 99);
  CHECK(histogram->percentile(100) == 100);
  histogram->add(1 << 20);
  CHECK(histogram->percentile(100) == 1 << 20);
}
