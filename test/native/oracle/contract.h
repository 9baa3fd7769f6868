// Volumes that come through the contract: those that are shipped, and a stranger's shared object.
#pragma once

#include <stratamap/volume.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "world.h"

namespace truth {

using VolumeOptions = std::vector<std::pair<std::string, std::string>>;

// Formats and opens the volume, with all disks of the world. Where that fails, the test does.
std::unique_ptr<Volume> makeContractVolume(World& world, const sm_volume_ops* ops, const VolumeOptions& format,
                                           const VolumeOptions& open);

// The table of a fixture; null, with the reason printed, where it is not built.
const sm_volume_ops* fixtureVolume(const std::string& name);

}  // namespace truth
