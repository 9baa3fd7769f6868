#include "correlate/context_table.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <random>
#include <thread>
#include <vector>

namespace {

using sm::ContextTable;
using Bind = ContextTable::Bind;

// The first `count` keys that begin at one bucket.
std::vector<uint64_t> colliding(const ContextTable& table, size_t count) {
  std::vector<uint64_t> keys;
  const size_t home = table.homeOf(7);
  for (uint64_t key = 1; keys.size() < count; ++key) {
    if (table.homeOf(key) == home) keys.push_back(key);
  }
  return keys;
}

TEST_CASE("any key, the first and the last, with any value") {
  ContextTable table(16);
  uint32_t value = 0;
  const uint64_t keys[] = {0, ~0ull, 1, 1ull << 63, 0x9e3779b97f4a7c15ull};
  for (uint64_t key : keys) CHECK_FALSE(table.find(key, &value));
  uint32_t next = UINT32_MAX;
  for (uint64_t key : keys) CHECK(table.bind(key, next--) == Bind::kBound);
  next = UINT32_MAX;
  for (uint64_t key : keys) {
    REQUIRE(table.find(key, &value));
    CHECK(value == next--);
    CHECK(table.bind(key, 5) == Bind::kDuplicate);
  }
  for (uint64_t key : keys) {
    CHECK(table.release(key));
    CHECK_FALSE(table.release(key));
    CHECK_FALSE(table.find(key, &value));
  }
}

TEST_CASE("as many keys as were asked for always fit, spread or all with one home") {
  for (uint32_t capacity : {1u, 3u, 4u, 64u, 1000u}) {
    for (bool collide : {false, true}) {
      ContextTable table(capacity);
      const std::vector<uint64_t> same = colliding(table, collide ? capacity + 1 : 0);
      auto key = [&](uint64_t i) { return collide ? same[i] : i; };
      for (uint32_t i = 0; i < capacity; ++i) REQUIRE(table.bind(key(i), i) == Bind::kBound);
      for (uint32_t i = 0; i < capacity; ++i) {
        uint32_t value = 0;
        REQUIRE(table.find(key(i), &value));
        REQUIRE(value == i);
      }
      CHECK_FALSE(table.find(key(capacity), nullptr));
      for (uint32_t i = 0; i < capacity; ++i) REQUIRE(table.release(key(i)));
      for (uint32_t i = 0; i < capacity; ++i) REQUIRE_FALSE(table.find(key(i), nullptr));
    }
  }
}

TEST_CASE("a full table says so, loses nothing, and has room again after a release") {
  ContextTable table(3);
  uint64_t bound = 0;
  while (table.bind(bound, static_cast<uint32_t>(bound)) == Bind::kBound) REQUIRE(++bound < 1000);
  CHECK(bound >= 3);
  CHECK(table.bind(bound + 1, 1) == Bind::kFull);
  for (uint64_t key = 0; key < bound; ++key) CHECK(table.find(key, nullptr));
  CHECK(table.release(bound / 2));
  CHECK(table.bind(bound + 1, 77) == Bind::kBound);
  uint32_t value = 0;
  CHECK(table.find(bound + 1, &value));
  CHECK(value == 77);
}

TEST_CASE("a table is a map, under random binds and releases of keys that collide") {
  std::mt19937_64 random(4);
  ContextTable table(64);
  const std::vector<uint64_t> same = colliding(table, 40);
  std::map<uint64_t, uint32_t> plain;
  for (int i = 0; i < 100000; ++i) {
    const uint64_t key = random() % 2 ? same[random() % 40] : random() % 60;
    const auto found = plain.find(key);
    if (random() % 2 == 0 && plain.size() < 64) {
      const auto value = static_cast<uint32_t>(random());
      REQUIRE(table.bind(key, value) == (found == plain.end() ? Bind::kBound : Bind::kDuplicate));
      plain.emplace(key, value);
    } else {
      REQUIRE(table.release(key) == (found != plain.end()));
      plain.erase(key);
    }
    uint32_t value = 0;
    const uint64_t other = random() % 60;
    REQUIRE(table.find(other, &value) == plain.contains(other));
    if (plain.contains(other)) REQUIRE(value == plain[other]);
  }
}

// Each thread binds, finds and releases keys of its own, with values that follow from key and round; looks for keys
// that are bound all the while, which it must find; and for the other threads', which must not be there, or with a
// value that is theirs. Keys of all threads collide.
struct Stress {
  static constexpr int kThreads = 4, kKeys = 24, kStride = 8;
  static constexpr uint64_t kNumbers = 48 * kStride;
  static constexpr int kLasting = kThreads;  // the "thread" whose keys are bound all the while
  ContextTable table;
  uint64_t rounds;
  std::vector<uint64_t> keys;
  uint64_t lasting = 8;
  std::atomic<uint64_t> wrong{0}, missing{0}, full{0};

