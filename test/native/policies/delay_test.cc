// Holding back: for how long by the distribution, what is held goes on when its time has come or its holder leaves.
#include "policies/delay.h"

#include "policies/counters.h"
#include "rig.h"

using namespace sm;
using namespace sm::test;

namespace {

DelayOptions anHour() {
  DelayOptions options;
  options.mean = kHour;
  return options;
}

OpCounters writes(const Counters& counters) { return counters.counters()[SM_OP_WRITE]; }

uint64_t ledgerOperations(const Rig& rig) {
  uint64_t sum = 0;
  for (DeviceKey key = 0; key < rig.map->deviceCount(); ++key) {
    for (const Tally& tally : rig.map->deviceLedger(key).fates) sum += tally.operations;
  }
  return sum;
}

}  // namespace

TEST_CASE("delays are drawn from their distribution, the same for the same seed") {
  DelayOptions options;
  options.mean = 1'000'000;
  CHECK(options.draw(0) == 1'000'000);
  CHECK(options.draw(77) == 1'000'000);

  options.distribution = DelayOptions::Distribution::kUniform;
  options.least = 1000;
  options.most = 3000;
  uint64_t least = UINT64_MAX, most = 0;
  for (uint64_t n = 0; n < 10'000; ++n) {
    least = std::min(least, options.draw(n));
    most = std::max(most, options.draw(n));
  }
  CHECK(least >= 1000);
  CHECK(least < 1010);
  CHECK(most <= 3000);
  CHECK(most > 2990);

  options.distribution = DelayOptions::Distribution::kExponential;
  double sum = 0;
  uint64_t above = 0;
  for (uint64_t n = 0; n < 100'000; ++n) {
    sum += static_cast<double>(options.draw(n));
    above += options.draw(n) > 3'000'000;
  }
  CHECK(sum / 100'000 == doctest::Approx(1e6).epsilon(0.02));
  CHECK(static_cast<double>(above) / 100'000 == doctest::Approx(0.0498).epsilon(0.05));  // e^-3

  DelayOptions same = options, other = options;
  other.seed = 2;
  CHECK(options.draw(5) == same.draw(5));
  CHECK(options.draw(5) != other.draw(5));
}

TEST_CASE("what is held for an hour goes on at once when the delay is taken out, each request once") {
  Rig rig(2, 2);
  Counters below(rig.host->stack());
  rig.add(below);
  Delay delay(rig.host->stack(), anHour());
  rig.add(delay);
  std::vector<char> data(64 * 512, 'x');
  std::vector<std::unique_ptr<DeviceIo>> ios;
  for (uint64_t i = 0; i < 64; ++i) {
    ios.push_back(
        std::make_unique<DeviceIo>(*rig.host, rig.devices[i % 2], SM_OP_WRITE, i * 512, data.data() + i * 512, 512));
  }
  CHECK(delay.counters().waiting == 64);
  CHECK(writes(below).operations == 0);
  // One device's alone go on when it leaves that device.
  CHECK(delay.removeDevice(rig.devices[0], 10 * kSecond) == 0);
  for (uint64_t i = 0; i < 64; i += 2) CHECK(ios[i]->done.get() == 0);
  CHECK(delay.counters().waiting == 32);
  CHECK(delay.detach(10 * kSecond) == 0);
  for (uint64_t i = 1; i < 64; i += 2) CHECK(ios[i]->done.get() == 0);
  CHECK(writes(below).operations == 64);
  CHECK(writes(below).succeeded == 64);
  CHECK(delay.counters().held == 64);
  CHECK(delay.counters().waiting == 0);
  CHECK(below.detach(10 * kSecond) == 0);
}

TEST_CASE("what is held goes on at every thread and device, however short the wait for its end") {
  Rig rig(2, 3);
  for (int round = 0; round < 20; ++round) {
    Delay delay(rig.host->stack(), anHour());
    rig.add(delay);
    std::vector<char> data(3 * 512, 'x');
    std::vector<std::unique_ptr<DeviceIo>> ios;
    for (uint64_t i = 0; i < 3; ++i) {
      ios.push_back(
          std::make_unique<DeviceIo>(*rig.host, rig.devices[i], SM_OP_WRITE, i * 512, data.data() + i * 512, 512));
    }
    delay.detach(0);  // whether in time or not
    for (auto& io : ios) REQUIRE(io->done.wait_for(std::chrono::minutes(1)) == std::future_status::ready);
  }
}

TEST_CASE("short delays under load: everything comes through, by each thread's own timer") {
  Rig rig(2, 2);
  rig.open("stripe", 2);
  DelayOptions options;
  options.distribution = DelayOptions::Distribution::kExponential;
  options.mean = 200'000;
  Delay delay(rig.host->stack(), options);
  rig.add(delay);
  RunningWorkload a(*rig.disks[0], verifyingLoad(32, 2000)), b(*rig.disks[1], verifyingLoad(32, 2000));
  checkClean(a.wait());
  checkClean(b.wait());
  CHECK(delay.counters().held > 4000);
  CHECK(delay.counters().waiting == 0);
  CHECK(delay.detach(10 * kSecond) == 0);
}

TEST_CASE("only what matches is held: by operation, and by the range that it touches") {
  Rig rig;
  DelayOptions options = anHour();
  options.match.ops = Match::bit(SM_OP_WRITE) | Match::bit(SM_OP_FLUSH);
  options.match.begin = 4096;
  options.match.end = 8192;
  Delay delay(rig.host->stack(), options);
  rig.add(delay);
  std::vector<char> data(8192, 'y');
  auto io = [&](uint8_t op, uint64_t offset, uint64_t length) {
    return deviceIo(*rig.host, rig.devices[0], op, offset, length && op <= SM_OP_WRITE ? data.data() : nullptr, length);
  };
  CHECK(io(SM_OP_READ, 4096, 4096) == 0);
  CHECK(io(SM_OP_WRITE, 0, 4096) == 0);
  CHECK(io(SM_OP_WRITE, 8192, 4096) == 0);
  CHECK(delay.counters().passed == 3);
  CHECK(delay.counters().held == 0);
  DeviceIo in(*rig.host, rig.devices[0], SM_OP_WRITE, 2048, data.data(), 2560);  // touches its first sector
  DeviceIo flush(*rig.host, rig.devices[0], SM_OP_FLUSH, 0, nullptr, 0);
  CHECK(delay.counters().waiting == 2);
  CHECK(delay.detach(10 * kSecond) == 0);
  CHECK(in.done.get() == 0);
  CHECK(flush.done.get() == 0);
}

TEST_CASE("what is held when the order changes is seen by the probe once, wherever the probe stood and stands") {
  for (const bool probeBelow : {true, false}) {
    CAPTURE(probeBelow);
    Rig rig(1, 2);
    rig.open("stripe", 1);
    Counters seen(rig.host->stack());
    rig.add(seen);
    rig.attach();
    Delay delay(rig.host->stack(), anHour());
    rig.add(delay, probeBelow ? 0 : 1);
    auto turn = [&] {
      for (sm_device* device : rig.devices) {
        DispatchChain& chain = DispatchChain::of(device);
        std::vector<Interposer*> order = chain.interposers();
        std::swap(order[0], order[1]);
        REQUIRE(chain.order(rig.host->stack(), order) == 0);
      }
    };
    DispatchChain& chain = DispatchChain::of(rig.devices[0]);
    const uint64_t before = ledgerOperations(rig);

    std::vector<char> data(16 * 4096, 'z');
    std::vector<std::unique_ptr<AwaitedIo>> ios;
    auto submit = [&](uint64_t i) {
      ios.push_back(std::make_unique<AwaitedIo>());
      ios.back()->submit(*rig.disks[0], SM_OP_WRITE, i * kMiB / 4, data.data() + i * 4096, 4096);
      REQUIRE(eventually([&] { return delay.counters().waiting == i + 1; }));
    };
    // Each is held in a generation of its own; between them the order turns round, and something comes and goes.
    for (uint64_t i = 0; i < 16; ++i) {
      submit(i);
      turn();
      Counters passing(rig.host->stack());
      rig.add(passing, i % 4);
      REQUIRE(passing.detach(10 * kSecond) == 0);
    }
    CHECK(chain.generations() > 4);
    CHECK(delay.detach(10 * kSecond) == 0);
    for (auto& io : ios) CHECK(io->done.get() == 0);
    CHECK(ledgerOperations(rig) - before == 16);
    CHECK(writes(seen).succeeded == 16);
    CHECK(rig.verifyMap() == 16 * 4096);

    // They can be used again now.
    const size_t generations = chain.generations();
    for (int i = 0; i < 200; ++i) turn();
    CHECK(chain.generations() == generations);
    CHECK(seen.detach(10 * kSecond) == 0);
  }
}
