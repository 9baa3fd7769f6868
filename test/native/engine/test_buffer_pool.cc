#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "engine/buffer_pool.h"

using sm::BufferPool;

TEST_CASE("sizes are powers of two from 4 KiB, aligned to 4 KiB, inside the region") {
  BufferPool pool(1 << 20);
  for (const uint64_t length : {0, 1, 512, 4096, 4097, 8192, 8193, 100000}) {
    void* data;
    uint64_t capacity;
    REQUIRE(pool.get(length, &data, &capacity));
    CHECK(capacity >= length);
    CHECK(capacity >= 4096);
    CHECK((capacity & (capacity - 1)) == 0);
    CHECK((length <= 4096 || capacity < 2 * length));
    CHECK(reinterpret_cast<uintptr_t>(data) % 4096 == 0);
    CHECK(pool.contains(data, capacity));
    std::memset(data, 1, capacity);
    pool.put(data);
  }
  CHECK(pool.freeBytes() == 1 << 20);
}

TEST_CASE("a pool of any size can be used to its last page, and comes together again") {
  for (const uint64_t pages : {1, 2, 3, 5, 7, 100, 256, 1000}) {
    CAPTURE(pages);
    BufferPool pool(pages * 4096 - 100);
    CHECK(pool.bytes() == pages * 4096);
    CHECK(pool.largest() <= pool.bytes());
    CHECK(pool.largest() * 2 > pool.bytes());
    for (int round = 0; round < 2; ++round) {
      std::vector<void*> taken;
      void* data;
      uint64_t capacity;
      while (pool.get(4096, &data, &capacity)) taken.push_back(data);
      CHECK(taken.size() == pages);
      CHECK(pool.freeBytes() == 0);
      for (void* it : taken) pool.put(it);
      REQUIRE(pool.get(pool.largest(), &data, &capacity));
      CHECK(capacity == pool.largest());
      pool.put(data);
    }
    void* data;
    uint64_t capacity;
    CHECK_FALSE(pool.get(pool.largest() + 1, &data, &capacity));
  }
}

TEST_CASE("no two buffers overlap, whatever is taken and given back") {
  BufferPool pool(777 * 4096);
  std::mt19937 random(1);
  struct Taken {
    uint64_t capacity;
    uint8_t mark;
  };
  std::map<uint8_t*, Taken> taken;
  int refused = 0;
  for (int step = 0; step < 20000; ++step) {
    void* data;
    uint64_t capacity;
    if (random() % 5 < 3) {
      if (!pool.get(random() % (20 * 4096), &data, &capacity)) {
        ++refused;
        continue;
      }
      const uint8_t mark = random();
      auto* bytes = static_cast<uint8_t*>(data);
      const auto after = taken.lower_bound(bytes);
      if (after != taken.end()) REQUIRE(bytes + capacity <= after->first);
      if (after != taken.begin()) {
        const auto before = std::prev(after);
        REQUIRE(before->first + before->second.capacity <= bytes);
      }
      bytes[0] = bytes[capacity - 1] = mark;
      taken[bytes] = {capacity, mark};
    } else if (!taken.empty()) {
      auto it = std::next(taken.begin(), random() % taken.size());
      REQUIRE(it->first[0] == it->second.mark);
      REQUIRE(it->first[it->second.capacity - 1] == it->second.mark);
      pool.put(it->first);
      taken.erase(it);
    }
  }
  CHECK(refused > 0);
  for (const auto& [data, it] : taken) pool.put(data);
  CHECK(pool.freeBytes() == pool.bytes());
}

TEST_CASE("what lies in the region") {
  BufferPool pool(65536);
  char* base = static_cast<char*>(pool.base());
  int outside;
  CHECK(pool.contains(base, 65536));
  CHECK(pool.contains(base + 65535, 1));
  CHECK_FALSE(pool.contains(base + 65535, 2));
  CHECK_FALSE(pool.contains(base + 65536, 1));
  CHECK_FALSE(pool.contains(base - 1, 1));
  CHECK_FALSE(pool.contains(base + 1, UINT64_MAX));
  CHECK_FALSE(pool.contains(&outside, 1));
}
