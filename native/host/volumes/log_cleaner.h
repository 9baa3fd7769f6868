// The cleaner: empties the segment in which the fewest blocks live, so that it can be used again. It reads what lives
// there into memory of the host's, writes it behind what it wrote before, and then moves those blocks that are still
// where it found them.
//
// Thread contract: on the home I/O thread. Nothing allocates. Invariants: one batch of blocks at a time, and between
// two batches others have their turn. The segment that it writes to is its own; what it wrote there in vain is written
// over. It always can go on: guests leave it kReserve segments, and emptying one takes at most one.
#pragma once

#include "log_map.h"

namespace sm {

// Where the next places are handed out.
struct LogHead {
  uint32_t segment = kNoSegment;
  uint32_t used = 0;  // places
  uint32_t room(const Segments& segments) const { return segment == kNoSegment ? 0 : segments.blocks() - used; }
  // Hands out `count` places, and returns the first.
  uint32_t take(Segments& segments, uint32_t count);
};

class CleanerOwner {
 public:
  // No child was to be had: resume() is due when one may be.
  virtual void cleanerStarved() = 0;
  // It is idle, or a segment is free.
  virtual void cleanerChanged() = 0;
  // Whether it may take a free segment. Not `urgent`: only where there are plenty.
  virtual bool cleanerMayTake(bool urgent) const = 0;

 protected:
  ~CleanerOwner() = default;
};

// Why it works: guests wait for space; there is little space; or as a test of what it does to others.
enum class CleanFor { kWaiting, kSpace, kTest };

class Cleaner {
 public:
  Cleaner(const sm_services* services, uint64_t blockSize, uint64_t maxTransfer, LogMap& map, CleanerOwner& owner);

  bool idle() const { return phase_ == Phase::kIdle && !armed_; }
  // Goes on in a segment that the cleaner left when the volume was closed, or crashed.
  void adopt(const LogHead& head) { head_ = head; }
  // False: there is no segment to be emptied, or none to write to.
  bool start(CleanFor why);
  void resume() { pump(); }
  // Ends after the batch. start is not to be called before this is taken back.
  void hold(bool held) { held_ = held; }
  bool held() const { return held_; }
  // Blocks moved; the error that ended it since this was asked last, 0: none.
  uint64_t moved() const { return moved_; }
  int32_t takeFailure();

 private:
  enum class Phase { kIdle, kBuffer, kRead, kWrite };
  static constexpr uint32_t kMoves = 256;          // blocks in a batch
  static constexpr uint64_t kLargest = 128 << 10;  // bytes in a batch
  static constexpr uint32_t kPatience = 16;        // batches that fail one after the other before victims are blamed
  struct Task {
    sm_task task{};  // first: found from it
    Cleaner* cleaner = nullptr;
  };
  struct Move {
    uint32_t place;
    uint32_t slot, block;  // whose it is
  };

  uint32_t pick(CleanFor why);
  void step();
  bool gather();
  void getBuffer();
  void pump();
  bool issue();  // false: starved
  void enter(Phase phase);
  void endBatch();
  bool passOver();
  void finish();
  void later(void (*when)(const sm_services*, sm_task*));
  static void onDone(sm_request* child, void* cleaner, uint64_t);

  const sm_services* services_;
  const uint64_t blockSize_;
  const uint32_t most_;          // blocks in a batch
  const uint32_t mostTransfer_;  // blocks in a child
  LogMap& map_;
  CleanerOwner& owner_;

  Phase phase_ = Phase::kIdle;
  bool urgent_ = false, held_ = false, pumping_ = false;
  uint32_t victim_ = kNoSegment;
  uint32_t cursor_ = 0;  // places of it that have been seen
  uint32_t count_ = 0;   // of moves_
  uint32_t next_ = 0;    // of moves_: issued
  uint32_t pending_ = 0;
  int32_t status_ = 0, failure_ = 0;
  uint32_t passedOver_ = 0;  // batches since the last one that was written
  uint64_t moved_ = 0;
  LogHead head_;
  sm_buffer buffer_{};
  Move moves_[kMoves];
  iovec iov_[kMoves];
  Task task_;
  bool armed_ = false;  // task_ is the host's
};

}  // namespace sm
