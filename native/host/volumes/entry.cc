// The one symbol of a shipped volume that is built as a shared object; the build says which table it is.
#include "registry.h"

extern "C" __attribute__((visibility("default"))) const sm_volume_ops* stratamap_volume(void) {
  return &sm::SM_VOLUME_OPS;
}
