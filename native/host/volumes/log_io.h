// The path of an I/O through the log volume.
//
// A write takes effect when all of its children have completed, and in one go: so writes that overlap have an order,
// that of their completions, and one that fails changes nothing. A discard or write-zeroes only changes the map; so
// does one of more than kBudget blocks, but as if it were several.
//
// Space: a write is let in when the blocks that it makes live, and the places that it needs, are there; it keeps both
// until it completes, so that a write that waits for space holds nothing that another one waits for.
//
// Thread contract: on the home I/O thread, but for the constructor; LogDisk's fields change there too, while no request
// of the disk is in flight. Invariants: the children that read a place count as readers of its segment; each run of
// places that a write was given counts as a writer of its segment.
#pragma once

#include "flow.h"
#include "log_cleaner.h"
#include "log_journal.h"

namespace sm {

class LogIo final : public Flow, private CommitOwner, private CleanerOwner {
 public:
  // `clean`: percent of the blocks written that the cleaner moves without need.
  LogIo(const sm_services* services, sm_device* const* devices, uint32_t deviceCount, Issue issue, uint64_t clean,
        const LogLayout& layout, LogMap& map, LogJournal& journal, Durability& durability);

  Commit& commit() { return commit_; }
  Cleaner& cleaner() { return cleaner_; }
  // Goes on after the cleaner was held, or blocks were given up.
  void poke() { pump(); }

 private:
  // A write that was let in.
  struct Write : LogTarget {
    Write* next;      // unused
    uint32_t first;   // run: 0: none; else 1 + its first place
    uint32_t last;    // run: its first place
    uint32_t holes;   // blocks that held zeroes when it was let in
    uint32_t unused;  // places that it has not been given yet
  };
  static constexpr uint32_t kWrites = 1024;     // at once
  static constexpr uint32_t kBudget = 1 << 16;  // blocks that one request may go through without a pause

  LogDisk& diskOf(sm_request* request) const { return *static_cast<LogTarget*>(stateOf(request).disk)->disk; }
  bool admitted(sm_request* request) const { return stateOf(request).disk != &diskOf(request); }

  void advance(sm_request* request) override;
  void advanceWrite(sm_request* request);
  bool admit(sm_request* request);
  void refuse(sm_request* request, int32_t status);
  bool issueWrite(sm_request* request, Write& write);
  void addRun(Write& write, uint32_t place, uint32_t count);
  bool stepRead(sm_request* request, LogDisk& disk);
  void finish(sm_request* request) override;
  bool stillFits(const sm_request* request, const Write& write) const;
  void endWrite(sm_request* request);
  void drainOwn() override;

  void pump();
  bool lookForSpace();
  void failWaiter();
  void failWaiters(int32_t status);

  void commitStarved() override;
  void commitEnded(int32_t status, RequestQueue& waiters) override;
  void cleanerStarved() override;
  void cleanerChanged() override;
  bool cleanerMayTake(bool urgent) const override;
  static void onRead(sm_request* child, void* segment, uint64_t parent);
  static void onWritten(sm_request* child, void* io, uint64_t parent);

  LogMap& map_;
  Segments& segments_;
  LogJournal& journal_;
  const uint64_t blockSize_;
  const uint32_t blockShift_;
  const uint64_t usable_;        // blocks that may live
  const uint32_t mostTransfer_;  // blocks in a child
  const uint32_t enough_;        // free segments: the cleaner rests
  const int64_t clean_;
  Commit commit_;
  Cleaner cleaner_;
  bool commitWaits_ = false, cleanerWaits_ = false;
  bool commitFailed_ = false;  // the last one: another is not asked for without need
  bool pumping_ = false, again_ = false;

  LogHead head_;
  uint64_t promised_ = 0;  // blocks that writes in flight may make live
  uint64_t unused_ = 0;    // places that they have not been given yet
  int64_t debt_ = 0;       // the cleaner's, in hundredths of a block
  uint64_t lastMoved_ = 0;
  uint64_t sinceLook_ = 0;  // blocks written since the cleaner looked for something to do
  uint32_t inFlight_ = 0;   // writes
  std::vector<Write> writes_;
  Write* unusedWrites_ = nullptr;
  RequestQueue writeWaiters_;  // need a Write
  RequestQueue spaceWaiters_;
};

}  // namespace sm
