// `address`: the payload's memory address, an identifier that the request already has (US 8,886,867: association by a
// pre-existing identifier). A child that reads from or writes to a live request's buffer serves that request, by
// `clone` or `fresh`, and the address tells which of its bytes it carries. Discards and write-zeroes have no payload.
#include "correlate/associations.h"
#include "correlate/live_buffers.h"

namespace sm {

namespace {

class Address : public Association {
 public:
  explicit Address(const LiveBuffers& buffers) : buffers_(buffers) {}
  bool record(uint32_t, const sm_request*) override { return true; }  // the live buffers are known in any case
  void forget(uint32_t, const sm_request*) override {}
  uint32_t find(const sm_request* below) const override {
    uint32_t found = kNone;
    buffers_.overlapping(below->iov, below->iov_count,
                         [&](uint32_t slot) { found = found == kNone && !buffers_.shared(slot) ? slot : kAmbiguous; });
    return found;
  }
  uint64_t key(const sm_request*) const override { return kNoKey; }
  bool carries(const Evidence& below, const Context& above) const override {
    return overlap(below.memory, below.memoryCount, above.iov, above.iovCount);
  }
  bool needsOwnBuffer() const override { return true; }

 private:
  const LiveBuffers& buffers_;
};

}  // namespace

std::unique_ptr<Association> makeAddressAssociation(uint32_t, const LiveBuffers& buffers) {
  return std::make_unique<Address>(buffers);
}

}  // namespace sm
