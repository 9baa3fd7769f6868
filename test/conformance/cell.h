// One cell of the conformance suite: an association and a correlation, through a volume, on a kind of device, at a
// queue depth. Running it gives what the capability table says of it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace conformance {

using Options = std::vector<std::pair<std::string, std::string>>;

// Which carriers a volume lets through, as was foretold: the recall of a write, and of a read, by what a clone carries,
// by address, by content. Each is 0 or 1; or 1 for requests of whole blocks of 4 KiB and 0 for smaller ones; or, where
// it depends on the volume's own space, anything.
enum class Recall : uint8_t { kNone, kSome, kWhole, kAll };
struct Foretold {
  Recall clone, address, content;
  Recall of(const std::string& association) const {
    return association == "address" ? address : association == "content" ? content : clone;
  }
};

struct VolumeKind {
  std::string name;  // in the table
  std::string type;  // as openVolume takes it
  size_t devices;    // 0: it opens its own, in a directory that it is given
  Options format;
  Foretold writes, reads;
  // Between which shares kSome is.
  double least = 0, most = 1;
  // Every block has a place, whatever was done to it, and a read goes there with the request's own memory: so after
  // anything at all what is read is known. By content alone not what several blocks have.
  bool placesAll = false;
  size_t places = 1;  // of each block
  Options open;       // of a volume that is not formatted
};

// Every volume that there is here, in every way that is told apart; one that is not built is skipped, and that is said.
std::vector<VolumeKind> volumeKinds();
// One of them: for two blocks that are written its cleaner moves one, whether there is need or not.
VolumeKind cleaningLog();

enum class Medium : uint8_t { kUring, kPosix, kRecording, kLoop };
const char* nameOf(Medium medium);

struct Cell {
  VolumeKind volume;
  std::string association, correlation;
  Medium medium;
  uint32_t depth;
  uint64_t seed;
};

struct Share {
  uint64_t of = 0, mapped = 0, moving = 0;  // bytes: written or read; mapped; of those with that flag
  uint64_t small = 0, smallMapped = 0;      // of them: by requests smaller than 4 KiB
  uint64_t fewPlaces = 0;                   // of them: mapped to fewer places than the volume gives each block
};

struct Outcome {
  Share writes, reads;
  uint64_t compared = 0;  // bytes of the device that were compared with what was acknowledged
  uint64_t owners = 0;    // bytes of the device whose owner was compared with the signature in them
  uint64_t wrong = 0;     // of both
  uint64_t failures = 0;  // requests that failed because a device did
  std::vector<std::pair<std::string, uint64_t>> unmapped;  // bytes written and left unmapped, by reason
  std::vector<std::string> complaints;                     // what does not hold, in words; empty: all of it
};

Outcome run(const Cell& cell);

// What interception adds to a random 4 KiB write at depth 32: ns of the I/O thread's time, the median of several pairs
// of runs with and without. Negative: something failed.
double costOf(const Cell& cell);

}  // namespace conformance
