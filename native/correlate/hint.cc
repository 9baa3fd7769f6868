#include "correlate/hint.h"

#include "correlate/associations.h"
#include "correlate/evidence.h"

namespace sm {

void HintAssociation::give(std::span<const uint16_t> tags) {
  known_ = priorityOf(tags[0]);
  own_ = priorityOf(tags[1]);
  free_.assign(tags.begin() + 2, tags.end());
  first_ = 0;
  count_ = free_.size();
}

bool HintAssociation::mark(uint32_t context, const Context& above, sm_request* request) {
  // The priority may be the guest's (rule 9), and the kernel takes one with nothing but a read or a write.
  if (request->ioprio != 0 || (above.op != SM_OP_READ && above.op != SM_OP_WRITE) || count_ == 0) return false;
  const uint16_t tag = free_[first_];
  first_ = first_ + 1 == free_.size() ? 0 : first_ + 1;
  --count_;
  context_[tag] = context;
  bound_[context] = tag;
  request->ioprio = priorityOf(tag);
  return true;
}

void HintAssociation::unmark(uint32_t context, sm_request* above) {
  const uint16_t tag = bound_[context];
  above->ioprio = 0;
  context_[tag] = kNone;
  free_[(first_ + count_) % free_.size()] = tag;
  ++count_;
}

std::unique_ptr<Association> makeHintAssociation(uint32_t capacity, const LiveBuffers&) {
  return std::make_unique<HintAssociation>(capacity);
}

}  // namespace sm
