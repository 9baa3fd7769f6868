#include "registry.h"

namespace sm {
namespace {

constexpr const sm_volume_ops* kVolumes[] = {
    &extentOps, &logOps, &stripeOps, &nbdOps, &kernelOps,
};

}  // namespace

const sm_volume_ops* const* volumeRegistry(size_t* count) {
  *count = sizeof kVolumes / sizeof *kVolumes;
  return kVolumes;
}

}  // namespace sm
