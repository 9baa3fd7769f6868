// `content`: the payload itself. A child's blocks are looked up by a keyed hash among those of the requests in whose
// time it was issued, then compared byte for byte. It needs nothing of the request and survives copying; equal payloads
// in flight at one time are ambiguous, and every place found so is `shared`.
#include "correlate/associations.h"
#include "correlate/content_index.h"

namespace sm {

namespace {

class Content : public Association {
 public:
  explicit Content(uint32_t capacity) : index_(capacity, 2 * capacity) {}
  bool record(uint32_t context, const sm_request* above) override {
    return above->op != SM_OP_WRITE || index_.enter(context);
  }
  void forget(uint32_t context, const sm_request* above) override {
    if (above->op == SM_OP_WRITE) index_.leave(context);
  }
  uint32_t find(const sm_request*) const override { return kNone; }
  uint64_t key(const sm_request*) const override { return kNoKey; }
  ContentIndex* content() override { return &index_; }

 private:
  ContentIndex index_;
};

}  // namespace

std::unique_ptr<Association> makeContentAssociation(uint32_t capacity, const LiveBuffers&) {
  return std::make_unique<Content>(capacity);
}

}  // namespace sm
