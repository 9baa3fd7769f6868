#include "devices/registry.h"

#include <atomic>
#include <cerrno>
#include <exception>

#include "devices/check.h"
#include "devices/device.h"

#define SM_DRIVERS(X) X(uring) X(posix) X(null) X(recording) X(nbd)

namespace sm {

#define SM_DECLARE(name)                                                                                     \
  namespace name {                                                                                           \
  Failure open(const DeviceSpec& spec, const std::vector<IoThread*>& threads, std::unique_ptr<Device>* out); \
  }
SM_DRIVERS(SM_DECLARE)
#undef SM_DECLARE

const std::vector<Driver>& drivers() {
#define SM_ENTRY(name) {#name, name::open},
  static const std::vector<Driver> all = {SM_DRIVERS(SM_ENTRY)};
#undef SM_ENTRY
  return all;
}

const Driver* findDriver(std::string_view name) {
  for (const Driver& driver : drivers()) {
    if (driver.name == name) return &driver;
  }
  return nullptr;
}

std::vector<std::string> deviceDriverNames() {
  std::vector<std::string> names;
  for (const Driver& driver : drivers()) names.push_back(driver.name);
  return names;
}

Failure openDevice(const DeviceSpec& spec, const std::vector<IoThread*>& threads, std::unique_ptr<Device>* out) {
  if (const Driver* driver = findDriver(spec.driver)) {
    try {
      return driver->open(spec, threads, out);
    } catch (const std::exception& e) {  // no more threads, or memory for them
      return {.error = EAGAIN,
              .code = "EAGAIN",
              .layer = "device",
              .message = "open " + spec.path + " as device '" + spec.name + "': " + e.what(),
              .device = spec.name};
    }
  }
  std::string known;
  for (const Driver& driver : drivers()) known += (known.empty() ? "" : ", ") + std::string(driver.name);
  return {.error = EINVAL,
          .code = "ERR_STRATAMAP_DRIVER",
          .layer = "device",
          .message = "open " + spec.name + ": there is no driver '" + spec.driver + "'; use one of " + known,
          .device = spec.name};
}

void Device::publish(const sm_device_ops* ops) {
  static std::atomic<uint32_t> nextId{1};
  contract_.id = nextId.fetch_add(1, std::memory_order_relaxed);
  contract_.flags = (facts_.readOnly ? SM_DEVICE_READ_ONLY : 0) | (facts_.shared ? SM_DEVICE_SHARED : 0) |
                    (facts_.discard ? SM_DEVICE_DISCARD : 0) | (facts_.discardZeroes ? SM_DEVICE_DISCARD_ZEROES : 0) |
                    (facts_.direct ? SM_DEVICE_DIRECT : 0);
  contract_.name = facts_.name.c_str();
  contract_.bytes = facts_.bytes;
  contract_.block_size = facts_.blockSize;
  contract_.max_transfer = facts_.maxTransfer;
  contract_.driver = this;
  __atomic_store_n(&contract_.ops, ops, __ATOMIC_RELEASE);
}

}  // namespace sm
