// The adversaries among the fixtures are volumes like others: they lose nothing.
#include "adversary.h"

namespace sm::test {
namespace {

TEST_CASE("each adversary does what the model does, with one child and buffer or with many") {
  forEachAdversary([](Scenario scenario) {
    for (uint32_t children : {1u, 3u, 64u}) {
      CAPTURE(children);
      scenario.world.seed += 100;
      scenario.world.children = scenario.world.buffers = children;
      for (DeviceShape& shape : scenario.world.devices) shape.maxTransfer = children == 1 ? 8192 : 1 << 20;
      runModel(scenario);
    }
  });
}

TEST_CASE("each adversary does what the model does on blocks of 4 KiB") {
  forEachAdversary([](Scenario scenario) {
    scenario.world.devices[1].blockSize = 4096;
    runModel(scenario);
  });
}

TEST_CASE("each adversary fails what its devices fail, or makes up for it, and nothing else") {
  forEachAdversary([](const Scenario& scenario) {
    World world(scenario.world);
    formatVolume(world, scenario.ops, {});
    Model model(world, scenario.ops, scenario.blockSize());
    scenario.apply(model);
    model.mix.control = 0;
    model.mayFail = EIO;
    model.open();
    for (int i = 0; i < 3; ++i) REQUIRE(model.create(200 << 10));
    Random random(scenario.world.seed);
    uint64_t failures = 0;
    world.fail = [&](const MemoryDevice&, const sm_request&) {
      const bool failing = chance(random, 5);
      failures += failing;
      return failing ? -EIO : 0;
    };
    model.run(600);
    model.drain();
    CHECK(failures > 20);
    world.fail = nullptr;
    model.verify();
    model.close();
    model.open();
    model.verify();
    model.close();
  });
}

// Whether all of it is one byte's, or each block of it at least.
bool uniform(const Bytes& data, bool blocks) {
  for (size_t at = 0; at < data.size(); ++at)
    if (data[at] != data[blocks ? at / kBlock * kBlock : 0]) return false;
  return true;
}

TEST_CASE("requests that overlap: what is read is one of the writes', and stays that") {
  for (const Adversary& adversary : adversaries()) {
    for (const Options& options : adversary.options) {
      Scene scene(adversary.name, options);
      const std::string name = adversary.name;
      const bool blocks = name == "copying" || name == "anonymizing" || name == "encrypting";
      CAPTURE(name);
      Random random(7);
      std::vector<Bytes> writes, reads;
      for (uint8_t round = 0; round < 30; ++round) {
        const uint64_t offset = below(random, 300) * kBlock, bytes = (1 + below(random, 200)) * kBlock;
        writes.assign(3, {});
        reads.assign(6, Bytes(bytes, 0xff));
        bool done[9] = {};
        for (int i = 0; i < 3; ++i) {
          writes[i].assign(bytes, static_cast<uint8_t>(round * 3 + i + 1));
          scene.submit(SM_OP_WRITE, offset, writes[i], &done[i]);
          for (uint64_t steps = below(random, 4); steps > 0; --steps) scene.world.step();
          scene.submit(SM_OP_READ, offset, reads[i], &done[3 + i]);
        }
        scene.world.runUntil([&] { return std::all_of(done, done + 6, [](bool each) { return each; }); });
        for (int i = 3; i < 6; ++i) scene.run(SM_OP_READ, offset, reads[i]);
        CHECK(uniform(reads[3], blocks));
        CHECK(reads[3][0] > round * 3);
        for (int i : {4, 5}) CHECK(reads[i] == reads[3]);
        // What was read meanwhile may be older; newer only where nothing keeps the order.
        for (int i = 0; i < 3; ++i)
          CHECK(*std::max_element(reads[i].begin(), reads[i].end()) <= round * 3 + (blocks ? 3 : i + 1));
      }
    }
  }
}

TEST_CASE("a crash leaves what was flushed or written through; but of dedup, which says so") {
  forEachAdversary([](const Scenario& scenario) {
    if (std::string(scenario.ops->type) == "dedup") return;
    World world(scenario.world);
    formatVolume(world, scenario.ops, {});
    Model model(world, scenario.ops, scenario.blockSize());
    scenario.apply(model);
    model.mix.control = 0;
    model.open();
    for (int i = 0; i < 3; ++i) REQUIRE(model.create(200 << 10));
    struct Capture {
      ModelState state;
      std::vector<Bytes> images;
    };
    std::vector<Capture> captures;
    world.onStep = [&] {
      if (captures.size() < 12 && chance(world.random(), 1)) captures.push_back({model.state, world.crash()});
    };
    model.run(1500);
    world.onStep = nullptr;
    CHECK(captures.size() > 5);
    model.verify();
    model.close();
    for (Capture& capture : captures) {
      World after(scenario.world, &capture.images);
      Model recovered(after, scenario.ops, scenario.blockSize());
      scenario.apply(recovered);
      recovered.recover(std::move(capture.state));
      recovered.close();
    }
  });
}

}  // namespace
}  // namespace sm::test
