// What a volume gets from its host: sm_services, on the volume's home I/O thread.
//
// Thread contract: as sm_services says, entry by entry.
#pragma once

#include <stratamap/services.h>

#include <functional>
#include <string>

#include "engine/io_thread.h"

namespace sm {

class OwnDevices;

// One I/O to a device, in pieces of its max_transfer, awaited. From any thread but an I/O thread. 0 or a negative
// errno.
int32_t deviceIo(IoThread& home, sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length);

class VolumeServices {
 public:
  using Log = std::function<void(int level, const std::string& message)>;  // from any thread

  // `own`: keeps the devices that the volume opens itself; null: it opens none.
  VolumeServices(IoThread& home, Log log, OwnDevices* own = nullptr);
  VolumeServices(const VolumeServices&) = delete;
  VolumeServices& operator=(const VolumeServices&) = delete;

  const sm_services* table() const { return &table_; }
  IoThread& home() const { return home_; }

 private:
  static const VolumeServices& of(const sm_services* table);

  sm_services table_;  // first: found from it
  IoThread& home_;
  Log log_;
  OwnDevices* const own_;
};

}  // namespace sm
