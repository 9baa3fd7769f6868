// The words of the map. A key names a disk or a device inside one map; it is never reused there.
#pragma once

#include <cstdint>

namespace sm {

using DiskKey = uint32_t;
using DeviceKey = uint32_t;
constexpr uint32_t kNoKey = UINT32_MAX;

// unknown: no evidence. stale: the place may hold other bytes by now. mapped: reading the place now returns the bytes
// last acknowledged for the virtual range.
enum class State : uint8_t { kUnknown = 0, kStale = 1, kMapped = 2 };

struct Place {
  DeviceKey device = kNoKey;
  uint64_t offset = 0;  // bytes
  bool operator==(const Place&) const = default;
};

// A half-open range of bytes.
struct Range {
  uint64_t begin = 0, end = 0;
  uint64_t length() const { return end - begin; }
  bool empty() const { return begin >= end; }
};

inline Range intersect(Range a, Range b) {
  return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

}  // namespace sm
