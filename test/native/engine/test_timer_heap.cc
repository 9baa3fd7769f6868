#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "engine/timer_heap.h"

using sm::TimerHeap;

namespace {

struct Timer : sm_timer {
  Timer() : sm_timer{} {
    run = [](sm_timer* timer) { static_cast<Timer*>(timer)->log->push_back(static_cast<Timer*>(timer)); };
  }
  std::vector<Timer*>* log = nullptr;
};

}  // namespace

TEST_CASE("timers run when due, the earliest first, and can be moved and stopped at any place") {
  std::mt19937 random(7);
  std::vector<Timer*> log;
  std::vector<Timer> timers(300);
  for (Timer& timer : timers) timer.log = &log;
  TimerHeap heap;
  CHECK(heap.nextDue() == TimerHeap::kNever);
  uint64_t now = 1;
  for (int step = 0; step < 3000; ++step) {
    Timer& timer = timers[random() % timers.size()];
    if (random() % 3) {
      heap.start(&timer, now + 1 + random() % 1000);
      CHECK(timer.position != 0);
    } else {
      heap.stop(&timer);
      CHECK(timer.position == 0);
    }
    if (step % 10 == 0) {
      now += random() % 100;
      uint64_t expected = 0;
      for (const Timer& t : timers) expected += t.position != 0 && t.due <= now;
      log.clear();
      heap.runDue(now);
      REQUIRE(log.size() == expected);
      for (size_t i = 0; i < log.size(); ++i) {
        CHECK(log[i]->position == 0);
        if (i > 0) CHECK(log[i - 1]->due <= log[i]->due);
      }
    }
    uint64_t earliest = TimerHeap::kNever;
    for (const Timer& t : timers) {
      if (t.position != 0) earliest = std::min(earliest, t.due);
    }
    REQUIRE(heap.nextDue() == earliest);
  }
}
