// The chain of filters: order, verdicts, null entries, coming and going under load.
#include <doctest/doctest.h>

#include <deque>
#include <thread>

#include "disks/filter_chain.h"
#include "support.h"

using namespace sm;
using namespace sm::test;

namespace {

// Writes down what it sees, and does with a request what it is told.
struct Recorder {
  std::string name;
  std::vector<std::string>* log;
  int verdict = SM_FILTER_NEXT;
  bool completeIt = false;  // takes the request and completes it at once
  std::vector<sm_request*> taken;

  static int submit(void* self, sm_request* request) {
    auto* filter = static_cast<Recorder*>(self);
    filter->log->push_back("+" + filter->name);
    if (filter->completeIt) {
      sm_request_complete(request, -ENODATA);
      return SM_FILTER_TAKEN;
    }
    if (filter->verdict == SM_FILTER_TAKEN) filter->taken.push_back(request);
    return filter->verdict;
  }
  static void complete(void* self, sm_request*) {
    auto* filter = static_cast<Recorder*>(self);
    filter->log->push_back("-" + filter->name);
  }
};

constexpr sm_filter_ops kBoth = {SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "both", &Recorder::submit,
                                 &Recorder::complete};
constexpr sm_filter_ops kSubmitOnly = {SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "submit", &Recorder::submit,
                                       nullptr};
constexpr sm_filter_ops kCompleteOnly = {SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "complete", nullptr,
                                         &Recorder::complete};
constexpr sm_filter_ops kNeither = {SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "neither", nullptr, nullptr};
constexpr uint64_t kSecond = 1'000'000'000;

using Log = std::vector<std::string>;

}  // namespace

