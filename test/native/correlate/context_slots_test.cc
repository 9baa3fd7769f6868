#include "correlate/context_slots.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using sm::ContextSlots;

TEST_CASE("as many as were asked for are bound, found by their ids alone, and no more") {
  for (const uint32_t capacity : {1u, 7u, 8u, 64u, 65u, 1000u}) {
    ContextSlots slots(capacity, 3);
    std::vector<uint64_t> ids;
    for (uint32_t lane = 0; lane < 3; ++lane) {
      for (uint32_t i = 0; i < capacity; ++i) ids.push_back(slots.lane(lane).bind(lane * capacity + i));
      CHECK(slots.lane(lane).bind(0) == ContextSlots::kNoId);
    }
    CHECK(std::set(ids.begin(), ids.end()).size() == ids.size());
    for (uint32_t i = 0; i < ids.size(); ++i) {
      uint32_t value = UINT32_MAX;
      REQUIRE(slots.find(ids[i], &value));
      REQUIRE(value == i);
    }
    for (const uint64_t id : ids) REQUIRE(slots.lane(0).release(id));
    for (const uint64_t id : ids) {
      uint32_t value = 0;
      REQUIRE_FALSE(slots.find(id, &value));
      REQUIRE_FALSE(slots.lane(0).release(id));
      REQUIRE_FALSE(slots.giveBack(id));
    }
    // What others gave back is there again.
    for (uint32_t lane = 0; lane < 3; ++lane) {
      for (uint32_t i = 0; i < capacity; ++i) REQUIRE(slots.lane(lane).bind(i) != ContextSlots::kNoId);
    }
  }
}

TEST_CASE("an id that outlived its use is nobody's, whoever has its slot now") {
  ContextSlots slots(1);
  std::vector<uint64_t> ids;
  for (uint32_t i = 0; i < 1000; ++i) {
    ids.push_back(slots.lane(0).bind(ContextSlots::kLargest - i));
    uint32_t value = 0;
    REQUIRE(slots.find(ids.back(), &value));
    REQUIRE(value == ContextSlots::kLargest - i);
    for (size_t k = 0; k + 1 < ids.size(); ++k) {
      REQUIRE(ids[k] != ids.back());
      REQUIRE_FALSE(slots.find(ids[k], &value));
      REQUIRE_FALSE(slots.lane(0).release(ids[k]));
    }
    REQUIRE((i % 2 ? slots.lane(0).release(ids.back()) : slots.giveBack(ids.back())));
  }
}

TEST_CASE("any word may be looked for") {
  ContextSlots slots(16);
  std::vector<uint64_t> ids;
  for (uint32_t i = 0; i < 8; ++i) ids.push_back(slots.lane(0).bind(i));
  std::mt19937_64 random(5);
  uint32_t value = 0;
  for (const uint64_t word : {uint64_t{0}, ~uint64_t{0}, uint64_t{1} << 63, uint64_t{0xffffff}}) {
    CHECK_FALSE(slots.find(word, &value));
    CHECK_FALSE(slots.giveBack(word));
  }
  for (int i = 0; i < 100'000; ++i) {
    // At random, and all but one bit of an id.
    const uint64_t word = i % 2 ? random() : ids[random() % 8] ^ (uint64_t{1} << random() % 64);
    const bool bound = std::find(ids.begin(), ids.end(), word) != ids.end();
    REQUIRE(slots.find(word, &value) == bound);
  }
}

TEST_CASE("more than an id has room for is refused") {
  CHECK_THROWS_AS(ContextSlots(ContextSlots::kMostSlots + 1), std::invalid_argument);
  CHECK_THROWS_AS(ContextSlots(1 << 20, 9), std::invalid_argument);
  CHECK_THROWS_AS(ContextSlots(16, 0), std::invalid_argument);
}

