// The path of an I/O through the extent volume.
//
// Thread contract: on the home I/O thread, but for the constructor; ExtentDisk's fields change there too, while no
// request of the disk is in flight. Invariants: a cell is busy exactly while its extent is being allocated: its first
// write is in flight and the rest of it is being zeroed; every other request that needs it waits. An extent in use
// counts the children that touch it, and is not used again before they have completed.
#pragma once

#include "commit.h"
#include "extent_table.h"
#include "flow.h"

namespace sm {

class ExtentIo;

struct ExtentDisk {
  ExtentIo* io;
  uint32_t id;
  uint32_t cellCount;
  uint64_t bytes;
  // What each of the disk's extents is: 0: nothing; kBusyCell | number of its allocation; else 1 + physical extent.
  uint32_t* cells;
};
constexpr uint32_t kBusyCell = 1u << 31;

class ExtentIo final : public Flow, private CommitOwner {
 public:
  ExtentIo(const sm_services* services, sm_device* const* devices, uint32_t deviceCount, Issue issue,
           uint64_t extentBytes, ExtentTable& table, Durability& durability);

  Commit& commit() { return commit_; }
  // Gives up what the cells from `from` to before `to` hold. No request of the disk is in flight.
  void clear(ExtentDisk& disk, uint32_t from, uint32_t to);

 private:
  // The first write to an extent, or the part of one that lies in it.
  struct Allocation {
    Allocation* next;    // unused, or starved
    sm_request* parent;  // waits for the whole allocation, so it is there as long
    ExtentDisk* disk;
    Extent* extent;
    uint32_t index;     // of the extent in the disk
    uint32_t zeroes;    // children in flight, and one until all have been issued
    uint64_t from, to;  // bytes in the extent: what the write covers
    uint64_t zeroAt;    // bytes in the extent: zeroed or left out up to here
    uint64_t dataLeft;  // bytes whose write has not completed
    int32_t status;
    RequestQueue waiters;
  };
  // Where in disk and extent a request stands.
  struct Place {
    uint32_t index;
    uint64_t within, span;  // bytes: offset in the extent, and how many of the request lie in it from there
  };
  static constexpr uint32_t kAllocations = 256;  // at once
  static constexpr uint32_t kBudget = 4096;      // extents that one request may go through without a pause

  // Each step issues one piece, or passes over one; false: the request now stands in a queue.
  void advance(sm_request* request) override;
  bool step(sm_request* request, RequestState& state, ExtentDisk& disk);
  bool overHole(sm_request* request, RequestState& state, ExtentDisk& disk, const Place& place);
  bool overExtent(sm_request* request, RequestState& state, ExtentDisk& disk, const Place& place, Extent& extent);
  bool allocate(sm_request* request, RequestState& state, ExtentDisk& disk, const Place& place);
  bool intoAllocation(sm_request* request, RequestState& state, const Place& place, Allocation& allocation);
  void finish(sm_request* request) override;
  void drainOwn() override;

  void issueZeroes(Allocation& allocation);
  void finishAllocation(Allocation& allocation);
  void spaceFreed();
  void commitStarved() override;
  void commitEnded(int32_t status, RequestQueue& waiters) override;

  static void onData(sm_request* child, void* extent, uint64_t parent);
  static void onFirstData(sm_request* child, void* allocation, uint64_t length);
  static void onZeroes(sm_request* child, void* allocation, uint64_t);

  ExtentTable& table_;
  const uint64_t extentBytes_;
  const uint32_t shift_;
  Commit commit_;
  bool commitWaits_ = false;
  std::vector<Allocation> allocations_;
  Allocation* unused_ = nullptr;
  Allocation* starved_ = nullptr;   // have zeroes to issue
  RequestQueue allocationWaiters_;  // need an Allocation
  RequestQueue spaceWaiters_;       // need an extent; some will be free
};

}  // namespace sm