TEST_CASE("the last attached sees requests first and completions last; null entries pass through") {
  MemoryDisk fixture;
  Log log;
  fixture.volume.first = [&](sm_request*) { return log.push_back("volume"), 0; };
  Recorder a{"a", &log}, b{"b", &log}, c{"c", &log}, d{"d", &log};
  CHECK(fixture.disk->attachFilter(&kBoth, &a) == 0);
  CHECK(fixture.disk->attachFilter(&kSubmitOnly, &b) == 0);
  CHECK(fixture.disk->attachFilter(&kCompleteOnly, &c) == 0);
  CHECK(fixture.disk->attachFilter(&kNeither, &d) == 0);
  CHECK(diskIo(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  CHECK(log == Log{"+b", "+a", "volume", "-a", "-c"});
  CHECK(fixture.disk->detachFilter(&b, kSecond) == 0);
  CHECK(fixture.disk->detachFilter(&c, kSecond) == 0);
  CHECK(fixture.disk->detachFilter(&d, kSecond) == 0);
  log.clear();
  CHECK(diskIo(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  CHECK(log == Log{"+a", "volume", "-a"});
}

TEST_CASE("a filter that takes a request completes it, or sends it on to those behind it") {
  MemoryDisk fixture;
  Log log;
  fixture.volume.first = [&](sm_request*) { return log.push_back("volume"), 0; };
  Recorder low{"low", &log}, middle{"middle", &log}, high{"high", &log};
  CHECK(fixture.disk->attachFilter(&kBoth, &low) == 0);
  CHECK(fixture.disk->attachFilter(&kBoth, &middle) == 0);
  CHECK(fixture.disk->attachFilter(&kBoth, &high) == 0);
  SUBCASE("completes") {
    middle.completeIt = true;
    CHECK(diskIo(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0) == -ENODATA);
    CHECK(log == Log{"+high", "+middle", "-middle", "-high"});
  }
  SUBCASE("sends on later") {
    middle.verdict = SM_FILTER_TAKEN;
    AwaitedIo io;
    io.submit(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0);
    onThread(fixture.thread, [&] {
      REQUIRE(middle.taken.size() == 1);
      CHECK(log == Log{"+high", "+middle"});
      fixture.disk->resume(middle.taken[0]);
    });
    CHECK(io.done.get() == 0);
    CHECK(log == Log{"+high", "+middle", "+low", "volume", "-low", "-middle", "-high"});
  }
  SUBCASE("sends on after it has pushed a frame, and after others have come and gone") {
    middle.verdict = SM_FILTER_TAKEN;
    AwaitedIo io;
    io.submit(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0);
    Recorder late{"late", &log};
    CHECK(fixture.disk->attachFilter(&kBoth, &late) == 0);
    CHECK(fixture.disk->detachFilter(&low, kSecond) == 0);  // it has not seen the request, and never will
    CHECK(fixture.disk->detachFilter(&high, 1'000'000) == -ETIMEDOUT);
    onThread(fixture.thread, [&] {
      REQUIRE(middle.taken.size() == 1);
      const sm_done_fn frame = [](sm_request* request, void* context, uint64_t word) {
        static_cast<Log*>(context)->push_back("frame " + std::to_string(word));
        sm_request_pop(request);
      };
      CHECK(sm_request_push(middle.taken[0], frame, &log, 42) == 0);
      fixture.disk->resume(middle.taken[0]);
    });
    CHECK(io.done.get() == 0);
    CHECK(log == Log{"+high", "+middle", "volume", "frame 42", "-middle", "-high"});
  }
}

TEST_CASE("a chain refuses what it cannot take") {
  MemoryDisk fixture;
  Log log;
  std::deque<Recorder> filters;
  for (uint32_t i = 0; i < FilterChain::kMaxFilters; ++i) {
    filters.push_back({std::to_string(i), &log});
    CHECK(fixture.disk->attachFilter(&kBoth, &filters.back()) == 0);
  }
  Recorder more{"more", &log};
  CHECK(fixture.disk->attachFilter(&kBoth, &more) == -ENOSPC);
  CHECK(fixture.disk->attachFilter(&kBoth, &filters[0]) == -EEXIST);
  CHECK(fixture.disk->detachFilter(&more, kSecond) == -ENOENT);
  sm_filter_ops other = kBoth;
  other.version = SM_CONTRACT_VERSION + 1;
  CHECK(fixture.disk->attachFilter(&other, &more) == -EINVAL);
  other = kBoth;
  other.size = 8;
  CHECK(fixture.disk->attachFilter(&other, &more) == -EINVAL);
  CHECK(diskIo(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  CHECK(log.size() == 2 * FilterChain::kMaxFilters);
}

TEST_CASE("a filter for which a request has no frame left is passed by, and not told of its completion") {
  MemoryDisk fixture;
  Log log;
  // Fills the request up, so that nobody behind it can push.
  static constexpr sm_filter_ops greedy = {
      SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "greedy",
      [](void*, sm_request* request) {
        while (sm_request_push(
                   request, [](sm_request* r, void*, uint64_t) { sm_request_pop(r); }, nullptr, 0) == 0) {
        }
        return int{SM_FILTER_NEXT};
      },
      nullptr};
  Recorder unseen{"unseen", &log};
  int context = 0;
  CHECK(fixture.disk->attachFilter(&kBoth, &unseen) == 0);
  CHECK(fixture.disk->attachFilter(&greedy, &context) == 0);
  CHECK(diskIo(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  CHECK(log.empty());
}

TEST_CASE("detach returns when the last request that the filter saw has completed") {
  MemoryDisk fixture;
  Log log;
  Recorder filter{"f", &log};
  CHECK(fixture.disk->attachFilter(&kBoth, &filter) == 0);
  onThread(fixture.thread, [&] { fixture.volume.hold = true; });
  AwaitedIo io;
  io.submit(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0);
  while (fixture.disk->inFlight() == 0) std::this_thread::yield();
  SUBCASE("in time") {
    std::thread releaser([&] {
      onThread(fixture.thread, [&] {
        for (sm_request* request : fixture.volume.held) sm_request_complete(request, 0);
      });
    });
    CHECK(fixture.disk->detachFilter(&filter, 60 * kSecond) == 0);
    CHECK(log == Log{"+f", "-f"});
    releaser.join();
  }
  SUBCASE("too late: it is out, and its completion still comes") {
    CHECK(fixture.disk->detachFilter(&filter, 1'000'000) == -ETIMEDOUT);
    onThread(fixture.thread, [&] {
      CHECK(log == Log{"+f"});
      for (sm_request* request : fixture.volume.held) sm_request_complete(request, 0);
      fixture.volume.hold = false;
      CHECK(log == Log{"+f", "-f"});
    });
    CHECK(diskIo(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
    CHECK(log == Log{"+f", "-f"});
  }
  CHECK(io.done.get() == 0);
}

namespace {

struct Counter {
  uint64_t submits = 0, completes = 0;
  static int submit(void* self, sm_request*) { return ++static_cast<Counter*>(self)->submits, SM_FILTER_NEXT; }
  static void complete(void* self, sm_request*) { ++static_cast<Counter*>(self)->completes; }
};
constexpr sm_filter_ops kCount = {SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "count", &Counter::submit,
                                  &Counter::complete};

}  // namespace

TEST_CASE("filters come and go 1,000 times under a verifying workload, and nothing is lost") {
  MemoryDisk fixture(1 << 20);
  WorkloadOptions options;
  options.pattern = "mixed";
  options.discardPercent = 5;
  options.zeroesPercent = 5;
  options.flushPercent = 1;
  options.seconds = 600;
  options.verify = true;
  RunningWorkload running(*fixture.disk, options);
  Counter outer;
  uint64_t seen = 0;
  CHECK(fixture.disk->attachFilter(&kCount, &outer) == 0);
  for (int i = 0; i < 500; ++i) {
    Counter first, second;
    REQUIRE(fixture.disk->attachFilter(&kCount, &first) == 0);
    REQUIRE(fixture.disk->attachFilter(&kCount, &second) == 0);
    REQUIRE(fixture.disk->detachFilter(&first, 60 * kSecond) == 0);
    CHECK(first.submits == first.completes);
    REQUIRE(fixture.disk->detachFilter(&second, 60 * kSecond) == 0);
    CHECK(second.submits == second.completes);
    seen += first.submits;
  }
  running.workload.stop();
  const WorkloadResult result = running.wait();
  CHECK(fixture.disk->detachFilter(&outer, 60 * kSecond) == 0);
  CHECK(outer.submits == outer.completes);
  CHECK(seen > 0);
  CHECK(result.operations > 0);
  CHECK(result.errors == 0);
  CHECK_MESSAGE(result.mismatches == 0, result.firstMismatch);
  CHECK(result.operations == result.reads + result.writes + result.discards + result.zeroes + result.flushes);
}
