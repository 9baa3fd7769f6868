// The load generator: that it ends, counts, and catches what it is there to catch.
#include <doctest/doctest.h>

#include "support.h"

using namespace sm;
using namespace sm::test;

namespace {

WorkloadOptions mixed(uint32_t depth, uint64_t operations) {
  WorkloadOptions options;
  options.pattern = "mixed";
  options.readPercent = 40;
  options.discardPercent = 8;
  options.zeroesPercent = 8;
  options.flushPercent = 2;
  options.queueDepth = depth;
  options.operations = operations;
  options.verify = true;
  return options;
}

}  // namespace

TEST_CASE("a verifying workload on a volume that keeps its word finds nothing, at any depth") {
  for (uint32_t depth : {1u, 32u, 256u}) {
    for (bool atOnce : {false, true}) {
      CAPTURE(depth);
      CAPTURE(atOnce);
      MemoryDisk fixture(4 << 20);
      fixture.volume.atOnce = atOnce;
      const WorkloadResult result = runWorkload(*fixture.disk, mixed(depth, 20000));
      CHECK(result.operations == 20000);
      CHECK(result.errors == 0);
      CHECK_MESSAGE(result.mismatches == 0, result.firstMismatch);
      CHECK(result.reads + result.writes + result.discards + result.zeroes + result.flushes == 20000);
      CHECK(result.reads > 7000);
      CHECK(result.discards > 1000);
      CHECK(result.flushes > 100);
      CHECK(result.verifiedBytes > (4 << 20) / 2);
      CHECK(result.bytes == (result.operations - result.flushes) * 4096);
      uint64_t counted = 0;
      for (uint64_t count : result.latency.counts) counted += count;
      CHECK(counted == result.operations);
    }
  }
}

TEST_CASE("more depth than blocks, and more than requests, still ends") {
  MemoryDisk fixture(1 << 20, 64);
  WorkloadOptions options = mixed(256, 5000);
  options.offset = 8192;
  options.length = 16384;
  WorkloadResult result = runWorkload(*fixture.disk, options);
  CHECK(result.operations == 5000);
  CHECK(result.errors == 0);
  CHECK_MESSAGE(result.mismatches == 0, result.firstMismatch);
  for (size_t i = 0; i < 8192; ++i) REQUIRE(fixture.volume.bytes[i] == 0);
  for (size_t i = 8192 + 16384; i < fixture.volume.bytes.size(); ++i) REQUIRE(fixture.volume.bytes[i] == 0);
  options.verify = false;
  options.length = 0;
  result = runWorkload(*fixture.disk, options);
  CHECK(result.operations == 5000);
}

TEST_CASE("verify catches a write that goes astray, one that is lost, an old one, and a discard that does nothing") {
  MemoryDisk fixture(1 << 20);
  uint64_t writes = 0, discards = 0;
  std::string what;
  SUBCASE("astray") { what = "offset"; }
  SUBCASE("lost") { what = "lost"; }
  SUBCASE("torn") { what = "torn"; }
  SUBCASE("discard") { what = "discard"; }
  fixture.volume.instead = [&](MemoryVolume& volume, sm_request* request) {
    if (request->op == SM_OP_WRITE && ++writes == 500) {
      if (what == "lost") return;
      if (what == "offset") request->offset = request->offset >= 8192 ? request->offset - 8192 : request->offset + 8192;
      if (what == "torn") {
        std::memcpy(volume.bytes.data() + request->offset, request->iov[0].iov_base, 2048);
        return;
      }
    }
    if (request->op == SM_OP_DISCARD && ++discards > 20 && what == "discard") return;
    volume.execute(request);
  };
  const WorkloadResult result = runWorkload(*fixture.disk, mixed(32, 4000));
  CHECK(result.mismatches > 0);
  INFO(result.firstMismatch);
  CHECK(result.firstMismatch.find("disk vm-1/vda, offset ") == 0);
  CHECK(result.firstMismatch.find("found ") != std::string::npos);
  CHECK(result.firstMismatch.find("; expected ") != std::string::npos);
}

TEST_CASE("what could not be changed is unknown, and counted as an error") {
  MemoryDisk fixture(1 << 20);
  uint64_t writes = 0;
  uint64_t failed = 0, failedOffset = 0;
  fixture.volume.instead = [&](MemoryVolume& volume, sm_request* request) { volume.execute(request); };
  fixture.volume.first = [&](sm_request* request) -> int32_t {
    if (request->op != SM_OP_WRITE || ++writes % 3) return 0;
    if (failed++ == 0) failedOffset = request->offset;
    // Half of it arrives: torn.
    std::memcpy(fixture.volume.bytes.data() + request->offset, request->iov[0].iov_base, 2048);
    return -ENOSPC;
  };
  const WorkloadResult result = runWorkload(*fixture.disk, mixed(32, 5000));
  CHECK(failed > 0);
  CHECK(result.errors == failed);
  CHECK(result.firstError == -ENOSPC);
  CHECK(result.firstErrorOffset == failedOffset);
  CHECK_MESSAGE(result.mismatches == 0, result.firstMismatch);
}

