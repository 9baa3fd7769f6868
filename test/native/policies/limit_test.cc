// A rate for one disk: what the bucket grants, that the disk gets it and no more, and that nobody else feels it.
#include "policies/limit.h"

#include <algorithm>

#include "policies/counters.h"
#include "rig.h"

using namespace sm;
using namespace sm::test;

namespace {

// No window of what was granted holds more than the rate allows.
void checkConforms(const std::vector<std::pair<uint64_t, uint64_t>>& granted, const LimitOptions& options) {
  for (size_t i = 0; i < granted.size(); i += 7) {
    double bytes = 0;
    for (size_t k = i; k < granted.size(); ++k) {
      const double time = static_cast<double>(granted[k].first - granted[i].first + options.burst) / 1e9;
      if (options.iops > 0) CHECK(static_cast<double>(k - i) <= options.iops * time + 1e-3);
      if (options.bytesPerSecond > 0) CHECK(bytes <= options.bytesPerSecond * time + 1);
      bytes += static_cast<double>(granted[k].second);  // the last one may be larger than what is saved
    }
  }
}

}  // namespace

TEST_CASE("a bucket grants its rates and no more, in the order asked, and saves at most its burst") {
  for (const LimitOptions& options :
       {LimitOptions{1000, 0, 0}, LimitOptions{1000, 0, 50'000'000}, LimitOptions{0, 4e6, 20'000'000},
        LimitOptions{1000, 4e6, 100'000'000}, LimitOptions{3, 0, kSecond}}) {
    Bucket bucket(options);
    uint64_t now = 5 * kSecond, last = 0;
    std::vector<std::pair<uint64_t, uint64_t>> granted;
    for (uint64_t i = 0; i < 1500; ++i) {
      const uint64_t bytes = i % 5 ? 512 : 64 << 10;
      const uint64_t due = bucket.grant(now, bytes);
      CHECK(due >= now);
      CHECK(due >= last);
      last = due;
      granted.emplace_back(due, bytes);
      // Now and then they come slowly, or not at all for a while: what is saved is at stake.
      if (i % 100 == 99) now = due + (i % 300 == 299 ? 500'000'000 : 1'000'000);
    }
    checkConforms(granted, options);
  }
}

TEST_CASE("with something always waiting a bucket gives the whole rate; a new rate begins with nothing saved") {
  Bucket bucket({1000, 0, 0});
  uint64_t due = 0;
  for (int i = 0; i <= 10'000; ++i) due = bucket.grant(kSecond, 4096);
  CHECK(due == doctest::Approx(11 * 1e9));
  bucket.set({100, 0, 10 * kSecond}, 20 * kSecond);
  due = 0;
  for (int i = 0; i <= 1000; ++i) due = bucket.grant(20 * kSecond, 4096);
  CHECK(due == doctest::Approx(30 * 1e9));
  // Beyond any burst, a request goes when the bucket is full, and the next pays.
  Bucket small({0, 1000, kSecond});
  CHECK(small.grant(0, 1'000'000) == 0);
  CHECK(small.grant(0, 1) == doctest::Approx(999e9));
}

TEST_CASE("new rates forgive nothing that has gone on, and charge nothing that waits") {
  Bucket bucket({0.1, 0, 0});
  int went = 0;
  for (uint64_t second = 0; second < 100; ++second) {
    bucket.set({0.1, 0, 0}, second * kSecond);
    went += bucket.grant(second * kSecond, 4096) <= second * kSecond;
  }
  CHECK(went <= 11);
  CHECK(went >= 10);

  // What is owed is rescaled: 900 of 1000 bytes at a hundred times the rate.
  Bucket owing({0, 10, 0});
  CHECK(owing.grant(0, 1000) == 0);
  CHECK(owing.grant(0, 500) == doctest::Approx(100e9));
  owing.set({0, 1000, 0}, 10 * kSecond);
  CHECK(owing.grant(10 * kSecond, 500) == doctest::Approx(10.9e9));
  // One rate's debt is not another's.
  owing.set({1000, 0, 0}, 10 * kSecond);
  CHECK(owing.grant(10 * kSecond, 500) == 10 * kSecond);

  // What goes on by an earlier grant is paid for at the new rates.
  Bucket late({1, 0, 0});
  CHECK(late.grant(0, 1) == 0);
  const uint64_t due = late.grant(0, 1);
  CHECK(due == kSecond);
  late.set({1, 0, 0}, kSecond);
  late.goesOn(due, 1);
  CHECK(late.grant(kSecond, 1) == 2 * kSecond);
}

TEST_CASE("a limit is refused where requests are not attributed when they are issued, and says what to do") {
  for (auto [association, correlation] :
       {std::pair{"serial", "ascend"}, std::pair{"serial", "meet"}, std::pair{"content", "descend"}}) {
    Rig rig;
    rig.open("extent", 1);
    rig.attach(association, correlation);
    std::unique_ptr<Limit> limit;
    std::string why;
    CHECK(Limit::create(rig.host->stack(), *rig.probe, {"vm-0", "vda"}, {100, 0, 0}, &limit, &why) == -ENOTSUP);
    CHECK_FALSE(limit);
    CHECK(why.find("descend") != std::string::npos);
  }
}

namespace {

thread_local const sm_request* t_entering = nullptr;

// Above and below the limit: what has not gone through within the call has been held back.
struct Above : Interposer {
  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    const sm_request* before = std::exchange(t_entering, request);
    next->submit(next, device, request);
    t_entering = before;
  }
  uint64_t inside() const override { return 0; }
};

struct Below : Interposer {
  struct Seen {
    std::atomic<uint64_t> operations{0}, heldBack{0};
  };
  Seen* seen;  // by mark
  explicit Below(Seen* seen) : seen(seen) {}
  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    Seen& who = seen[request->spare[Mark::kField]];
    ++who.operations;
    if (t_entering != request) ++who.heldBack;
    next->submit(next, device, request);
  }
  uint64_t inside() const override { return 0; }
};

}  // namespace

