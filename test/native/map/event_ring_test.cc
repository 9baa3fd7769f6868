#include "map/event_ring.h"

#include <doctest/doctest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace {

using sm::EventRing;

// A record of `words` words: its size, a number, and words that follow from both.
bool push(EventRing& ring, size_t words, uint64_t number, bool* wake) {
  if (!ring.begin(words)) return false;
  ring.set(0, static_cast<double>(words));
  for (size_t i = 1; i < words; ++i) ring.set(i, static_cast<double>(number * 7 + i));
  *wake = ring.commit(words);
  return true;
}

// Checks whole records; returns how many there are, and the last number.
size_t check(const double* words, size_t size, uint64_t* next) {
  size_t records = 0;
  for (size_t at = 0; at < size;) {
    const auto length = static_cast<size_t>(words[at]);
    REQUIRE(length >= 2);
    REQUIRE(at + length <= size);
    const uint64_t number = static_cast<uint64_t>(words[at + 1] - 1) / 7;
    REQUIRE(number >= *next);
    for (size_t i = 1; i < length; ++i) REQUIRE(words[at + i] == static_cast<double>(number * 7 + i));
    *next = number + 1;
    at += length;
    ++records;
  }
  return records;
}

TEST_CASE("records wrap, whole, in order; what does not fit is dropped and counted") {
  EventRing ring(64, 5);
  CHECK(ring.origin() == 5);
  std::mt19937_64 random(1);
  std::vector<double> out(64);
  uint64_t pushed = 0, dropped = 0, drained = 0, next = 0;
  for (int i = 0; i < 20000; ++i) {
    if (random() % 3 != 0) {
      bool wake = false;
      if (push(ring, 2 + random() % 20, pushed + dropped, &wake)) ++pushed;
      else ++dropped;
      CHECK_FALSE(wake);
    } else {
      const size_t room = random() % 64;
      const size_t size = ring.drain(out.data(), room);
      REQUIRE(size <= room);
      drained += check(out.data(), size, &next);
    }
  }
  while (size_t size = ring.drain(out.data(), out.size())) drained += check(out.data(), size, &next);
  CHECK(drained == pushed);
  CHECK(ring.dropped() == dropped);
  CHECK(dropped > 100);
  CHECK(pushed > 1000);
}

TEST_CASE("a record of the ring's whole size fits, one larger never does") {
  EventRing ring(16, 0);
  bool wake = false;
  CHECK(push(ring, 16, 1, &wake));
  CHECK_FALSE(push(ring, 2, 2, &wake));
  std::vector<double> out(16);
  CHECK(ring.drain(out.data(), 15) == 0);
  CHECK(ring.drain(out.data(), 16) == 16);
  CHECK_FALSE(push(ring, 17, 3, &wake));
  CHECK(ring.dropped() == 2);
}

TEST_CASE("an armed ring wakes its reader once") {
  EventRing ring(64, 0);
  bool wake = true;
  CHECK(push(ring, 4, 0, &wake));
  CHECK_FALSE(wake);
  CHECK_FALSE(ring.arm());  // there is something already
  std::vector<double> out(64);
  CHECK(ring.drain(out.data(), 64) == 4);
  CHECK(ring.arm());
  CHECK(push(ring, 4, 1, &wake));
  CHECK(wake);
  CHECK(push(ring, 4, 2, &wake));
  CHECK_FALSE(wake);
}

TEST_CASE("a writer and a reader that sleeps between: no record is lost unseen, no wake-up is missed") {
  EventRing ring(256, 0);
  constexpr uint64_t kRecords = 200'000;
  std::atomic<bool> woken{false}, done{false};
  uint64_t dropped = 0;
  std::thread writer([&] {
    std::mt19937_64 random(2);
    for (uint64_t number = 0; number < kRecords; ++number) {
      bool wake = false;
      if (!push(ring, 2 + random() % 30, number, &wake)) ++dropped;
      if (wake) {
        woken = true;
        woken.notify_one();
      }
      if (number % 64 == 0) std::this_thread::yield();
    }
    done = true;
    woken = true;
    woken.notify_one();
  });
  std::vector<double> out(128);
  uint64_t drained = 0, next = 0;
  while (true) {
    const bool last = done;
    while (size_t size = ring.drain(out.data(), out.size())) drained += check(out.data(), size, &next);
    if (last) break;
    woken = false;
    if (!ring.arm()) continue;
    if (!done) woken.wait(false);  // hangs if a wake-up is missed
  }
  writer.join();
  CHECK(drained + dropped == kRecords);
  CHECK(ring.dropped() == dropped);
}

}  // namespace
