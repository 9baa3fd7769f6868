// What a context can be kept in while its request lives: ours, and packages that one would take. Of each, in one shape:
//
//   bind(lane, key, value)   an id by which it is found; `lane` is the number of the thread
//   find(id, &value)         whether it is bound
//   release(lane, id)
//
// kThreadSafe: from several threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "correlate/context_slots.h"
#include "correlate/context_table.h"

#if SM_HAVE_ABSL
#include <absl/container/flat_hash_map.h>
#endif
#if SM_HAVE_BOOST_LOCKFREE
#include <boost/lockfree/detail/freelist.hpp>
#endif
#if SM_HAVE_BOOST_FLAT
#include <boost/unordered/unordered_flat_map.hpp>
#endif
#if SM_HAVE_BOOST_CONCURRENT
#include <boost/unordered/concurrent_flat_map.hpp>
#endif
#if SM_HAVE_TBB
#include <tbb/concurrent_hash_map.h>
#endif
#if SM_HAVE_CUCKOO
#include <libcuckoo/cuckoohash_map.hh>
#endif

namespace bench {

class InSlots {
 public:
  static constexpr bool kThreadSafe = true;
  explicit InSlots(uint32_t capacity) : slots_(capacity, 2) {}
  uint64_t bind(uint32_t lane, uint64_t, uint32_t value) { return slots_.lane(lane).bind(value); }
  bool find(uint64_t id, uint32_t* value) const { return slots_.find(id, value); }
  void release(uint32_t lane, uint64_t id) { slots_.lane(lane).release(id); }

 private:
  sm::ContextSlots slots_;
};

template <sm::ContextTable::Writers kWriters>
class InTable {
 public:
  static constexpr bool kThreadSafe = kWriters == sm::ContextTable::Writers::kMany;
  explicit InTable(uint32_t capacity) : table_(capacity) {}
  uint64_t bind(uint32_t, uint64_t key, uint32_t value) {
    table_.bind<kWriters>(key, value);
    return key;
  }
  bool find(uint64_t key, uint32_t* value) const { return table_.find(key, value); }
  void release(uint32_t, uint64_t key) { table_.release<kWriters>(key); }

 private:
  sm::ContextTable table_;
};

struct NoMutex {
  void lock() {}
  void unlock() {}
};

template <class Map, class Mutex>
class InMap {
 public:
  static constexpr bool kThreadSafe = !std::is_same_v<Mutex, NoMutex>;
  explicit InMap(uint32_t capacity) { map_.reserve(capacity); }
  uint64_t bind(uint32_t, uint64_t key, uint32_t value) {
    std::lock_guard lock(mutex_);
    map_.emplace(key, value);
    return key;
  }
  bool find(uint64_t key, uint32_t* value) {
    std::lock_guard lock(mutex_);
    const auto found = map_.find(key);
    if (found == map_.end()) return false;
    *value = found->second;
    return true;
  }
  void release(uint32_t, uint64_t key) {
    std::lock_guard lock(mutex_);
    map_.erase(key);
  }

 private:
  alignas(64) Mutex mutex_;
  Map map_;
};

using StdHash = std::unordered_map<uint64_t, uint32_t>;
#if SM_HAVE_ABSL
using AbslHash = absl::flat_hash_map<uint64_t, uint32_t>;
#endif
#if SM_HAVE_BOOST_FLAT
using BoostHash = boost::unordered_flat_map<uint64_t, uint32_t>;
#endif

#if SM_HAVE_BOOST_CONCURRENT
class InBoost {
 public:
  static constexpr bool kThreadSafe = true;
  explicit InBoost(uint32_t capacity) : map_(capacity) {}
  uint64_t bind(uint32_t, uint64_t key, uint32_t value) {
    map_.emplace(key, value);
    return key;
  }
  bool find(uint64_t key, uint32_t* value) const {
    return map_.cvisit(key, [value](const auto& entry) { *value = entry.second; }) > 0;
  }
  void release(uint32_t, uint64_t key) { map_.erase(key); }

 private:
  boost::concurrent_flat_map<uint64_t, uint32_t> map_;
};
#endif

#if SM_HAVE_TBB
class InTbb {
 public:
  static constexpr bool kThreadSafe = true;
  explicit InTbb(uint32_t capacity) : map_(capacity) {}
  uint64_t bind(uint32_t, uint64_t key, uint32_t value) {
    map_.insert({key, value});
    return key;
  }
  bool find(uint64_t key, uint32_t* value) const {
    Map::const_accessor found;
    if (!map_.find(found, key)) return false;
    *value = found->second;
    return true;
  }
  void release(uint32_t, uint64_t key) { map_.erase(key); }

 private:
  using Map = tbb::concurrent_hash_map<uint64_t, uint32_t>;
  Map map_;
};
#endif

#if SM_HAVE_CUCKOO
// With std::hash, which is the key itself, aligned keys would fall into so few buckets that it throws.
struct Mixed {
  size_t operator()(uint64_t key) const {
    const auto product = static_cast<unsigned __int128>(key) * 0x9e3779b97f4a7c15ull;
    return static_cast<size_t>(product) ^ static_cast<size_t>(product >> 64);
  }
};

class InCuckoo {
 public:
  static constexpr bool kThreadSafe = true;
  explicit InCuckoo(uint32_t capacity) : map_(size_t{2} * capacity) {}
  uint64_t bind(uint32_t, uint64_t key, uint32_t value) {
    map_.insert(key, value);
    return key;
  }
  bool find(uint64_t key, uint32_t* value) const { return map_.find(key, *value); }
  void release(uint32_t, uint64_t key) { map_.erase(key); }

 private:
  libcuckoo::cuckoohash_map<uint64_t, uint32_t, Mixed> map_;
};
#endif

#if SM_HAVE_BOOST_LOCKFREE
// The freelist that boost's lock-free stack and queue are made of. The id is the place itself: nothing tells one that
// outlived its request.
class InBoostFreelist {
  struct Cell {
    std::atomic<uint64_t> next{0};
    std::atomic<uint32_t> value{0};
  };
  struct Freelist : boost::lockfree::detail::freelist_stack<Cell> {
    explicit Freelist(size_t count) : freelist_stack(std::allocator<Cell>(), count) {}
    Cell* take() { return allocate<true, true>(); }
    void give(Cell* cell) { deallocate<true>(cell); }
  };

 public:
  static constexpr bool kThreadSafe = true;
  explicit InBoostFreelist(uint32_t capacity) : cells_(size_t{2} * capacity) {}
  uint64_t bind(uint32_t, uint64_t, uint32_t value) {
    Cell* cell = cells_.take();
    cell->value.store(value, std::memory_order_release);
    return reinterpret_cast<uint64_t>(cell);
  }
  bool find(uint64_t id, uint32_t* value) const {
    *value = reinterpret_cast<const Cell*>(id)->value.load(std::memory_order_acquire);
    return true;
  }
  void release(uint32_t, uint64_t id) { cells_.give(reinterpret_cast<Cell*>(id)); }

 private:
  Freelist cells_;
};
#endif

}  // namespace bench
