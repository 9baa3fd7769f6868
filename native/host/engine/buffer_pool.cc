#include "engine/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <new>

namespace sm {

static_assert(BufferPool::kLargest == BufferPool::kPage << 18);

BufferPool::BufferPool(uint64_t bytes) {
  bytes_ = std::max(kPage, (bytes + kPage - 1) / kPage * kPage);
  void* region = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (region == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<uint8_t*>(region);
  // To register a buffer makes all its pages present: large ones, where the system has them, in a tenth of the time.
  madvise(region, bytes_, MADV_HUGEPAGE);
  std::fill(std::begin(heads_), std::end(heads_), kNone);
  const uint32_t count = bytes_ / kPage;
  pages_.assign(count, Page{kNone, kNone, kInside});
  // The largest aligned blocks that fit, from the start.
  for (uint32_t page = 0; page < count;) {
    int order = page == 0 ? kOrders - 1 : std::min(std::countr_zero(page), kOrders - 1);
    while ((uint32_t{1} << order) > count - page) --order;
    link(page, order);
    largest_ = std::max(largest_, order);
    page += uint32_t{1} << order;
  }
  free_ = bytes_;
}

BufferPool::~BufferPool() { munmap(base_, bytes_); }

void BufferPool::link(uint32_t page, int order) {
  pages_[page] = {heads_[order], kNone, static_cast<uint8_t>(order | kFree)};
  if (heads_[order] != kNone) pages_[heads_[order]].previous = page;
  heads_[order] = page;
}

void BufferPool::unlink(uint32_t page, int order) {
  const Page& it = pages_[page];
  if (it.next != kNone) pages_[it.next].previous = it.previous;
  if (it.previous != kNone) {
    pages_[it.previous].next = it.next;
  } else {
    heads_[order] = it.next;
  }
  pages_[page].order = kInside;
}

bool BufferPool::get(uint64_t length, void** data, uint64_t* capacity) {
  if (length > largest()) return false;
  const int wanted = length <= kPage ? 0 : std::bit_width((length - 1) / kPage);
  int order = wanted;
  while (order <= largest_ && heads_[order] == kNone) ++order;
  if (order > largest_) return false;
  const uint32_t page = heads_[order];
  unlink(page, order);
  while (order > wanted) {
    --order;
    link(page + (uint32_t{1} << order), order);
  }
  pages_[page].order = wanted;
  *data = base_ + page * kPage;
  *capacity = kPage << wanted;
  free_ -= *capacity;
  return true;
}

void BufferPool::put(void* data) {
  const uint64_t at = static_cast<uint8_t*>(data) - base_;
  uint32_t page = at / kPage;
  if (at >= bytes_ || at % kPage != 0 || pages_[page].order >= kFree) {
    std::fputs("stratamap: a buffer was given back that is not in use\n", stderr);
    std::abort();
  }
  int order = pages_[page].order;
  free_ += kPage << order;
  ++returns_;
  pages_[page].order = kInside;
  for (; order < largest_; ++order) {
    const uint32_t buddy = page ^ (uint32_t{1} << order);
    if (buddy >= pages_.size() || pages_[buddy].order != (order | kFree)) break;
    unlink(buddy, order);
    page &= ~(uint32_t{1} << order);
  }
  link(page, order);
}

}  // namespace sm
