// The commit: makes the table of extents durable. It flushes the devices, writes what has changed, and flushes again.
// One runs at a time; who asks while one runs waits for the next, which all of those share.
//
// Thread contract: on the home I/O thread. Nothing allocates.
#pragma once

#include "durability.h"
#include "extent_table.h"
#include "flow.h"

namespace sm {

// Who waits for a commit from a thread that may block.
struct ControlCommit {
  bool done = false;
  int32_t status = 0;
};

class CommitOwner {
 public:
  // No child was to be had: resume() is due when one may be.
  virtual void commitStarved() = 0;
  // `waiters` had joined. Status: 0, or the first error of the devices.
  virtual void commitEnded(int32_t status, RequestQueue& waiters) = 0;

 protected:
  ~CommitOwner() = default;
};

class Commit {
 public:
  Commit(const sm_services* services, const std::vector<sm_device*>& devices, uint64_t maxTransfer, ExtentTable& table,
         Durability& durability, CommitOwner& owner);

  bool running() const { return phase_ != Phase::kIdle; }
  // Each takes part in a commit that begins now or later, so that all that is true now will be durable.
  void join(sm_request* request);
  void join(ControlCommit* control);
  void ask();
  void resume() { pump(); }

 private:
  enum class Phase { kIdle, kFlushFirst, kWrite, kFlushLast };
  static constexpr uint32_t kWrites = 16;        // in flight at once
  static constexpr uint64_t kLongest = 1 << 17;  // bytes in one write

  void begin();
  void end();
  void pump();
  bool issue();  // false: starved
  bool issueFlushes();
  bool issueWrites();
  sm_request* child(uint8_t op, uint64_t offset, uint64_t length, uint32_t slot);
  static void onDone(sm_request* child, void* context, uint64_t slot);

  const sm_services* services_;
  const std::vector<sm_device*>& devices_;
  const uint64_t maxTransfer_;
  ExtentTable& table_;
  Durability& durability_;
  CommitOwner& owner_;

  Phase phase_ = Phase::kIdle;
  bool asked_ = false;  // for another one
  bool pumping_ = false;
  bool haveRun_ = false;
  ExtentTable::Run run_{};  // to be written next
  uint32_t nextDevice_ = 0;
  uint32_t pending_ = 0;
  int32_t status_ = 0;
  RequestQueue waiters_, nextWaiters_;
  ControlCommit* control_ = nullptr;
  ControlCommit* nextControl_ = nullptr;
  iovec iov_[kWrites]{};
  uint32_t unusedIov_ = (1u << kWrites) - 1;  // bits
};

}  // namespace sm
