// Two threads put interposers in, take them out and change their order, under load (rule 10). SM_NIGHTLY=1 for a
// minute, SM_SECONDS=… for as long as one likes.
#include <algorithm>
#include <cstdlib>
#include <random>

#include "policies/counters.h"
#include "policies/delay.h"
#include "policies/fault.h"
#include "policies/limit.h"
#include "rig.h"

using namespace sm;
using namespace sm::test;

namespace {

int secondsToRun() {
  if (const char* seconds = std::getenv("SM_SECONDS")) return std::max(1, std::atoi(seconds));
  return std::getenv("SM_NIGHTLY") ? 60 : 3;
}

struct Total {
  uint64_t operations = 0, bytes = 0, succeeded = 0, failed = 0, unseen = 0;
  explicit Total(const Counters& counters) {
    for (const OpCounters& each : counters.counters()) {
      operations += each.operations;
      bytes += each.bytes;
      succeeded += each.succeeded;
      failed += each.failed;
      unseen += each.unseen;
    }
  }
};

class Churn {
 public:
  Churn(Rig& rig, uint64_t seed) : rig_(rig), random_(seed), stack_(rig.host->stack()) {}

  bool reorder() {
    DispatchChain& chain = DispatchChain::of(rig_.devices[random_() % rig_.devices.size()]);
    std::vector<Interposer*> order = chain.interposers();
    std::shuffle(order.begin(), order.end(), random_);
    const int status = chain.order(stack_, order);
    CHECK((status == 0 || status == -EINVAL));  // the other thread has put one in, or taken one out
    return status == 0;
  }
  // The other thread may have left no room on a device.
  void put(Policy& policy) {
    for (sm_device* device : rig_.devices) {
      const int status = policy.addDevice(device, random_() % 4);
      CHECK((status == 0 || status == -ENOSPC));
    }
  }
  uint64_t operator()() { return random_(); }

 private:
  Rig& rig_;
  std::mt19937_64 random_;
  const sm_stack* stack_;
};

}  // namespace