  uint64_t key(int thread, uint64_t i) const { return keys[i * kStride + static_cast<uint64_t>(thread)]; }
  // The owner and the number of the key in the value: another key's value shows.
  static uint32_t valueOf(int thread, uint64_t i, uint64_t round) {
    return static_cast<uint32_t>(thread) << 28 | static_cast<uint32_t>(i) << 20 |
           static_cast<uint32_t>(round & 0xfffff);
  }

  void run(int thread) {
    std::mt19937_64 random(static_cast<uint64_t>(thread) + 100);
    std::vector<uint64_t> bound(kKeys, 0);  // round in which it was bound, 0: not
    for (uint64_t round = 1; round <= rounds; ++round) {
      const uint64_t i = random() % kKeys, mine = key(thread, i);
      uint32_t value = 0;
      if (!bound[i]) {
        if (table.find(mine, &value)) ++wrong;
        if (table.bind(mine, valueOf(thread, i, round)) == Bind::kBound) bound[i] = round;
        else ++full;
      } else {
        if (!table.find(mine, &value)) ++missing;
        else if (value != valueOf(thread, i, bound[i])) ++wrong;
        if (random() % 2) {
          if (!table.release(mine)) ++missing;
          bound[i] = 0;
        }
      }
      const uint64_t k = random() % lasting;
      if (!table.find(key(kLasting, k), &value)) ++missing;
      else if (value != valueOf(kLasting, k, 0)) ++wrong;
      const int other = static_cast<int>(random() % kThreads);
      const uint64_t theirs = random() % kKeys;
      if (other != thread && table.find(key(other, theirs), &value))
        wrong += value >> 20 != valueOf(other, theirs, 0) >> 20;
      if (round % 256 == 0) std::this_thread::yield();
    }
    for (uint64_t i = 0; i < kKeys; ++i) {
      if (bound[i] && !table.release(key(thread, i))) ++missing;
    }
  }

  void runAll() {
    for (uint64_t i = 0; i < lasting; ++i)
      REQUIRE(table.bind(key(kLasting, i), valueOf(kLasting, i, 0)) == Bind::kBound);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) threads.emplace_back([this, t] { run(t); });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(missing == 0);
    for (int t = 0; t < kThreads; ++t) {
      for (uint64_t i = 0; i < kKeys; ++i) CHECK_FALSE(table.find(key(t, i), nullptr));
    }
    for (uint64_t i = 0; i < lasting; ++i) CHECK(table.release(key(kLasting, i)));
  }
};

TEST_CASE("several threads bind, find and release: each finds its own, and nobody another's") {
  const uint64_t rounds = std::getenv("SM_NIGHTLY") ? 5'000'000 : 100'000;
  constexpr uint32_t kCapacity = (Stress::kThreads + 1) * Stress::kKeys;
  std::vector<std::vector<uint64_t>> patterns(4);
  for (uint64_t number = 0; number < Stress::kNumbers; ++number) {
    patterns[0].push_back(number);                          // serials
    patterns[1].push_back(0x7f0000000000 + number * 4096);  // addresses
    patterns[2].push_back(number << 56 | number % 3);       // differ in the upper bits
  }
  patterns[3] = colliding(ContextTable(kCapacity), Stress::kNumbers);
  for (const auto& pattern : patterns) {
    Stress stress{ContextTable(kCapacity), rounds, pattern};
    stress.runAll();
    CHECK(stress.full == 0);
  }
}

TEST_CASE("several threads in a table that is too small: what does not fit is refused, and nothing else happens") {
  Stress stress{ContextTable(16), 50'000, colliding(ContextTable(16), Stress::kNumbers), 40};
  stress.runAll();
  CHECK(stress.full > 0);
}

TEST_CASE("a key handed to another thread is released there") {
  ContextTable table(64);
  std::atomic<uint64_t> handed{0};
  std::atomic<uint64_t> failures{0};
  constexpr uint64_t kRounds = 50'000;
  std::thread other([&] {
    for (uint64_t round = 1; round <= kRounds; ++round) {
      while (handed.load(std::memory_order_acquire) != round) std::this_thread::yield();
      uint32_t value = 0;
      failures += !table.find(round, &value) || value != static_cast<uint32_t>(round) || !table.release(round);
      handed.store(0, std::memory_order_release);
    }
  });
  for (uint64_t round = 1; round <= kRounds; ++round) {
    failures += table.bind(round, static_cast<uint32_t>(round)) != Bind::kBound;
    handed.store(round, std::memory_order_release);
    while (handed.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  }
  other.join();
  CHECK(failures == 0);
}

}  // namespace
