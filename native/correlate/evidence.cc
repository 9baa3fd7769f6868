#include "correlate/evidence.h"

#include <algorithm>
#include <cstring>

namespace sm {

bool Taints::add(Range part) {
  if (overflowed_) return true;
  // Swallow what the new part touches, so that the parts stay disjoint and in order.
  int first = 0;
  while (first < count_ && parts_[first].end < part.begin) ++first;
  int last = first;
  for (; last < count_ && parts_[last].begin <= part.end; ++last) {
    part = {std::min(part.begin, parts_[last].begin), std::max(part.end, parts_[last].end)};
  }
  if (first == last) {
    if (count_ == kParts) {
      overflowed_ = true;
      return false;
    }
    for (int i = count_++; i > first; --i) parts_[i] = parts_[i - 1];
  } else {
    for (int i = last; i < count_; ++i) parts_[first + 1 + i - last] = parts_[i];
    count_ = static_cast<uint8_t>(count_ - (last - first - 1));
  }
  parts_[first] = part;
  return true;
}

void Taints::cleanParts(Range range, std::vector<Range>* out) const {
  if (overflowed_) return;
  uint64_t at = range.begin;
  for (int i = 0; i < count_; ++i) {
    Range common = intersect(range, parts_[i]);
    if (common.empty()) continue;
    if (common.begin > at) out->push_back({at, common.begin});
    at = common.end;
  }
  if (at < range.end) out->push_back({at, range.end});
}

uint64_t Taints::bytesOf(Range range) const {
  if (overflowed_) return range.length();
  uint64_t bytes = 0;
  for (int i = 0; i < count_; ++i) {
    Range common = intersect(range, parts_[i]);
    if (!common.empty()) bytes += common.length();
  }
  return bytes;
}

void Evidence::keepMemory(const iovec* iov, uint32_t count) {
  memoryCount = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (memoryCount > 0) {
      iovec& last = memory[memoryCount - 1];
      if (static_cast<std::byte*>(last.iov_base) + last.iov_len == iov[i].iov_base) {
        last.iov_len += iov[i].iov_len;
        continue;
      }
    }
    memory[memoryCount++] = iov[i];
  }
}

bool locateByAddress(const iovec* child, uint32_t count, const Context& parent, Evidence* evidence) {
  if (parent.aliased) return false;
  bool any = false;
  uint64_t from = 0;
  for (uint32_t c = 0; c < count; ++c) {
    const Range mine = rangeOf(child[c]);
    uint64_t at = 0;
    for (uint32_t p = 0; p < parent.iovCount; ++p) {
      const Range theirs = rangeOf(parent.iov[p]), common = intersect(mine, theirs);
      if (!common.empty()) {
        any = true;
        evidence->addPiece({from + (common.begin - mine.begin), at + (common.begin - theirs.begin), common.length()});
      }
      at += theirs.length();
    }
    from += mine.length();
  }
  return any;
}

bool overlap(const iovec* a, uint32_t countA, const iovec* b, uint32_t countB) {
  for (uint32_t i = 0; i < countA; ++i) {
    for (uint32_t k = 0; k < countB; ++k) {
      if (!intersect(rangeOf(a[i]), rangeOf(b[k])).empty()) return true;
    }
  }
  return false;
}

bool overlapsItself(const iovec* iov, uint32_t count) {
  for (uint32_t i = 1; i < count; ++i) {
    if (overlap(iov, i, iov + i, 1)) return true;
  }
  return false;
}

void gather(const iovec* iov, uint32_t count, std::byte* out) {
  for (uint32_t i = 0; i < count; ++i) {
    std::memcpy(out, iov[i].iov_base, iov[i].iov_len);
    out += iov[i].iov_len;
  }
}

bool equalAt(const iovec* iov, uint32_t count, uint64_t at, const std::byte* bytes, uint64_t length) {
  for (uint32_t i = 0; i < count && length > 0; ++i) {
    if (at >= iov[i].iov_len) {
      at -= iov[i].iov_len;
      continue;
    }
    uint64_t part = std::min<uint64_t>(length, iov[i].iov_len - at);
    if (std::memcmp(static_cast<const std::byte*>(iov[i].iov_base) + at, bytes, part) != 0) return false;
    bytes += part;
    length -= part;
    at = 0;
  }
  return length == 0;
}

namespace {
constexpr uint64_t kComparisons = 65536;  // at most, for one child: the time on the path stays bounded (rule 9)
}  // namespace

void locateByContent(const std::byte* bytes, uint64_t length, const Context& parent, Evidence* evidence) {
  const uint64_t parentLength = parent.virt.length();
  if (length == parentLength) {
    for (uint64_t at = 0; at < length; at += kCompared) {
      uint64_t part = std::min(kCompared, length - at);
      if (equalAt(parent.iov, parent.iovCount, at, bytes + at, part)) evidence->addPiece({at, at, part});
    }
    return;
  }
  if ((length / kCompared) * ((parentLength + length) / kCompared) > kComparisons) return;
  for (uint64_t from = 0; from + kCompared <= length; from += kCompared) {
    uint64_t found = 0, where = 0;
    for (uint64_t at = 0; at + kCompared <= parentLength && found < 2; at += kCompared) {
      if (equalAt(parent.iov, parent.iovCount, at, bytes + from, kCompared)) ++found, where = at;
    }
    // Nor may another block of the child be the same: which of the two is the parent's?
    for (uint64_t other = 0; other + kCompared <= length && found == 1; other += kCompared) {
      if (other != from && std::memcmp(bytes + other, bytes + from, kCompared) == 0) ++found;
    }
    if (found == 1) evidence->addPiece({from, where, kCompared});
  }
}

}  // namespace sm
