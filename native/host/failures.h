// How the host says that something failed.
#pragma once

#include <stratamap/contract.h>

#include <cstdint>
#include <string>

#include "engine/failure.h"

namespace sm {

// `error` is a positive errno; its name is the code, unless `code` is given.
Failure failed(int error, const char* layer, std::string message, const char* code = nullptr);

// What a volume reported: `status` is what its function returned, `error` what it filled in. `asked` begins the message
// and says what was asked of it.
Failure failedVolume(int32_t status, const sm_error& error, const std::string& asked);

// "EIO"; "E<number>" for what has no name.
std::string errnoName(int error);

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
