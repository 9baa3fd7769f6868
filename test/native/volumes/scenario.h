// Whole runs of a volume against the model, for every volume that is built in.
#pragma once

#include "model.h"
#include "volumes/registry.h"

namespace sm::test {

using Options = std::vector<std::pair<std::string, std::string>>;

struct Scenario {
  const sm_volume_ops* ops = &extentOps;
  WorldOptions world;
  Options formatOptions, openOptions;
  Mix mix;
  uint64_t largestDisk = 256 << 10;
  uint64_t mayFail = 0;
  uint32_t steps = 600;

  uint32_t blockSize() const {
    uint32_t largest = 512;
    for (const DeviceShape& shape : world.devices) largest = std::max(largest, shape.blockSize);
    return largest;
  }
  void apply(Model& model) const {
    model.mix = mix;
    model.openOptions = openOptions;
    model.largestDisk = largestDisk;
    model.mayFail = mayFail;
  }
};

// Random requests and control calls; everything is read and compared at the end, before and after a reopen.
inline void runModel(const Scenario& scenario) {
  World world(scenario.world);
  formatVolume(world, scenario.ops, scenario.formatOptions);
  Model model(world, scenario.ops, scenario.blockSize());
  scenario.apply(model);
  model.open();
  model.run(scenario.steps);
  model.verify();
  model.close();
  model.open();
  model.verify();
  model.close();
}

// Crashes at `images` instants of random runs, and each time once more after going on from there. Returns how many
// images were compared.
inline uint32_t runCrashes(Scenario scenario, uint32_t images) {
  struct Capture {
    ModelState state;
    std::vector<Bytes> images;
  };
  uint32_t compared = 0;
  std::vector<Capture> captures;
  const auto runWith = [&](World& world, Model& model, uint32_t perMille) {
    world.onStep = [&] {
      if (below(world.random(), 1000) < perMille) captures.push_back({model.state, world.crash()});
    };
    model.run(scenario.steps);
    world.onStep = nullptr;
    model.verify();
    model.close();
  };
  while (compared < images) {
    {
      World world(scenario.world);
      formatVolume(world, scenario.ops, scenario.formatOptions);
      Model model(world, scenario.ops, scenario.blockSize());
      scenario.apply(model);
      model.open();
      runWith(world, model, 8);
    }
    for (int generation = 0; generation < 3; ++generation) {
      std::vector<Capture> now;
      now.swap(captures);
      for (size_t i = 0; i < now.size(); ++i) {
        ++scenario.world.seed;
        World world(scenario.world, &now[i].images);
        Model model(world, scenario.ops, scenario.blockSize());
        scenario.apply(model);
        model.recover(std::move(now[i].state));
        ++compared;
        if (generation < 2 && i % 4 == 0) runWith(world, model, 2);
        else model.close();
      }
    }
    captures.clear();
    ++scenario.world.seed;
  }
  return compared;
}

}  // namespace sm::test
