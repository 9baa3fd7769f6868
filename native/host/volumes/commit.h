// The commit: makes a volume's metadata durable. It goes through stages: in each it writes what the source has for that
// stage, then flushes the devices; a stage after the first that has nothing to write is the end. One commit runs at a
// time; who asks while one runs waits for the next, which all of those share.
//
// Thread contract: on the home I/O thread. Nothing allocates.
#pragma once

#include "durability.h"
#include "flow.h"

namespace sm {

// What a commit writes. `begin` notes what is true now; `end` says whether all of that is durable (else it is due
// again).
class CommitSource {
 public:
  struct Run {
    sm_device* device;
    uint64_t offset, length;  // bytes
    void* data;               // does not change before its write has completed
  };
  enum class Next {
    kRun,    // `out` is to be written
    kNone,   // nothing more in this stage
    kAgain,  // nothing in this stage, and all begins again with the first one
  };
  virtual ~CommitSource() = default;
  virtual void begin() = 0;
  // `longest`: bytes. `slot` is below kCommitWrites, and no other write in flight has it.
  virtual Next next(uint32_t stage, uint32_t slot, uint64_t longest, Run* out) = 0;
  virtual void end(bool durable) = 0;
};
constexpr uint32_t kCommitWrites = 16;  // in flight at once

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
  Commit(const sm_services* services, const std::vector<sm_device*>& devices, uint64_t maxTransfer,
         CommitSource& source, Durability& durability, CommitOwner& owner);

  bool running() const { return phase_ != Phase::kIdle; }
  // Each takes part in a commit that begins now or later, so that all that is true now will be durable.
  void join(sm_request* request);
  void join(ControlCommit* control);
  void ask();
  void resume() { pump(); }

 private:
  enum class Phase { kIdle, kWrite, kFlush };
  static constexpr uint64_t kLongest = 1 << 17;  // bytes in one write

  void begin();
  void enter(uint32_t stage);
  void end();
  void pump();
  bool issue();  // false: starved
  bool issueFlushes();
  bool issueWrites();
  sm_request* child(uint8_t op, uint64_t offset, uint64_t length, uint32_t slot);
  static void onDone(sm_request* child, void* context, uint64_t slot);

  const sm_services* services_;
  const std::vector<sm_device*>& devices_;
  const uint64_t longest_;
  CommitSource& source_;
  Durability& durability_;
  CommitOwner& owner_;

  Phase phase_ = Phase::kIdle;
  uint32_t stage_ = 0;
  bool asked_ = false;  // for another one
  bool pumping_ = false;
  bool more_ = false;     // of this stage, perhaps
  bool wrote_ = false;    // in this stage
  uint32_t runSlot_ = 0;  // of run_
  bool haveRun_ = false;  // run_ waits for a child
  CommitSource::Run run_{};
  uint32_t nextDevice_ = 0;
  uint32_t pending_ = 0;
  int32_t status_ = 0;
  RequestQueue waiters_, nextWaiters_;
  ControlCommit* control_ = nullptr;
  ControlCommit* nextControl_ = nullptr;
  iovec iov_[kCommitWrites]{};
  uint32_t unusedSlots_ = (1u << kCommitWrites) - 1;  // bits
};

}  // namespace sm
