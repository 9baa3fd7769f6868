// `tag`: an identifier that we add, in a field that the host carries and never reads (US 8,886,867: association by an
// added identifier).
#include "correlate/associations.h"
#include "correlate/tags.h"

namespace sm {

namespace {

class Tag : public Association {
 public:
  explicit Tag(uint32_t capacity) : tags_(capacity) {}
  bool mark(uint32_t context, const Context&, sm_request* above) override {
    // The field may be in use already: by the issuer, or by another probe. It is not ours to overwrite.
    if (above->spare[kField] != 0) return false;
    above->spare[kField] = tags_.bind(context);
    return above->spare[kField] != ContextSlots::kNoId;
  }
  void unmark(uint32_t context, sm_request* above) override {
    above->spare[kField] = 0;
    tags_.release(context);
  }
  bool record(uint32_t, const sm_request*) override { return true; }
  void forget(uint32_t, const sm_request*) override {}
  uint32_t find(const sm_request* below) const override { return tags_.find(below->spare[kField]); }
  uint64_t key(const sm_request* request) const override { return Tags::keyOf(request->spare[kField]); }

 private:
  static constexpr int kField = 3;
  Tags tags_;
};

}  // namespace

std::unique_ptr<Association> makeTagAssociation(uint32_t capacity, const LiveBuffers&) {
  return std::make_unique<Tag>(capacity);
}

}  // namespace sm
