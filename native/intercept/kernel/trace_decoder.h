// What a trace record of the block layer says (include/trace/events/block.h; where each field stands is read from
// tracefs).
//
// Thread contract: none; constant once made.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "correlate/observed.h"

namespace sm {

struct Tracepoint;

class TraceDecoder {
 public:
  // 0, or a negative errno where the kernel does not tell what is needed; `why` then says so.
  int open(std::string* why);
  // By BlockIo::Kind.
  std::vector<uint64_t> tracepoints() const;
  // How the records of a kind are laid out; what open does for each. 0, or -EOPNOTSUPP: something is missing.
  int use(BlockIo::Kind kind, const Tracepoint& point);

  // A record without its device, which comes as the kernel's number. False: it is none of ours.
  bool decode(std::span<const std::byte> record, uint32_t* device, BlockIo* out) const;

  // The number by which records name a device (MINORBITS 20, include/linux/kdev_t.h).
  static uint32_t numberOf(dev_t device);
  // What the letters of `rwbs` say is done: an sm_op (blk_fill_rwbs in kernel/trace/blktrace.c). What is not known may
  // change the medium: write-zeroes.
  static uint8_t opOf(std::string_view rwbs);

 private:
  static constexpr size_t kEvents = 5;
  struct Layout {
    uint16_t id = 0;
    uint32_t device = 0, sector = 0, sectors = 0, rwbs = 0, rwbsSize = 0;
    uint32_t ioprio = 0;  // 0: has none
    uint32_t thread = 0;
    uint32_t size = 0;  // bytes that a record has at least
  };
  std::array<Layout, kEvents> layouts_;  // by BlockIo::Kind
};

}  // namespace sm
