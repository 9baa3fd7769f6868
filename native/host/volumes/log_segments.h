// The segments of a log volume: every device's in one pool. A place is the number of a physical block, counted through
// all segments.
//
// Thread contract: init on a control thread; everything else on the home I/O thread, or there before the first request.
// Invariant, on which it rests that no crash finds a place with other bytes than its block's: a place is written only
// while no metadata on the medium may name it. A segment in which nothing lives any more (none of its places is in a
// map, and none is being written) is free only when a commit that began after that has succeeded, and the last child
// that reads it has completed.
#pragma once

#include <stratamap/services.h>

#include <vector>

#include "superblock.h"

namespace sm {

constexpr uint32_t kNoSegment = UINT32_MAX;

enum class SegmentState : uint8_t {
  kFree,
  kOpen,      // places are handed out
  kFull,      // no more are
  kFreeing,   // nothing lives in it; no commit knows it yet
  kClearing,  // nothing lives in it; a running commit will make that durable
  kCleared,   // durably; free when nobody reads it any more
};

struct Segment {
  uint32_t live;     // places that are in a map
  uint32_t readers;  // children in flight that read it
  uint32_t writers;  // runs of places that were handed out and are not in a map yet
  uint16_t device;
  SegmentState state;
  bool failed;  // could not be cleaned
};

// How the devices are divided.
struct LogLayout {
  struct Part {  // one device's
    uint64_t dataAt;
    uint32_t first, count;  // segments
  };
  uint64_t segmentBytes;
  uint32_t blockSize;
  uint32_t areaPages;  // of each of the two metadata areas, behind the directory of the first device
  uint64_t segments;
  std::vector<Part> parts;

  uint32_t segmentBlocks() const { return static_cast<uint32_t>(segmentBytes / blockSize); }
  uint64_t areaAt(uint32_t area) const;
  // Blocks that may live at once: the rest is for overwrites, and for the cleaner to work in.
  uint64_t usable() const;
};
// `segmentBytes` 0: chosen.
LogLayout logLayout(const uint64_t* deviceBytes, uint32_t devices, uint32_t blockSize, uint64_t segmentBytes);

constexpr uint64_t kSmallestSegment = 16 << 10, kLargestSegment = 16 << 20, kDefaultSegment = 1 << 20;
constexpr uint32_t kReserve = 2;  // free segments that guests' writes leave to the cleaner

class Segments {
 public:
  void init(sm_device* const* devices, const LogLayout& layout);
  // After the maps have been read: what nothing lives in is free, in an order that `seed` decides.
  void fillFree(uint64_t seed);

  uint32_t size() const { return static_cast<uint32_t>(segments_.size()); }
  uint32_t blocks() const { return 1u << shift_; }  // in each
  uint64_t places() const { return uint64_t{size()} << shift_; }
  Segment& operator[](uint32_t index) { return segments_[index]; }
  uint32_t indexOf(uint32_t place) const { return place >> shift_; }
  uint32_t firstOf(uint32_t segment) const { return segment << shift_; }
  Segment& of(uint32_t place) { return segments_[indexOf(place)]; }
  // Places from `place` to the end of its segment.
  uint32_t span(uint32_t place) const { return blocks() - (place & (blocks() - 1)); }
  sm_device* deviceOf(uint32_t place) const { return devices_[segments_[indexOf(place)].device]; }
  uint64_t offsetOf(uint32_t place) const;

  // --- allocation
  uint32_t free() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t freeing() const { return static_cast<uint32_t>(freeing_.size()); }  // will be free after another commit
  uint32_t coming() const { return freeing() + static_cast<uint32_t>(clearing_.size()) + cleared_; }
  uint32_t take();  // kNoSegment: none is free
  void close(uint32_t segment);
  void reopen(uint32_t segment) { segments_[segment].state = SegmentState::kOpen; }

  void addLive(uint32_t place) { ++of(place).live; }
  void dropLive(uint32_t place);
  void addWriter(uint32_t place) { ++of(place).writers; }
  void dropWriter(uint32_t place);
  // Returns whether that made it free.
  bool dropReader(Segment& segment);

  // --- commit
  void begin() { clearing_.swap(freeing_); }
  void end(bool durable);

 private:
  void settle(uint32_t index);
  void release(uint32_t index);
  uint64_t random();

  std::vector<sm_device*> devices_;
  std::vector<LogLayout::Part> parts_;
  std::vector<Segment> segments_;
  std::vector<uint32_t> free_, freeing_, clearing_;  // reserved for all; free_ is shuffled
  uint32_t cleared_ = 0;
  uint32_t shift_ = 0, blockShift_ = 0;
  uint64_t random_ = 0;
};

}  // namespace sm
