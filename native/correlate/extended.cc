// `extended`: the context in the room that the host allocates behind each request, as SPDK's and blk-mq's per-request
// driver context (US 8,886,867: context in storage added to the request).
#include <cstring>

#include "correlate/associations.h"
#include "correlate/evidence.h"
#include "correlate/tags.h"

namespace sm {

namespace {

class Extended : public Association {
 public:
  explicit Extended(uint32_t capacity) : tags_(capacity) {}
  bool mark(uint32_t context, const Context& what, sm_request* above) override {
    static constexpr Room kUnused{};
    // It may be in use already: by the issuer, or by another probe. It is not ours to overwrite.
    if (!above->extension || std::memcmp(above->extension, &kUnused, sizeof kUnused) != 0) return false;
    const uint64_t tag = tags_.bind(context);
    if (tag == ContextSlots::kNoId) return false;
    const Room room{tag, what.virt.begin, what.virt.length(), what.disk, what.op, {}};
    std::memcpy(above->extension, &room, sizeof room);
    return true;
  }
  void unmark(uint32_t context, sm_request* above) override {
    std::memset(above->extension, 0, sizeof(Room));
    tags_.release(context);
  }
  bool record(uint32_t, const sm_request*) override { return true; }
  void forget(uint32_t, const sm_request*) override {}
  uint32_t find(const sm_request* below) const override { return tags_.find(tagOf(below)); }
  uint64_t key(const sm_request* request) const override { return Tags::keyOf(tagOf(request)); }

 private:
  struct Room {
    uint64_t tag, offset, length;
    uint32_t disk;
    uint8_t op, reserved[3];
  };
  static_assert(sizeof(Room) <= SM_EXTENSION);
  static uint64_t tagOf(const sm_request* request) {
    uint64_t tag = 0;
    if (request->extension) std::memcpy(&tag, request->extension, sizeof tag);
    return tag;
  }
  Tags tags_;
};

}  // namespace

std::unique_ptr<Association> makeExtendedAssociation(uint32_t capacity, const LiveBuffers&) {
  return std::make_unique<Extended>(capacity);
}

}  // namespace sm
