// Metadata contexts: what BLOCK_STATUS tells of an export, by name. Whoever owns an export registers them with it.
//
// Thread contract: name() from any thread; extents() on the export's home I/O thread, where it must not block.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "nbd/transmission.h"

namespace sm::nbd {

class MetaContext {
 public:
  virtual ~MetaContext() = default;
  virtual const std::string& name() const = 0;  // "namespace:leaf"
  // Describes the range from its beginning, in order and without gaps, as far as `out` has room; returns how many
  // extents, at least 1. Together they are at most `length` bytes; neighbours have different flags.
  virtual size_t extents(uint64_t offset, uint32_t length, std::span<Extent> out) = 0;
};

// `base:allocation` of an export that does not know where it has holes: all of it is data, which is always true to say.
// No virtual disk knows: the contract of volumes has no call that tells what of a disk is allocated.
class AllData final : public MetaContext {
 public:
  const std::string& name() const override { return name_; }
  size_t extents(uint64_t, uint32_t length, std::span<Extent> out) override {
    out[0] = {length, 0};
    return 1;
  }

 private:
  const std::string name_ = "base:allocation";
};

}  // namespace sm::nbd
