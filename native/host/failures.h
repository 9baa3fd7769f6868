// How the host says that a volume failed, or a name is none.
#pragma once

#include <stratamap/contract.h>

#include <cstdint>
#include <string>

#include "engine/failure.h"

namespace sm {

// What a volume reported: `status` is what its function returned, `error` what it filled in. `asked` begins the message
// and says what was asked of it.
Failure failedVolume(int32_t status, const sm_error& error, const std::string& asked);

// Why a name of a disk, VM, volume or device is none, or nothing: 1 to 63 bytes, no control characters. `what` is
// "disk", …
Failure checkName(const std::string& name, const char* what, const char* layer);

// "d0, d1"
template <typename Devices>
std::string namesOf(const Devices& devices) {
  std::string names;
  for (const auto& device : devices) names += (names.empty() ? "" : ", ") + std::string(device->name);
  return names;
}

}  // namespace sm
