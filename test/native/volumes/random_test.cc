// Every built-in volume against the model: random runs, and crashes.
#include "scenario.h"

namespace sm::test {
namespace {

// Small, so that extents are given up and used again by other disks all the time.
Scenario extentScenario() {
  Scenario scenario;
  scenario.world.devices = {{600 << 10}, {700 << 10}};
  scenario.formatOptions = {{"extentSize", "8K"}, {"seed", "5"}};
  scenario.mayFail = ENOSPC;
  return scenario;
}

Scenario stripeScenario() {
  Scenario scenario;
  scenario.ops = &stripeOps;
  scenario.world.devices = {{700 << 10}, {600 << 10}, {650 << 10}};
  scenario.formatOptions = {{"chunkSize", "8K"}};
  return scenario;
}

// Small segments and many overwrites, so that the cleaner works all the time, with need and without.
Scenario logScenario() {
  Scenario scenario;
  scenario.ops = &logOps;
  scenario.world.devices = {{1100 << 10}, {700 << 10}};
  scenario.formatOptions = {{"segmentSize", "16K"}, {"seed", "5"}, {"clean", "50"}};
  scenario.mayFail = ENOSPC;
  return scenario;
}

// What each volume is run with: shapes of devices, scarcity of children, both ways to issue.
std::vector<Scenario> variants(const Scenario& base) {
  std::vector<Scenario> out;
  uint64_t seed = 1;
  for (const char* issue : {"clone", "fresh"})
    for (uint32_t children : {1u, 3u, 100u})
      for (uint32_t blockSize : {512u, 4096u}) {
        Scenario scenario = base;
        scenario.world.seed = ++seed;
        scenario.world.children = children;
        scenario.world.immediate = children == 3 ? 100 : 20;
        scenario.openOptions = {{"issue", issue}};
        scenario.steps = 500;
        for (DeviceShape& shape : scenario.world.devices) {
          shape.blockSize = blockSize;
          if (children == 100) shape.maxTransfer = 4096;
          if (blockSize == 512) shape.flags = 0;
        }
        out.push_back(scenario);
      }
  return out;
}

TEST_CASE("extent does what the model does") {
  for (const Scenario& scenario : variants(extentScenario())) runModel(scenario);
}

TEST_CASE("stripe does what the model does") {
  for (const Scenario& scenario : variants(stripeScenario())) runModel(scenario);
}

TEST_CASE("log does what the model does") {
  for (const Scenario& scenario : variants(logScenario())) runModel(scenario);
}

TEST_CASE("log with segments larger than a transfer") {
  Scenario scenario = logScenario();
  scenario.formatOptions = {{"segmentSize", "65536"}, {"clean", "20"}};
  scenario.world.devices = {{3 << 20, 512, 8192}};
  scenario.largestDisk = 1 << 20;
  runModel(scenario);
}

TEST_CASE("extent with extents larger than a transfer") {
  Scenario scenario = extentScenario();
  scenario.formatOptions = {{"extentSize", "65536"}};
  scenario.world.devices = {{2 << 20, 512, 8192}};
  scenario.largestDisk = 1 << 20;
  runModel(scenario);
}

TEST_CASE("extent survives crashes") {
  Scenario scenario = extentScenario();
  scenario.steps = 300;
  SUBCASE("both disks and devices scattered") {}
  SUBCASE("a pool that is always nearly full") {
    scenario.world.devices = {{500 << 10}, {480 << 10}};
    scenario.mix.discard = 20;
    scenario.mix.largest = 32 << 10;
  }
  SUBCASE("blocks of 4096 bytes, children scarce, fresh") {
    for (DeviceShape& shape : scenario.world.devices) shape.blockSize = 4096;
    scenario.world.children = 2;
    scenario.openOptions = {{"issue", "fresh"}};
  }
  SUBCASE("many control calls, few flushes") {
    scenario.mix.control = 15;
    scenario.mix.flush = 1;
    scenario.mix.fua = 2;
  }
  CHECK(runCrashes(scenario, 120) >= 120);
}

TEST_CASE("log survives crashes") {
  Scenario scenario = logScenario();
  scenario.steps = 300;
  SUBCASE("both disks and devices scattered") {}
  SUBCASE("a volume that is always nearly full") {
    scenario.world.devices = {{900 << 10}, {500 << 10}};
    scenario.formatOptions = {{"segmentSize", "16K"}};
    scenario.mix.discard = 4;
    scenario.mix.zeroes = 2;
    scenario.mix.write = 70;
  }
  SUBCASE("blocks of 4096 bytes, children scarce, fresh") {
    for (DeviceShape& shape : scenario.world.devices) shape.blockSize = 4096;
    scenario.world.children = 2;
    scenario.openOptions = {{"issue", "fresh"}};
  }
  SUBCASE("many control calls, few flushes") {
    scenario.mix.control = 15;
    scenario.mix.flush = 1;
    scenario.mix.fua = 2;
  }
  CHECK(runCrashes(scenario, 120) >= 120);
}

TEST_CASE("stripe survives crashes") {
  Scenario scenario = stripeScenario();
  scenario.steps = 300;
  SUBCASE("") {}
  SUBCASE("many control calls") {
    scenario.mix.control = 15;
    scenario.mix.flush = 2;
  }
  CHECK(runCrashes(scenario, 180) >= 180);
}

TEST_CASE("devices that fail fail requests, and nothing else") {
  for (const Scenario& base : {extentScenario(), logScenario(), stripeScenario()}) {
    Scenario scenario = base;
    scenario.mix.control = 0;
    scenario.mayFail = EIO;
    scenario.largestDisk = 64 << 10;  // so that there is always room
    World world(scenario.world);
    formatVolume(world, scenario.ops, scenario.formatOptions);
    Model model(world, scenario.ops, scenario.blockSize());
    scenario.apply(model);
    model.open();
    for (int i = 0; i < 3; ++i) REQUIRE(model.create(64 << 10));
    world.fail = [&](const MemoryDevice&, const sm_request& request) {
      return request.op != SM_OP_FLUSH && chance(world.random(), 10) ? -EIO : 0;
    };
    model.run(1500);
    model.drain();
    CHECK(model.failed > 0);
    world.fail = nullptr;
    model.verify();
    model.close();
    model.open();
    model.verify();
    model.close();
  }
}

TEST_CASE("a flush that fails and drops what it should have written breaks no promise, before or after") {
  for (const Scenario& base : {extentScenario(), logScenario(), stripeScenario()})
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      Scenario scenario = base;
      scenario.world.seed = seed;
      scenario.mix.control = 0;
      scenario.mayFail = EIO;
      World world(scenario.world);
      formatVolume(world, scenario.ops, scenario.formatOptions);
      Model model(world, scenario.ops, scenario.blockSize());
      scenario.apply(model);
      model.open();
      for (int i = 0; i < 3; ++i) REQUIRE(model.create(64 << 10));
      model.run(300);
      // Once, as the kernel does: what was not durable yet is never written, but reads as if it were.
      bool failed = false;
      world.fail = [&](const MemoryDevice& device, const sm_request& request) {
        if (failed || request.op != SM_OP_FLUSH || chance(world.random(), 70)) return 0;
        failed = true;
        const size_t index = device.device.id - 1;
        MemoryDevice& memory = world.memory(index);
        memory.stable = world.durable()[index];
        memory.folded += memory.changes.size();
        memory.changes.clear();
        return -EIO;
      };
      model.run(600);
      model.drain();
      REQUIRE(failed);
      CHECK(model.failed > 1);
      sm_error error{};
      for (ModelDisk& disk : model.state.disks) scenario.ops->disk_close(model.volume, disk.handle);
      CHECK(scenario.ops->close(model.volume, &error) == -EIO);
      world.runUntil([&] { return world.live() == 0; });
      const std::vector<Bytes> images = world.durable();
      World later(scenario.world, &images);
      Model after(later, scenario.ops, scenario.blockSize());
      scenario.apply(after);
      after.recover(model.state);
      after.run(300);
      after.verify();
      CHECK(after.failed == 0);
      after.close();
    }
}

}  // namespace
}  // namespace sm::test