TEST_CASE("one disk is held to its rate within 5 %, and not one operation of another, or of the volume, is held back") {
  for (const std::string association : {"serial", "address"}) {
    CAPTURE(association);
    Rig rig(2, 2);
    rig.open("extent", 2);
    const sm_stack* stack = rig.host->stack();
    rig.attach(association);
    Mark a{.number = 1}, b{.number = 2};
    REQUIRE(stack->filter_attach(stack, rig.disks[0]->contract(), Mark::ops(), &a) == 0);
    REQUIRE(stack->filter_attach(stack, rig.disks[1]->contract(), Mark::ops(), &b) == 0);
    Below::Seen seen[3];
    std::vector<std::unique_ptr<Interposer>> above, below;
    for (size_t i = 0; i < rig.devices.size(); ++i) {
      above.push_back(std::make_unique<Above>());
      below.push_back(std::make_unique<Below>(seen));
    }
    rig.put(below);
    LimitOptions options{500, 0, kSecond / 4};
    std::unique_ptr<Limit> limit;
    std::string why;
    REQUIRE(Limit::create(stack, *rig.probe, {"vm-0", "vda"}, options, &limit, &why) == 0);
    rig.add(*limit);
    rig.put(above);

    WorkloadOptions load;
    load.pattern = "randrw";
    load.queueDepth = 24;
    load.seconds = 3600;
    load.verify = true;
    RunningWorkload limited(*rig.disks[0], load), free(*rig.disks[1], load);
    // From when nothing is saved any more there is always something waiting.
    REQUIRE(eventually([&] { return limit->counters().waiting > 0; }));
    const uint64_t before = stack->now(stack), atBefore = seen[1].operations;
    const auto went = [&] { return static_cast<double>(seen[1].operations - atBefore); };
    const auto allowed = [&] { return options.iops * static_cast<double>(stack->now(stack) - before) / 1e9; };
    std::this_thread::sleep_for(std::chrono::seconds(association == "serial" ? 4 : 1));
    // A machine that stood still catches up within the burst; a limit that holds too much back never does.
    CHECK(eventually([&] {
      const double least = allowed() * 0.95;  // read first
      return went() >= least;
    }));
    const double sofar = went();
    CHECK(sofar <= allowed() * 1.05 + load.queueDepth);

    // Faster from now on, for what waits as well.
    CHECK(limit->update({1e6, 0, 0}, 10 * kSecond) == 0);
    limited.workload.stop();
    free.workload.stop();
    checkClean(limited.wait());
    checkClean(free.wait());
    CHECK(seen[1].heldBack > 100);
    CHECK(seen[2].operations > 100);
    CHECK(seen[2].heldBack == 0);
    CHECK(seen[0].heldBack == 0);
    const LimitCounters counters = limit->counters();
    CHECK(counters.waiting == 0);
    CHECK(counters.foreignHeld == 0);
    CHECK(counters.foreign == seen[0].operations + seen[2].operations);
    CHECK(counters.held == seen[1].heldBack);
    CHECK(counters.held + counters.passed == seen[1].operations);

    rig.take(above);
    rig.take(below);
    CHECK(limit->detach(10 * kSecond) == 0);
    CHECK(stack->filter_detach(stack, rig.disks[0]->contract(), &a, 10 * kSecond) == 0);
    CHECK(stack->filter_detach(stack, rig.disks[1]->contract(), &b, 10 * kSecond) == 0);
  }
}

TEST_CASE("bytes per second; and where the probe leaves first, everything passes, what waits goes on with the limit") {
  Rig rig(1, 2);
  rig.open("stripe", 1);
  rig.attach();
  std::unique_ptr<Limit> limit;
  std::string why;
  // Two requests fill what is saved; the third would wait for hours.
  REQUIRE(Limit::create(rig.host->stack(), *rig.probe, {"vm-0", "vda"}, {0, 1, 8192 * kSecond}, &limit, &why) == 0);
  rig.add(*limit);
  // A discard and zeroes have no bytes.
  CHECK(diskIo(*rig.disks[0], SM_OP_DISCARD, 0, nullptr, kMiB) == 0);
  CHECK(diskIo(*rig.disks[0], SM_OP_WRITE_ZEROES, 0, nullptr, kMiB) == 0);
  CHECK(diskIo(*rig.disks[0], SM_OP_DISCARD, 0, nullptr, kMiB) == 0);
  std::vector<char> data(8192, 'x');
  CHECK(diskIo(*rig.disks[0], SM_OP_WRITE, 0, data.data(), 8192) == 0);
  CHECK(diskIo(*rig.disks[0], SM_OP_WRITE, 8192, data.data(), 8192) == 0);
  AwaitedIo held;
  held.submit(*rig.disks[0], SM_OP_WRITE, 16384, data.data(), 8192);
  REQUIRE(eventually([&] { return limit->counters().waiting == 1; }));
  CHECK(limit->detach(10 * kSecond) == 0);
  CHECK(held.done.get() == 0);
  rig.add(*limit);
  REQUIRE(rig.probe->detach(10 * kSecond) == 0);
  rig.probe.reset();
  CHECK(diskIo(*rig.disks[0], SM_OP_WRITE, 0, data.data(), 8192) == 0);
  CHECK(limit->counters().foreign > 0);
  CHECK(limit->detach(10 * kSecond) == 0);
}
