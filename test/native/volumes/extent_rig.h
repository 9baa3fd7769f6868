// An extent volume on two devices, to be driven by hand.
#pragma once

#include "scenario.h"

namespace sm::test {

struct Rig {
  explicit Rig(const WorldOptions& options, const Options& format = {{"extentSize", "8K"}}, const Options& open = {})
      : world(options), model(world, &extentOps, 512) {
    formatVolume(world, &extentOps, format);
    model.openOptions = open;
    model.open();
  }
  ModelDisk& disk(size_t index) { return model.state.disks[index]; }
  void write(size_t index, uint64_t offset, uint64_t length, uint32_t flags = 0) {
    model.submit(disk(index), SM_OP_WRITE, flags, offset, length);
  }
  uint64_t count(uint8_t op) { return world.memory(0).counts[op] + world.memory(1).counts[op]; }
  World world;
  Model model;
};

}  // namespace sm::test
