// The drivers by name. A driver is one file that defines sm::<name>::open, and its name in SM_DRIVERS in registry.cc.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "devices/device.h"

namespace sm {

struct Driver {
  const char* name;
  Failure (*open)(const DeviceSpec& spec, const std::vector<IoThread*>& threads, std::unique_ptr<Device>* out);
};

const std::vector<Driver>& drivers();
const Driver* findDriver(std::string_view name);  // or null

}  // namespace sm
