// The volumes that are built in. Adding one is one new file with its table, and one line in registry.cc.
#pragma once

#include <stratamap/volume.h>

#include <cstddef>

namespace sm {

extern const sm_volume_ops extentOps;  // thin provisioning: extents allocated on first write, scattered
extern const sm_volume_ops kernelOps;  // image files in a directory: the kernel's own stack places their bytes
extern const sm_volume_ops logOps;     // log-structured: a write never goes where live data is; a cleaner makes room
extern const sm_volume_ops nbdOps;     // each disk a device, as it is: meant for those of the driver nbd
extern const sm_volume_ops stripeOps;  // chunks in turn over two or more devices

const sm_volume_ops* const* volumeRegistry(size_t* count);

}  // namespace sm
