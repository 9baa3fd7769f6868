// The metadata context `stratamap:physical`: of each extent of a disk, whether a map knows where it lies.
// Flags: 0 mapped, 1 stale, 2 unknown.
//
// Thread contract: that of nbd::MetaContext.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "map/address_map.h"
#include "nbd/meta_context.h"
#include "stratamap/disk.h"

namespace sm::binding {

class PhysicalContext final : public nbd::MetaContext {
 public:
  PhysicalContext(std::shared_ptr<AddressMap> map, const sm_disk& disk)
      : map_(std::move(map)), key_(map_->internDisk({disk.vm, disk.name})) {}

  const std::string& name() const override { return name_; }

  size_t extents(uint64_t offset, uint32_t length, std::span<nbd::Extent> out) override {
    const uint64_t end = offset + length;
    size_t count = 0;
    const auto append = [&](uint64_t to, uint32_t flags) {
      if (to <= offset) return true;
      const auto bytes = static_cast<uint32_t>(to - offset);
      if (count > 0 && out[count - 1].flags == flags) {
        out[count - 1].length += bytes;
      } else if (count < out.size()) {
        out[count++] = {bytes, flags};
      } else {
        return false;
      }
      offset = to;
      return true;
    };
    // No more than there is room for: the map is locked meanwhile.
    const std::vector<VirtualExtent> known = map_->extents(key_, offset, out.size());
    for (const VirtualExtent& extent : known) {
      if (!append(std::min(extent.diskOffset, end), kUnknown)) return count;
      if (extent.diskOffset >= end) return count;
      const uint64_t to = std::min(extent.diskOffset + extent.length, end);
      if (!append(to, extent.state == State::kMapped ? kMapped : kStale)) return count;
    }
    if (known.size() < out.size()) append(end, kUnknown);
    return count;
  }

 private:
  static constexpr uint32_t kMapped = 0, kStale = 1, kUnknown = 2;
  const std::string name_ = "stratamap:physical";
  const std::shared_ptr<AddressMap> map_;
  const DiskKey key_;
};

}  // namespace sm::binding
