#include "map/pool.h"

#include <sys/mman.h>

#include <bit>
#include <new>

namespace sm {

namespace {

// While a map is small, small pages: a large one would cost more than all that is in it.
constexpr size_t kSmallAreas = 4;
// As much that nothing is in is kept at hand: 4 MiB.
constexpr size_t kSpareChunks = 64;

}  // namespace

Pool::Pool() = default;

Pool::~Pool() = default;

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
    static_assert(kAreaBytes / kChunk == 32, "a bit of `vacant` for each chunk");
    areas_.push_back(std::make_unique<Area>(Area{Pages(kAreaBytes, areas_.size() >= kSmallAreas), UINT32_MAX}));
    i = areas_.size();
    vacant_ += kAreaBytes / kChunk;
  }
  --vacant_;
  Area* area = areas_[i - 1].get();
  const int at = std::countr_zero(area->vacant);
  area->vacant &= area->vacant - 1;
  // Blocks begin on a cache line.
  auto* chunk = new (area->memory.data() + static_cast<size_t>(at) * kChunk)
      Chunk{area, nullptr, nullptr, nullptr, static_cast<uint32_t>(sizeOf(kind)), sizeof(Chunk), 0};
  link(chunk);
  return chunk;
}

void Pool::removeChunk(Chunk* chunk) {
  unlink(chunk);
  Area* area = chunk->area;
  area->vacant |= 1u << ((reinterpret_cast<char*>(chunk) - area->memory.data()) / static_cast<ptrdiff_t>(kChunk));
  ++vacant_;
  if (area->vacant != UINT32_MAX || areas_.size() == 1) {
    if (vacant_ > kSpareChunks) madvise(chunk, kChunk, MADV_DONTNEED);
    return;
  }
  vacant_ -= kAreaBytes / kChunk;
  std::erase_if(areas_, [&](const auto& each) { return each.get() == area; });
}

void* Pool::heapTake(size_t bytes) { return ::operator new(bytes); }
void Pool::heapGive(void* block) { ::operator delete(block); }

}  // namespace sm