// Each thread binds in its own lane, and releases its own ids or hands them to the next thread, which releases them
// there or gives them back. All look for what others have published, which is found with its own value or not at all.
TEST_CASE("several threads bind, find, hand on and release: nobody finds another's") {
  constexpr uint32_t kThreads = 3, kCapacity = 48, kHands = 16;
  const uint64_t rounds = std::getenv("SM_NIGHTLY") ? 5'000'000 : 100'000;
  ContextSlots slots(kCapacity, kThreads);
  struct Hand {
    std::atomic<uint64_t> id{0}, value{0};  // to the next thread; 0: empty
  };
  std::vector<Hand> hands(kThreads * kHands);
  std::vector<std::atomic<uint64_t>> published(kThreads);  // an id, bound or not any more
  std::atomic<uint64_t> wrong{0}, missing{0}, found{0};
  auto run = [&](uint32_t thread) {
    std::mt19937_64 random(thread + 1);
    struct Mine {
      uint64_t id;
      uint32_t value;
    };
    std::vector<Mine> mine;
    auto release = [&](uint64_t id, uint32_t value) {
      uint32_t seen = 0;
      missing += !slots.find(id, &seen);
      wrong += seen != value;
      missing += !(random() % 2 ? slots.lane(thread).release(id) : slots.giveBack(id));
      wrong += slots.find(id, &seen);
    };
    for (uint64_t round = 0; round < rounds; ++round) {
      if (mine.size() < kCapacity / 2) {
        const auto value = static_cast<uint32_t>(thread << 20 | (round & 0xfffff));
        const uint64_t id = slots.lane(thread).bind(value);
        // At most kCapacity / 2 are here and kHands in hands: there is always room.
        missing += id == ContextSlots::kNoId;
        mine.push_back({id, value});
        published[thread].store(id, std::memory_order_release);
      }
      const size_t at = random() % mine.size();
      Hand& hand = hands[thread * kHands + random() % kHands];
      if (random() % 2) {
        release(mine[at].id, mine[at].value);
        mine[at] = mine.back();
        mine.pop_back();
      } else if (hand.id.load(std::memory_order_acquire) == 0) {
        hand.value.store(mine[at].value, std::memory_order_relaxed);
        hand.id.store(mine[at].id, std::memory_order_release);
        mine[at] = mine.back();
        mine.pop_back();
      }
      Hand& theirs = hands[(thread + 1) % kThreads * kHands + random() % kHands];
      if (const uint64_t id = theirs.id.load(std::memory_order_acquire)) {
        release(id, static_cast<uint32_t>(theirs.value.load(std::memory_order_relaxed)));
        theirs.id.store(0, std::memory_order_release);
      }
      const uint32_t other = random() % kThreads;
      uint32_t value = 0;
      if (slots.find(published[other].load(std::memory_order_acquire), &value)) {
        ++found;
        wrong += value >> 20 != other;
      }
      if (round % 256 == 0) std::this_thread::yield();
    }
    for (const Mine& each : mine) missing += !slots.lane(thread).release(each.id);
  };
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) threads.emplace_back(run, t);
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(missing == 0);
  CHECK(found > 0);
  for (const Hand& hand : hands) {
    if (const uint64_t id = hand.id.load()) CHECK(slots.giveBack(id));
  }
  // Nothing was lost on the way.
  for (uint32_t t = 0; t < kThreads; ++t) {
    for (uint32_t i = 0; i < kCapacity; ++i) CHECK(slots.lane(t).bind(i) != ContextSlots::kNoId);
  }
}

TEST_CASE("what was written before bind is seen by who finds the id") {
  ContextSlots slots(64, 2);
  std::vector<uint64_t> contexts(64);  // not atomic: the id alone orders it
  std::atomic<uint64_t> handed{0};
  uint64_t wrong = 0;
  constexpr uint64_t kRounds = 20'000;
  std::thread other([&] {
    for (uint64_t round = 1; round <= kRounds; ++round) {
      uint64_t id;
      while ((id = handed.load(std::memory_order_relaxed)) == 0) std::this_thread::yield();
      uint32_t at = 0;
      wrong += !slots.find(id, &at) || contexts[at] != round;
      wrong += !slots.lane(1).release(id);
      handed.store(0, std::memory_order_release);
    }
  });
  for (uint64_t round = 1; round <= kRounds; ++round) {
    const auto at = static_cast<uint32_t>(round % 64);
    contexts[at] = round;
    handed.store(slots.lane(0).bind(at), std::memory_order_relaxed);
    while (handed.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  }
  other.join();
  CHECK(wrong == 0);
}

}  // namespace
