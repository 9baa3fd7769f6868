// The memory of every live request above, recorded or not: what is in it is that request's, and a buffer that two of
// them share is nobody's alone (rule 6).
//
// Thread contract: guarded by the map's lock.
#pragma once

#include "correlate/evidence.h"
#include "map/active_ranges.h"

namespace sm {

class LiveBuffers {
 public:
  explicit LiveBuffers(Slots<Context>& contexts) : contexts_(contexts) {}

  // `hull`: that of the context's memory.
  void add(uint32_t slot, Range hull) {
    Context& context = contexts_[slot];
    if (context.iovCount > 0) context.bufferPosition = hulls_.add(hull, slot);
  }
  void remove(uint32_t slot) {
    if (contexts_[slot].iovCount == 0) return;
    hulls_.remove(contexts_[slot].bufferPosition,
                  [this](uint32_t moved, uint32_t position) { contexts_[moved].bufferPosition = position; });
  }

  // Whether its memory was ever in another live request's as well.
  bool shared(uint32_t slot) const { return contexts_[slot].sharedBuffer; }

  // f(slot) for each that shares memory with these segments.
  template <class F>
  void overlapping(const iovec* iov, uint32_t count, F&& f) const {
    overlapping(iov, count, hullOf(iov, count), f);
  }
  template <class F>
  void overlapping(const iovec* iov, uint32_t count, Range hull, F&& f) const {
    if (count == 0) return;
    hulls_.overlapping(hull, [&](uint32_t slot, Range) {
      const Context& context = contexts_[slot];
      const bool exact = count == 1 && context.iovCount == 1;
      if (exact || overlap(iov, count, context.iov, context.iovCount)) f(slot);
    });
  }

 private:
  Slots<Context>& contexts_;
  ActiveRanges hulls_;
};

}  // namespace sm
