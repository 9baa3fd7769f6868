#include "map/biased_lock.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

using namespace sm;

TEST_CASE("a biased lock: what it guards is whole, whoever owns it and while that changes") {
  BiasedLock lock;
  uint64_t a = 0, b = 0;  // always equal outside of the lock
  std::atomic<uint64_t> torn{0};
  std::atomic<bool> stop{false};
  auto work = [&] {
    std::lock_guard guard(lock);
    torn += a != b;
    ++a;
    ++b;
  };
  const int kEntries = 300'000;
  std::vector<std::thread> threads;
  SUBCASE("an owner, and two who come now and then") {
    threads.emplace_back([&] {
      lock.own();
      for (int i = 0; i < 20 * kEntries; ++i) work();
      stop = true;
      lock.disown();
    });
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&] {
        while (!stop) work();
      });
    }
  }
  SUBCASE("two who own it in turn and at once") {
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&] {
        for (int turn = 0; turn < 300; ++turn) {
          lock.own();
          for (int k = 0; k < kEntries / 300; ++k) work();
          lock.disown();
        }
      });
    }
    threads.emplace_back([&] {
      for (int k = 0; k < kEntries; ++k) work();
    });
  }
  SUBCASE("nobody owns it") {
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        for (int k = 0; k < kEntries; ++k) work();
      });
    }
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(torn == 0);
  CHECK(a == b);
  CHECK(a >= kEntries);
}

TEST_CASE("a biased lock is free again for its owner and for others") {
  BiasedLock lock;
  lock.own();
  lock.own();
  for (int i = 0; i < 3; ++i) {
    std::lock_guard guard(lock);
  }
  std::atomic<int> step{0};
  std::unique_lock held(lock);
  std::thread other([&] {
    step = 1;
    std::lock_guard guard(lock);
    step = 2;
  });
  while (step == 0) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(step == 1);
  held.unlock();
  other.join();
  CHECK(step == 2);
  lock.disown();
  lock.disown();
  std::lock_guard guard(lock);
}
