// The filters of one virtual disk, and a request's way through them.
//
// Thread contract: attach and detach from any thread but an I/O thread; everything else on the home I/O thread.
// Invariants:
// - A snapshot never changes. It is replaced on the home I/O thread alone, and lives until the last request that began
//   on it has left it.
// - A filter has seen a request exactly if it has a frame in it, and that frame calls its complete. So complete is
//   called once for each submit, whatever the verdict, and in reverse order.
// - Once detached, a filter is passed by, also in older snapshots: no submit begins any more.
#pragma once

#include <stratamap/filter.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/io_thread.h"

namespace sm {

class FilterChain {
 public:
  static constexpr uint32_t kMaxFilters = 8;  // each takes a frame of SM_FRAMES
  struct Snapshot;

  explicit FilterChain(IoThread& home);
  ~FilterChain();  // no request is in the chain
  FilterChain(const FilterChain&) = delete;
  FilterChain& operator=(const FilterChain&) = delete;

  // The last attached sees requests first. 0, -EINVAL (a table of another version), -EEXIST (the context is attached
  // already), -ENOSPC (kMaxFilters).
  int attach(const sm_filter_ops* ops, void* context);
  // 0, -ENOENT, or -ETIMEDOUT: it is out, but its complete may still be called.
  int detach(void* context, uint64_t timeoutNs);

  // The snapshot on which a new request begins, and where it gives it back.
  Snapshot* take();
  void giveBack(Snapshot* snapshot);
  // Runs the request through all filters of the snapshot. False: one of them has taken it, and it may be gone by now.
  static bool walk(Snapshot* snapshot, sm_request* request);
  // The same from behind the filter that has taken it.
  static bool walkOn(sm_request* request);

 private:
  struct Attachment;
  struct Place;
  static bool walkFrom(Snapshot* snapshot, size_t index, sm_request* request);
  static void complete(sm_request* request, void* context, uint64_t word);
  void replace(std::unique_ptr<Snapshot> next, Attachment* out);

  IoThread& home_;
  Snapshot* current_;
  std::mutex mutex_;  // one attach or detach at a time; never taken on an I/O thread
  std::vector<std::shared_ptr<Attachment>> attached_;
};

}  // namespace sm
