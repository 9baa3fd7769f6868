// Identifiers that we add to requests, by the contexts that they stand for.
//
// Thread contract: bind and release are serialised by the owner; find from any thread. Invariant: no tag is handed out
// twice before 2^39 others.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "correlate/association.h"
#include "correlate/context_slots.h"

namespace sm {

class Tags {
 public:
  // Contexts are numbered below `capacity`.
  explicit Tags(uint32_t capacity)
      : slots_(std::min(capacity, ContextSlots::kMostSlots)), bound_(new uint64_t[capacity]) {}
  // ContextSlots::kNoId: there are none left, or the context's number is too large for one.
  uint64_t bind(uint32_t context) {
    if (context > ContextSlots::kLargest) return ContextSlots::kNoId;
    return bound_[context] = slots_.lane(0).bind(context);
  }
  // By the context: what stands in the request by now may be anything.
  void release(uint32_t context) { slots_.lane(0).release(bound_[context]); }
  // The context of a tag that is bound, or Association::kNone.
  uint32_t find(uint64_t word) const {
    uint32_t context = Association::kNone;
    slots_.find(word, &context);
    return context;
  }
  static uint64_t keyOf(uint64_t word) { return ContextSlots::isId(word) ? word : Association::kNoKey; }

 private:
  ContextSlots slots_;
  std::unique_ptr<uint64_t[]> bound_;  // by context
};

}  // namespace sm
