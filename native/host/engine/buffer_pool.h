// Buffers for I/O: power-of-two sizes from 4 KiB, each aligned to 4 KiB, all from one region that is mapped once and
// can be registered with a ring.
//
// Thread contract: the thread that owns it, alone. Invariants: free blocks of order n are kPage << n bytes at a
// multiple of that from the region's start, and no two free buddies coexist; what is known of a block is kept beside
// the region, never in it, so that no user of a buffer can damage the pool.
#pragma once

#include <cstdint>
#include <vector>

namespace sm {

class BufferPool {
 public:
  static constexpr uint64_t kPage = 4096;
  static constexpr uint64_t kLargest = uint64_t{1} << 30;  // bytes: the kernel registers no larger buffer

  explicit BufferPool(uint64_t bytes);  // rounded up to 4 KiB; std::bad_alloc
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // A buffer of at least `length` bytes (its size in *capacity); false while there is none. The content is undefined.
  bool get(uint64_t length, void** data, uint64_t* capacity);
  void put(void* data);  // what get gave

  // Bytes of the largest buffer that get can ever give.
  uint64_t largest() const { return kPage << largest_; }
  bool contains(const void* data, uint64_t length) const {
    const uint64_t at = reinterpret_cast<uintptr_t>(data) - reinterpret_cast<uintptr_t>(base_);
    return at < bytes_ && length <= bytes_ - at;
  }
  void* base() const { return base_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t freeBytes() const { return free_; }
  uint64_t returns() const { return returns_; }  // how often put was called

 private:
  static constexpr int kOrders = 19;  // kPage << 18 == kLargest
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint8_t kInside = 0xff;  // not the first page of a block
  static constexpr uint8_t kFree = 0x80;    // set in the order of a free block

  struct Page {
    uint32_t next, previous;  // in the list of free blocks of its order
    uint8_t order;
  };

  void link(uint32_t page, int order);
  void unlink(uint32_t page, int order);

  uint8_t* base_ = nullptr;
  uint64_t bytes_ = 0, free_ = 0, returns_ = 0;
  int largest_ = 0;
  std::vector<Page> pages_;
  uint32_t heads_[kOrders];
};

}  // namespace sm