TEST_CASE("two threads attach, detach and reorder interposers under load: nothing is lost, failed or doubled") {
  for (const char* type : {"extent", "stripe"}) {
    CAPTURE(type);
    Rig rig(2, 2);
    rig.open(type, 2);
    const sm_stack* stack = rig.host->stack();
    // They stay in all the time, wherever they are moved: both see everything, once.
    Counters first(stack), second(stack);
    rig.add(first);
    rig.add(second);
    WorkloadOptions load = verifyingLoad(32, 0);
    load.seconds = 3600;
    RunningWorkload a(*rig.disks[0], load);
    load.seed = 2;
    RunningWorkload b(*rig.disks[1], load);

    std::atomic<bool> stop{false};
    std::atomic<uint64_t> rounds{0}, orders{0}, delayed{0}, limited{0}, recorded{0};
    // Together they fill a chain now and then, and look at each other's.
    std::thread one([&] {
      Churn churn(rig, 1);
      while (!stop) {
        std::unique_ptr<Probe> probe;
        std::string why;
        ProbeOptions options;
        options.association = churn() % 2 ? "serial" : "tag";
        REQUIRE(Probe::create(stack, rig.map, options, &probe, &why) == 0);
        for (VirtualDisk* disk : rig.disks) REQUIRE(probe->addDisk(disk->contract()) == 0);
        for (sm_device* device : rig.devices) {
          const int status = probe->addDevice(device);
          CHECK((status == 0 || status == -ENOSPC));
        }
        probe->begin();
        std::unique_ptr<Limit> limit;
        REQUIRE(Limit::create(stack, *probe, {"vm-0", "vda"}, {4000, 0, 1'000'000}, &limit, &why) == 0);
        churn.put(*limit);
        for (int i = 0; i < 4; ++i) orders += churn.reorder();
        CHECK(limit->update({8000, 0, 1'000'000}, 10 * kSecond) == 0);
        std::this_thread::sleep_for(std::chrono::milliseconds(churn() % 4));
        limited += limit->counters().held;
        if (churn() % 2) {
          CHECK(limit->detach(10 * kSecond) == 0);
          CHECK(probe->detach(10 * kSecond) == 0);
        } else {
          CHECK(probe->detach(10 * kSecond) == 0);
          probe.reset();
          CHECK(limit->detach(10 * kSecond) == 0);
        }
        if (probe) recorded += probe->counters().recorded;
        ++rounds;
      }
    });
    std::thread two([&] {
      Churn churn(rig, 2);
      while (!stop) {
        DelayOptions slow;
        slow.distribution = DelayOptions::Distribution::kExponential;
        slow.mean = 100'000;
        slow.seed = churn();
        Delay delay(stack, slow);
        FaultRule never;
        Fault fault(stack, churn(), {never});
        Counters counters(stack);
        std::vector<Policy*> all{&delay, &fault, &counters};
        for (Policy* each : all) {
          churn.put(*each);
          orders += churn.reorder();
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(churn() % 4));
        delayed += delay.counters().held;
        CHECK(fault.counters()[0].operations == 0);
        std::rotate(all.begin(), all.begin() + static_cast<ptrdiff_t>(churn() % 3), all.end());
        for (Policy* each : all) CHECK(each->detach(10 * kSecond) == 0);
        const Total seen(counters);
        CHECK(seen.succeeded == seen.operations);
        ++rounds;
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(secondsToRun() * 500));
    CHECK(eventually([&] { return rounds > 20 && orders > 20 && delayed > 0 && limited > 0 && recorded > 0; }));
    stop = true;
    one.join();
    two.join();
    a.workload.stop();
    b.workload.stop();
    checkClean(a.wait());
    checkClean(b.wait());

    const Total top(first), bottom(second);
    CHECK(top.operations > 1000);
    CHECK(top.operations == bottom.operations);
    CHECK(top.bytes == bottom.bytes);
    CHECK(top.succeeded == top.operations);
    CHECK(bottom.succeeded == bottom.operations);
    CHECK(top.failed + bottom.failed + top.unseen + bottom.unseen == 0);
    for (sm_device* device : rig.devices) {
      // As many as were replaced and not left yet at one time; not as many as were made.
      CHECK(DispatchChain::of(device).generations() < 200);
      CHECK(DispatchChain::of(device).interposers().size() == 2);
    }
    CHECK(first.detach(10 * kSecond) == 0);
    CHECK(second.detach(10 * kSecond) == 0);
  }
}

TEST_CASE("while the order changes under load, the probe sees everything once: the ledger is what others counted") {
  Rig rig(2, 2);
  rig.open("extent", 2);
  const sm_stack* stack = rig.host->stack();
  Counters counters(stack);
  rig.add(counters);
  rig.attach();
  DelayOptions slow;
  slow.distribution = DelayOptions::Distribution::kUniform;
  slow.most = 300'000;
  Delay one(stack, slow), two(stack, slow);
  rig.add(one);
  rig.add(two, 2);
  RunningWorkload a(*rig.disks[0], verifyingLoad(32, 4000)), b(*rig.disks[1], verifyingLoad(32, 4000));
  Churn churn(rig, 3);
  int orders = 0;
  while (a.done.wait_for(std::chrono::seconds(0)) != std::future_status::ready || orders < 100) {
    orders += churn.reorder();
  }
  checkClean(a.wait());
  checkClean(b.wait());
  CHECK(one.detach(10 * kSecond) == 0);
  CHECK(two.detach(10 * kSecond) == 0);
  const Total seen(counters);
  uint64_t operations = 0, bytes = 0;
  for (DeviceKey key = 0; key < rig.map->deviceCount(); ++key) {
    for (const Tally& tally : rig.map->deviceLedger(key).fates) {
      operations += tally.operations;
      bytes += tally.bytes;
    }
  }
  CHECK(operations == seen.operations);
  CHECK(bytes == seen.bytes);
  CHECK(rig.verifyMap() > 0);
  CHECK(counters.detach(10 * kSecond) == 0);
}
