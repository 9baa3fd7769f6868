// What the two directions of the address map hold, and how they pack (region.h): the offset in sectors of 512 bytes, of
// which a device or a disk may have 2^40, in the upper 40 of 58 bits; beneath it, in 18, the rest. What is larger, or
// not at a sector, is right all the same, and only slower.
#pragma once

#include "map/types.h"

namespace sm {

namespace packed {

constexpr int kSectorBits = 9, kKeyBits = 18;
constexpr uint64_t kBlockStep = uint64_t{4096 >> kSectorBits} << kKeyBits;

// With room for the blocks of a region behind it.
inline bool fits(uint64_t offset) {
  return (offset & ((1u << kSectorBits) - 1)) == 0 && offset < (uint64_t{1} << (40 + kSectorBits)) - (256 << 10);
}
inline uint64_t join(uint64_t offset, uint64_t key) { return offset >> kSectorBits << kKeyBits | key; }
inline uint64_t offsetOf(uint64_t bits) { return bits >> kKeyBits << kSectorBits; }
inline uint64_t keyOf(uint64_t bits) { return bits & ((1u << kKeyBits) - 1); }

}  // namespace packed

// Where a disk's bytes are. The state of a mapping is here and nowhere else.
struct Forward {
  Place place;
  State state = State::kStale;
  bool moving = false;
  bool shared = false;  // besides what several owners tell

  Forward advanced(uint64_t bytes) const { return {{place.device, place.offset + bytes}, state, moving, shared}; }
  bool operator==(const Forward&) const = default;

  static constexpr uint64_t kBlockStep = packed::kBlockStep;
  bool pack(uint64_t* bits) const {
    if (place.device >= 1u << 14 || !packed::fits(place.offset)) return false;
    *bits = packed::join(place.offset,
                         place.device << 4 | (shared ? 8u : 0u) | (moving ? 4u : 0u) | static_cast<unsigned>(state));
    return true;
  }
  static Forward unpack(uint64_t bits) {
    const auto key = static_cast<uint32_t>(packed::keyOf(bits));
    return {{key >> 4, packed::offsetOf(bits)}, static_cast<State>(key & 3), (key & 4) != 0, (key & 8) != 0};
  }
};

// Whose bytes are in a place.
struct Reverse {
  DiskKey disk = kNoKey;
  uint64_t offset = 0;

  Reverse advanced(uint64_t bytes) const { return {disk, offset + bytes}; }
  bool operator==(const Reverse&) const = default;

  static constexpr uint64_t kBlockStep = packed::kBlockStep;
  bool pack(uint64_t* bits) const {
    if (disk >= 1u << packed::kKeyBits || !packed::fits(offset)) return false;
    *bits = packed::join(offset, disk);
    return true;
  }
  static Reverse unpack(uint64_t bits) { return {static_cast<DiskKey>(packed::keyOf(bits)), packed::offsetOf(bits)}; }
};

}  // namespace sm
