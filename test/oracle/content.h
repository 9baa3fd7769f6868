// What each block of each virtual disk was last acknowledged to hold, as far as that is certain.
//
// It is told of every request above, watched or not. A block is certain from a modification that succeeded and that no
// other overlapped in time until the next one is submitted; where it is not, a read that no modification overlapped
// makes it so.
#pragma once

#include <map>
#include <string>

#include "unit.h"

namespace oracle {

class Content {
 public:
  explicit Content(const std::vector<uint64_t>& diskBlocks);

  void submitted(const sm_request* request, uint32_t disk);
  // Status and buffers are final. Returns what is wrong with the volume's answer, or nothing.
  std::string completed(const sm_request* request);

  // How many modifications of it are in flight.
  uint32_t modifying(Unit block) const { return modifying_[block.space][block.block]; }
  // Null where it is not certain.
  const Bytes* acknowledged(Unit block) const {
    const auto& held = held_[block.space][block.block];
    return held ? &*held : nullptr;
  }

 private:
  struct Live {
    uint32_t disk;
    uint64_t first;
    std::vector<bool> clear;  // no modification overlapped the block in time, nor another request the buffer
    std::vector<const std::byte*> memory;
    std::vector<Bytes> data;
  };
  std::vector<std::vector<uint32_t>> modifying_;
  std::vector<std::vector<std::optional<Bytes>>> held_;
  std::map<const sm_request*, Live> live_;
};

}  // namespace oracle
