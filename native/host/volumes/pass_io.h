// The path of an I/O through a volume that moves nothing: byte n of a disk is byte n of a device. One child for each
// request that is no longer than the device takes at once.
//
// A disk's discarded bytes read as zeroes. Where the device promises that of what it discards, it gets the discard;
// else it gets write-zeroes.
//
// Thread contract: on the home I/O thread, but for the constructor.
#pragma once

#include "flow.h"

namespace sm {

class PassIo final : public Flow {
 public:
  enum class Discards : uint8_t {
    kGiveBack,  // the space of what is discarded, where that can be
    kKeep,      // it stays the disk's: always write-zeroes
  };

  PassIo(const sm_services* services, sm_device* device, Issue issue, Discards discards, Durability& durability)
      : Flow(services, &device, 1, issue, durability),
        discards_(discards == Discards::kGiveBack && device->flags & SM_DEVICE_DISCARD_ZEROES) {}

 private:
  void advance(sm_request* request) override;
  static void onData(sm_request* child, void* context, uint64_t parent);

  const bool discards_;  // the device gets discards
};

}  // namespace sm
