#include "map/pool.h"

#include <sys/mman.h>

#include <bit>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define SM_LEAKS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SM_LEAKS 1
#endif
#endif
#if SM_LEAKS
#include <sanitizer/lsan_interface.h>
#endif

namespace sm {

namespace {

// While a map is small, small pages: a large one would cost more than all that is in it.
constexpr size_t kSmallAreas = 4;
// As much that nothing is in is kept at hand: 4 MiB.
constexpr size_t kSpareChunks = 64;

char* mapArea(size_t bytes, bool large) {
  void* memory = mmap(nullptr, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<char*>(memory);
  const size_t before = -reinterpret_cast<uintptr_t>(begin) & (bytes - 1);
  if (before > 0) munmap(begin, before);
  munmap(begin + before + bytes, bytes - before);
  if (large) madvise(begin + before, bytes, MADV_HUGEPAGE);
#if SM_LEAKS
  __lsan_register_root_region(begin + before, bytes);  // what is found from here is no leak
#endif
  return begin + before;
}

void unmapArea(char* area, size_t bytes) {
#if SM_LEAKS
  __lsan_unregister_root_region(area, bytes);
#endif
  munmap(area, bytes);
}

}  // namespace

Pool::Pool() = default;

Pool::~Pool() {
  for (auto& area : areas_) unmapArea(area->memory, kAreaBytes);
}

void Pool::link(Chunk* chunk) {
  Chunk*& head = partial_[kindOf(chunk->size)];
  chunk->previous = nullptr;
  chunk->next = head;
  if (head) head->previous = chunk;
  head = chunk;
}

void Pool::unlink(Chunk* chunk) {
  (chunk->previous ? chunk->previous->next : partial_[kindOf(chunk->size)]) = chunk->next;
  if (chunk->next) chunk->next->previous = chunk->previous;
}

Pool::Chunk* Pool::addChunk(size_t kind) {
  size_t i = areas_.size();
  while (i > 0 && areas_[i - 1]->vacant == 0) --i;
  if (i == 0) {
    areas_.push_back(std::make_unique<Area>());
    i = areas_.size();
    static_assert(kAreaBytes / kChunk == 32, "a bit of `vacant` for each chunk");
    *areas_.back() = {mapArea(kAreaBytes, i > kSmallAreas), UINT32_MAX};
    vacant_ += kAreaBytes / kChunk;
  }
  --vacant_;
  Area* area = areas_[i - 1].get();
  const int at = std::countr_zero(area->vacant);
  area->vacant &= area->vacant - 1;
  // Blocks begin on a cache line.
  auto* chunk = new (area->memory + static_cast<size_t>(at) * kChunk)
      Chunk{area, nullptr, nullptr, nullptr, static_cast<uint32_t>(sizeOf(kind)), sizeof(Chunk), 0};
  link(chunk);
  return chunk;
}

void Pool::removeChunk(Chunk* chunk) {
  unlink(chunk);
  Area* area = chunk->area;
  area->vacant |= 1u << ((reinterpret_cast<char*>(chunk) - area->memory) / static_cast<ptrdiff_t>(kChunk));
  ++vacant_;
  if (area->vacant != UINT32_MAX || areas_.size() == 1) {
    if (vacant_ > kSpareChunks) madvise(chunk, kChunk, MADV_DONTNEED);
    return;
  }
  unmapArea(area->memory, kAreaBytes);
  vacant_ -= kAreaBytes / kChunk;
  std::erase_if(areas_, [&](const auto& each) { return each.get() == area; });
}

void* Pool::heapTake(size_t bytes) { return ::operator new(bytes); }
void Pool::heapGive(void* block) { ::operator delete(block); }

}  // namespace sm
