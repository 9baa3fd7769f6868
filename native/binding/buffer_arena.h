// Memory for the I/O of one environment: blocks of 4 KiB to 1 MiB, aligned to 4 KiB, from one reserved region whose
// pages cost nothing until they are used.
//
// Thread contract: the JavaScript thread alone allocates and frees; I/O threads use what a block holds. Invariant: a
// slab of 1 MiB is free, or cut into blocks of one size and listed under that size while it has a free one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sm::binding {

class BufferArena {
 public:
  explicit BufferArena(uint32_t slabs);
  ~BufferArena();
  BufferArena(const BufferArena&) = delete;
  BufferArena& operator=(const BufferArena&) = delete;

  // `length` is at most kSlab. Null while there is no room.
  void* get(uint64_t length);
  void put(void* block);

  static constexpr uint64_t kSlab = 1 << 20, kBlock = 4096;

 private:
  static constexpr int kClasses = 5;  // 4, 16, 64, 256 KiB, 1 MiB
  struct Slab {
    int size = -1;  // class, or -1: free
    uint32_t used = 0;
    std::array<uint64_t, 4> free{};  // one bit for each block
  };
  static uint32_t blocksOf(int size) { return uint32_t(kSlab / kBlock) >> (2 * size); }

  std::byte* memory_;
  std::vector<Slab> slabs_;
  std::vector<uint32_t> whole_;                            // free slabs
  std::array<std::vector<uint32_t>, kClasses> available_;  // slabs of that class with a free block
};

}  // namespace sm::binding
