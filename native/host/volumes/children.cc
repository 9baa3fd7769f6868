#include "children.h"

#include <algorithm>
#include <cstring>

namespace sm {
namespace {

constexpr uint32_t kSegments = 1024;  // fresh children with data in flight at once; more wait

// The part of `iov` from byte `from` on, `length` bytes, into `out`. Returns how many segments that takes.
uint32_t cut(const iovec* iov, uint64_t from, uint64_t length, iovec* out) {
  while (from >= iov->iov_len) from -= iov++->iov_len;
  uint32_t count = 0;
  for (; length > 0; from = 0, ++iov) {
    const uint64_t piece = std::min<uint64_t>(length, iov->iov_len - from);
    out[count++] = {static_cast<char*>(iov->iov_base) + from, piece};
    length -= piece;
  }
  return count;
}

}  // namespace

void fillZeroes(const iovec* iov, uint64_t from, uint64_t length) {
  for (; length > 0; ++iov) {
    if (from >= iov->iov_len) {
      from -= iov->iov_len;
      continue;
    }
    const uint64_t piece = std::min<uint64_t>(length, iov->iov_len - from);
    memset(static_cast<char*>(iov->iov_base) + from, 0, piece);
    length -= piece;
    from = 0;
  }
}

Children::Children(const sm_services* services, Issue issue) : services_(services), issue_(issue) {
  if (issue != Issue::kFresh) return;
  segments_.resize(kSegments);
  unused_.resize(kSegments);
  for (uint32_t i = 0; i < kSegments; ++i) unused_[i] = i;
}

sm_request* Children::make(const sm_request* parent, uint8_t op, uint64_t from, uint64_t length) {
  if (issue_ == Issue::kFresh) return makeFresh(parent, op, from, length);
  sm_request* child = services_->clone(services_, parent, from, length);
  if (child) child->op = op;
  return child;
}

sm_request* Children::makeFresh(const sm_request* parent, uint8_t op, uint64_t from, uint64_t length) {
  const bool part = parent->iov && length < parent->length;
  if (part && unused_.empty()) return nullptr;
  sm_request* child = services_->fresh(services_);
  if (!child) return nullptr;
  child->op = op;
  child->flags = parent->flags & SM_FLAG_FUA;
  child->length = length;
  child->iov = parent->iov;
  child->iov_count = parent->iov_count;
  if (part) {
    Segments& segments = segments_[unused_.back()];
    unused_.pop_back();
    child->iov_count = cut(parent->iov, from, length, segments.iov);
    child->iov = segments.iov;
  }
  return child;
}

void Children::put(sm_request* child) {
  const auto* segments = reinterpret_cast<const Segments*>(child->iov);
  if (!segments_.empty() && segments >= segments_.data() && segments < segments_.data() + segments_.size())
    unused_.push_back(static_cast<uint32_t>(segments - segments_.data()));
  services_->release(services_, child);
}

}  // namespace sm
