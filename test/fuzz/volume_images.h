// Devices with a volume on them, for fuzz_volume_open: as whole as format and use leave them, then damaged and put
// right again as the input says.
#pragma once

#include "fuzz/fuzz.h"
#include "native/volumes/harness.h"

namespace sm::fuzz {

using test::Bytes;

constexpr uint64_t kDeviceBytes = 512 << 10;  // the metadata, and a few extents, chunks or segments
constexpr size_t kDevices = 2;

// A volume of the type, with three disks that hold something. Made once; the same in every process.
const std::vector<Bytes>& formatted(const sm_volume_ops* ops);

// Changes bytes of what lies on the devices.
void damage(FuzzedDataProvider& input, std::vector<Bytes>& images);

// Computes anew the checksums that are chosen. A type of volume with structures of its own adds them here.
enum Sealed : uint8_t { kSuperblocks = 1, kDirectory = 2, kTables = 4 };
void seal(std::vector<Bytes>& images, uint8_t what);

// Whether every device begins as one of a volume of this type: what opening it may write to.
bool isOwn(const sm_volume_ops* ops, const std::vector<Bytes>& images);

}  // namespace sm::fuzz
