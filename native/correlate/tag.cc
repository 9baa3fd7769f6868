// `tag`: an identifier that we add, in a field that the host carries and never reads (US 8,886,867: association by an
// added identifier). The tag is a context's number and the generation of its use, so that it needs no lookup and a tag
// that outlived its request is recognised.
#include <atomic>
#include <memory>
#include <random>

#include "correlate/association.h"

namespace sm {

namespace {

class Tag : public Association {
 public:
  explicit Tag(uint32_t capacity) : capacity_(capacity), live_(new std::atomic<uint64_t>[capacity]) {
    // A random start: what a volume leaves in the field by accident is no tag of ours.
    std::random_device random;
    generation_.store((static_cast<uint64_t>(random()) << 8) | 1, std::memory_order_relaxed);
    for (uint32_t i = 0; i < capacity; ++i) live_[i].store(0, std::memory_order_relaxed);
  }
  bool bind(uint32_t context, sm_request* above) override {
    // The field may be in use already: by the issuer, or by another probe. It is not ours to overwrite.
    if (context >= capacity_ || above->spare[kField] != 0) return false;
    uint64_t generation = generation_.fetch_add(1, std::memory_order_relaxed) & (kGenerations - 1);
    uint64_t tag = (generation << kSlotBits) | context | kMark;
    live_[context].store(tag, std::memory_order_release);
    above->spare[kField] = tag;
    return true;
  }
  uint32_t find(const sm_request* below) const override {
    uint64_t tag = below->spare[kField];
    uint32_t context = static_cast<uint32_t>(tag & (kSlots - 1));
    if (!(tag & kMark) || context >= capacity_) return kNone;
    return live_[context].load(std::memory_order_acquire) == tag ? context : kNone;
  }
  void release(uint32_t context, sm_request* above) override {
    live_[context].store(0, std::memory_order_release);
    above->spare[kField] = 0;
  }

 private:
  static constexpr int kField = 3;
  static constexpr int kSlotBits = 24;
  static constexpr uint64_t kSlots = 1ull << kSlotBits, kMark = 1ull << 63, kGenerations = 1ull << (63 - kSlotBits);

  const uint32_t capacity_;
  std::unique_ptr<std::atomic<uint64_t>[]> live_;
  std::atomic<uint64_t> generation_;
};

}  // namespace

std::unique_ptr<Association> makeTagAssociation(uint32_t capacity) { return std::make_unique<Tag>(capacity); }

}  // namespace sm
