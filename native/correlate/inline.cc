// `inline`: the context itself, packed into fields that the host carries and never reads (US 8,886,867: context in
// unused fields of the request): disk, operation, offset and length, and a tag by which one that outlived its request
// is recognised.
#include "correlate/associations.h"
#include "correlate/evidence.h"
#include "correlate/tags.h"

namespace sm {

namespace {

class Inline : public Association {
 public:
  explicit Inline(uint32_t capacity) : tags_(capacity) {}
  bool mark(uint32_t context, const Context& what, sm_request* above) override {
    uint64_t* field = above->spare;
    // They may be in use already: by the issuer, or by another probe. They are not ours to overwrite.
    if (field[kTag] | field[kOffset] | field[kWhat]) return false;
    field[kTag] = tags_.bind(context);
    if (field[kTag] == ContextSlots::kNoId) return false;
    field[kOffset] = what.virt.begin;
    field[kWhat] = packed(what);
    return true;
  }
  void unmark(uint32_t context, sm_request* above) override {
    above->spare[kTag] = above->spare[kOffset] = above->spare[kWhat] = 0;
    tags_.release(context);
  }
  bool record(uint32_t, const sm_request*) override { return true; }
  void forget(uint32_t, const sm_request*) override {}
  uint32_t find(const sm_request* below) const override { return tags_.find(below->spare[kTag]); }
  uint64_t key(const sm_request* request) const override { return Tags::keyOf(request->spare[kTag]); }

 private:
  enum Field { kTag = 0, kOffset = 1, kWhat = 2 };
  static uint64_t packed(const Context& what) {
    return (static_cast<uint64_t>(what.disk) << 32) | (static_cast<uint64_t>(what.op) << 24) |
           ((what.virt.length() >> 9) & 0xffffff);
  }
  Tags tags_;
};

}  // namespace

std::unique_ptr<Association> makeInlineAssociation(uint32_t capacity, const LiveBuffers&) {
  return std::make_unique<Inline>(capacity);
}

}  // namespace sm
