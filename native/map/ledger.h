// Rule 8: the count of every physical I/O by what became of it, and of the virtual bytes that a completed write or
// write-zeroes left unmapped, by reason.
#pragma once

#include <array>
#include <cstdint>

namespace sm {

struct Tally {
  uint64_t operations = 0, bytes = 0;
  void add(uint64_t length, uint64_t count = 1) {
    operations += count;
    bytes += length;
  }
};

// What became of a physical I/O. They sum to all I/Os that were issued to the device while it was watched.
enum class Fate : uint8_t { kAttributed, kAmbiguous, kUnattributed, kControl };
constexpr int kFates = 4;
constexpr const char* kFateNames[kFates] = {"attributed", "ambiguous", "unattributed", "control"};

// Why bytes that were written are not mapped. Every such byte is counted under the first reason that holds.
enum class Unmapped : uint8_t {
  kFailed,      // the request failed, or the child that carried the bytes did
  kOverlap,     // rule 3: another modification of the same virtual bytes overlapped in time
  kSettling,    // rule 7: submitted before learning had begun
  kUnrecorded,  // rule 9: out of contexts, tags or evidence
  kRace,        // rule 4: another modification of the same physical bytes was in flight or issued
  kLate,        // the child had not completed when its parent did
  kDiffers,     // children were attributed, but position or bytes could not be established (rule 6)
  kAbsent,      // no child was attributed: absorbed, deduplicated, or the carrier did not survive
  kShared,      // rule 7: the device is shared with others
};
constexpr int kUnmappedReasons = 9;
constexpr const char* kUnmappedNames[kUnmappedReasons] = {"failed", "overlap", "settling", "unrecorded", "race",
                                                          "late",   "differs", "absent",   "shared"};

struct DeviceLedger {
  std::array<Tally, kFates> fates;
};

struct Ledger {
  std::array<Tally, kUnmappedReasons> unmapped;
};

}  // namespace sm
