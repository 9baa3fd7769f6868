// Finds a volume's table of functions: by type in the registry, or in a third party's shared object.
//
// Thread contract: from any thread but an I/O thread.
#pragma once

#include <stratamap/volume.h>

#include <string>

#include "engine/failure.h"

namespace sm {

// `type` is a registered volume or a path that ends in ".so". ERR_STRATAMAP_VOLUME_TYPE: no such volume, or not a
// shared object that can be loaded; ERR_STRATAMAP_CONTRACT: it is no volume, or one for another version of the
// contract. A shared object stays loaded: nobody knows when the last of its threads has left its code.
Failure loadVolume(const std::string& type, const sm_volume_ops** out);

// Whether a table is one that this host can use; looks at nothing but its fields. ERR_STRATAMAP_CONTRACT.
Failure checkVolumeTable(const std::string& type, const sm_volume_ops* ops);

// The flags of a table that has passed, which may end before them.
uint32_t volumeFlags(const sm_volume_ops& ops);

}  // namespace sm