TEST_CASE("sequential patterns go round in order, and the seed decides the others") {
  MemoryDisk fixture(64 << 10);
  std::vector<std::pair<int, uint64_t>> seen;
  fixture.volume.first = [&](sm_request* request) { return seen.emplace_back(request->op, request->offset), 0; };
  WorkloadOptions options;
  options.pattern = "write";
  options.queueDepth = 1;
  options.operations = 20;
  runWorkload(*fixture.disk, options);
  REQUIRE(seen.size() == 20);
  for (size_t i = 0; i < 20; ++i) CHECK(seen[i] == std::pair<int, uint64_t>(SM_OP_WRITE, i % 16 * 4096));
  const auto run = [&](const std::string& pattern, uint64_t seed) {
    seen.clear();
    options.pattern = pattern;
    options.seed = seed;
    options.operations = 200;
    runWorkload(*fixture.disk, options);
    return seen;
  };
  CHECK(run("randrw", 1) == run("randrw", 1));
  CHECK(run("randrw", 1) != run("randrw", 2));
  for (const auto& [op, offset] : run("randread", 1)) CHECK(op == SM_OP_READ);
  for (const auto& [op, offset] : run("randwrite", 1)) CHECK(op == SM_OP_WRITE);
}

TEST_CASE("a workload ends after its time, when told to, and when its disk is closed") {
  MemoryDisk fixture(1 << 20);
  WorkloadOptions options;
  options.pattern = "randrw";
  SUBCASE("time, also where all completes at once") {
    options.seconds = 0.05;
    fixture.volume.atOnce = true;
    const WorkloadResult result = runWorkload(*fixture.disk, options);
    CHECK(result.elapsedNs >= 50'000'000);
    CHECK(result.operations > 0);
    CHECK(result.cpuNs > 0);
  }
  SUBCASE("stop, and verify reads back") {
    options.seconds = 600;
    options.verify = true;
    RunningWorkload running(*fixture.disk, options);
    std::vector<uint8_t> data(512);
    while (diskIo(*fixture.disk, SM_OP_READ, 0, data.data(), 512) == 0 && data[0] != 'S') {
    }
    running.workload.stop();
    const WorkloadResult result = running.wait();
    CHECK(result.verifiedBytes >= 4096);
    CHECK_MESSAGE(result.mismatches == 0, result.firstMismatch);
  }
  SUBCASE("stop twice, and it does not") {
    options.seconds = 600;
    options.verify = true;
    RunningWorkload running(*fixture.disk, options);
    running.workload.stop();
    running.workload.stop();
    CHECK(running.wait().verifiedBytes == 0);
  }
  SUBCASE("close") {
    options.seconds = 600;
    options.verify = true;
    RunningWorkload running(*fixture.disk, options);
    fixture.disk->quiesce(VirtualDisk::Quiesce::kClose);
    // Closing waited for the workload to let go.
    CHECK(running.done.wait_for(std::chrono::seconds(0)) == std::future_status::ready);
    CHECK(running.wait().firstError == -ESHUTDOWN);
  }
}

TEST_CASE("a workload goes on across a resize of its disk, and errs beyond its end") {
  MemoryDisk fixture(1 << 20);
  WorkloadOptions options;
  options.pattern = "randwrite";
  options.seconds = 600;
  options.verify = true;
  RunningWorkload running(*fixture.disk, options);
  for (uint64_t bytes : {1 << 19, 1 << 20, 1 << 18}) {
    fixture.disk->quiesce(VirtualDisk::Quiesce::kResize);
    CHECK(fixture.disk->inFlight() == 0);
    fixture.disk->proceed(bytes);
  }
  // Each of these takes a pass of the thread's loop, and so does each of the workload's I/Os, of which most lie beyond.
  for (int i = 0; i < 200; ++i) CHECK(diskIo(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  running.workload.stop();
  const WorkloadResult result = running.wait();
  CHECK(result.firstError == -EINVAL);
  CHECK(result.firstErrorOffset >= 1 << 18);
  CHECK_MESSAGE(result.mismatches == 0, result.firstMismatch);
}

TEST_CASE("options that make no sense are refused with their reason") {
  MemoryDisk fixture(1 << 20);
  WorkloadOptions good;
  good.operations = 1;
  CHECK_FALSE(Workload::checkOptions(*fixture.disk, good));
  const auto refused = [&](const std::function<void(WorkloadOptions&)>& change, const std::string& says) {
    WorkloadOptions options = good;
    change(options);
    const Failure failure = Workload::checkOptions(*fixture.disk, options);
    CHECK(failure.error == EINVAL);
    CHECK_MESSAGE(failure.message.find(says) != std::string::npos, failure.message);
  };
  refused([](WorkloadOptions& o) { o.pattern = "zigzag"; }, "pattern 'zigzag'");
  refused([](WorkloadOptions& o) { o.queueDepth = 0; }, "queue depth");
  refused([](WorkloadOptions& o) { o.queueDepth = 100000; }, "queue depth");
  refused([](WorkloadOptions& o) { o.blockSize = 1000; }, "block size of 1000");
  refused([](WorkloadOptions& o) { o.blockSize = 0; }, "block size of 0");
  refused([](WorkloadOptions& o) { o.blockSize = 2 << 20; }, "block size of 2097152");
  refused([](WorkloadOptions& o) { o.operations = 0; }, "either seconds or operations");
  refused([](WorkloadOptions& o) { o.seconds = 1; }, "either seconds or operations");
  refused([](WorkloadOptions& o) { o.seconds = -1; }, "time");
  refused([](WorkloadOptions& o) { o.offset = 1 << 20; }, "must lie in");
  refused([](WorkloadOptions& o) { o.offset = 100; }, "multiples of the block size");
  refused([](WorkloadOptions& o) { o.length = 512; }, "at least one block");
  refused([](WorkloadOptions& o) { o.length = 2 << 20; }, "must lie in");
  refused([](WorkloadOptions& o) { o.discardPercent = 5; }, "go with the pattern 'mixed'");
  refused([](WorkloadOptions& o) { o.pattern = "mixed", o.readPercent = 60, o.flushPercent = 50; }, "percent");
  refused([](WorkloadOptions& o) { o.pattern = "mixed", o.flushPercent = -1; }, "percent");
}
