#include "binding/buffer_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <new>

namespace sm::binding {

BufferArena::BufferArena(uint32_t slabs) : slabs_(slabs) {
  void* memory =
      mmap(nullptr, slabs * kSlab, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  for (uint32_t i = slabs; i > 0; --i) whole_.push_back(i - 1);
  for (auto& list : available_) list.reserve(slabs);
}

BufferArena::~BufferArena() { munmap(memory_, slabs_.size() * kSlab); }

void* BufferArena::get(uint64_t length) {
  int size = 0;
  while ((kBlock << (2 * size)) < length) ++size;
  auto& available = available_[size];
  if (available.empty()) {
    if (whole_.empty()) return nullptr;
    Slab& slab = slabs_[whole_.back()];
    slab = {.size = size};
    for (uint32_t i = 0; i < blocksOf(size); ++i) slab.free[i / 64] |= 1ull << (i % 64);
    available.push_back(whole_.back());
    whole_.pop_back();
  }
  const uint32_t index = available.back();
  Slab& slab = slabs_[index];
  uint32_t word = 0;
  while (!slab.free[word]) ++word;
  const uint32_t block = word * 64 + uint32_t(std::countr_zero(slab.free[word]));
  slab.free[word] &= slab.free[word] - 1;
  if (++slab.used == blocksOf(size)) available.pop_back();
  return memory_ + index * kSlab + (uint64_t(block) << (2 * size)) * kBlock;
}

void BufferArena::put(void* pointer) {
  const uint64_t at = uint64_t(static_cast<std::byte*>(pointer) - memory_);
  const uint32_t index = uint32_t(at / kSlab);
  Slab& slab = slabs_[index];
  const uint32_t block = uint32_t((at % kSlab) / (kBlock << (2 * slab.size)));
  slab.free[block / 64] |= 1ull << (block % 64);
  auto& available = available_[slab.size];
  if (slab.used-- == blocksOf(slab.size)) available.push_back(index);
  if (slab.used == 0) {
    available.erase(std::find(available.begin(), available.end(), index));
    slab.size = -1;
    whole_.push_back(index);
  }
}

}  // namespace sm::binding
