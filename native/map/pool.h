// Memory for maps: blocks of up to 1 KiB. A chunk of 64 KiB holds blocks of one size; chunks lie in areas of 2 MiB,
// which the system may back by one large page each, for at random over a large map every access would miss the TLB.
//
// Thread contract: none; the owner of the maps serialises. Invariants: a chunk is in partial_ if and only if it has
// room; one that holds nothing goes back to its area, and an area that holds nothing to the system, but for the last
// one.
//
// Under AddressSanitizer every block comes from the heap by itself: then it sees what is used after it was given back,
// and what only blocks point to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "map/pages.h"

#ifdef __has_feature
#define SM_CLANG_ASAN __has_feature(address_sanitizer)
#endif

namespace sm {

class Pool {
 public:
  static constexpr size_t kLargest = 1024;  // bytes

  Pool();
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Aligned to 16 bytes, and to its own size where that is a power of two up to 64.
  void* take(size_t bytes) {
    const size_t kind = kindOf(bytes);
    used_ += sizeOf(kind);
    if (kFromHeap) return heapTake(bytes);
    Chunk* chunk = partial_[kind] ? partial_[kind] : addChunk(kind);
    void* block = chunk->free;
    if (block) {
      chunk->free = *static_cast<void**>(block);
    } else {
      block = reinterpret_cast<char*>(chunk) + chunk->fresh;
      chunk->fresh += chunk->size;
    }
    ++chunk->live;
    if (full(chunk)) unlink(chunk);
    return block;
  }

  void give(void* block, size_t bytes) {
    used_ -= sizeOf(kindOf(bytes));
    if (kFromHeap) return heapGive(block);
    auto* chunk = reinterpret_cast<Chunk*>(reinterpret_cast<uintptr_t>(block) & ~(kChunk - 1));
    if (full(chunk)) link(chunk);
    *static_cast<void**>(block) = chunk->free;
    chunk->free = block;
    if (--chunk->live == 0) removeChunk(chunk);
  }

  size_t used() const { return used_; }                       // bytes that were taken and not given back
  size_t held() const { return areas_.size() * kAreaBytes; }  // bytes of address space that the system gave

 private:
#if defined(__SANITIZE_ADDRESS__) || SM_CLANG_ASAN
  static constexpr bool kFromHeap = true;
#else
  static constexpr bool kFromHeap = false;
#endif
  static constexpr size_t kChunk = 64 << 10, kAreaBytes = Pages::kLarge, kGrain = 16;

  struct Area {
    Pages memory;
    uint32_t vacant;  // bit i: chunk i is not in use
  };
  struct alignas(64) Chunk {
    Area* area;
    Chunk *next, *previous;  // in partial_
    void* free;              // blocks that were given back, each pointing to the next
    uint32_t size;           // of a block
    uint32_t fresh;          // offset of the first block that never was taken
    uint32_t live;           // blocks in use
  };

  static size_t kindOf(size_t bytes) { return (bytes - 1) / kGrain; }
  static size_t sizeOf(size_t kind) { return (kind + 1) * kGrain; }
  static bool full(const Chunk* chunk) { return !chunk->free && chunk->fresh + chunk->size > kChunk; }
  void link(Chunk* chunk);
  void unlink(Chunk* chunk);
  Chunk* addChunk(size_t kind);
  void removeChunk(Chunk* chunk);
  static void* heapTake(size_t bytes);
  static void heapGive(void* block);

  Chunk* partial_[kLargest / kGrain] = {};
  std::vector<std::unique_ptr<Area>> areas_;
  size_t vacant_ = 0;  // chunks
  size_t used_ = 0;
};

}  // namespace sm
