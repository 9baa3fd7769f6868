// `hint`: an identifier that we add, in the 10 hint bits of the kernel's I/O priority, which its block layer carries
// down to the device (include/uapi/linux/ioprio.h: class 3 bits, hint 10, level 3).
//
// Thread contract: guarded by the map's lock. Invariant: a priority is given back last in line, so that what is still
// on its way with it has the longest time to arrive.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "correlate/association.h"

namespace sm {

class HintAssociation final : public Association {
 public:
  static constexpr uint16_t kFirstHint = 8;  // 1 to 7 are command duration limits
  static constexpr uint16_t kHints = 1024;
  static constexpr uint16_t kDefaultLevel = 4;  // what a request without a priority is scheduled as
  static constexpr uint16_t kTags = 1 << 13;    // hints and levels
  static constexpr uint16_t kBestEffort = 2;    // a priority's class

  // A tag: the priority without its class.
  static uint16_t tagOf(uint16_t hint, uint16_t level) { return static_cast<uint16_t>(hint << 3 | level); }
  static uint16_t priorityOf(uint16_t tag) { return static_cast<uint16_t>(kBestEffort << 13 | tag); }

  // Contexts are numbered below `capacity`.
  explicit HintAssociation(uint32_t capacity) : context_(kTags, kNone), bound_(new uint16_t[capacity]) {}

  // The tags that are nobody else's in this system, at least three; once.
  void give(std::span<const uint16_t> tags);
  // Two are kept back: the priority of all requests of which the map knows where they go, and that of what we do.
  uint16_t knownPriority() const { return known_; }
  uint16_t ownPriority() const { return own_; }

  bool mark(uint32_t context, const Context& above, sm_request* request) override;
  void unmark(uint32_t context, sm_request* above) override;
  bool record(uint32_t, const sm_request*) override { return true; }
  void forget(uint32_t, const sm_request*) override {}
  uint32_t find(const sm_request* below) const override { return contextOf(below->ioprio); }
  uint64_t key(const sm_request* request) const override { return request->ioprio; }
  HintAssociation* hints() override { return this; }

  // Whose request has this priority now, or kNone.
  uint32_t contextOf(uint16_t priority) const {
    return priority >> 13 == kBestEffort ? context_[priority & (kTags - 1)] : kNone;
  }
  // The tag of a context that is marked.
  uint16_t tagFor(uint32_t context) const { return bound_[context]; }

 private:
  std::vector<uint32_t> context_;      // by tag
  std::unique_ptr<uint16_t[]> bound_;  // by context
  std::vector<uint16_t> free_;         // a ring
  size_t first_ = 0, count_ = 0;
  uint16_t known_ = 0, own_ = 0;
};

}  // namespace sm
