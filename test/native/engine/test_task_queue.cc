#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "engine/task_queue.h"

using sm::TaskQueue;

namespace {

struct Task : sm_task {
  int producer, number;
};

}  // namespace

TEST_CASE("tasks come out in the order in which they went in") {
  TaskQueue queue;
  Task tasks[5];
  CHECK(queue.takeAll() == nullptr);
  for (Task& task : tasks) CHECK_FALSE(queue.push(&task));
  sm_task* task = queue.takeAll();
  for (Task& expected : tasks) {
    REQUIRE(task == &expected);
    task = task->next;
  }
  CHECK(task == nullptr);
}

TEST_CASE("exactly the push that ends a sleep has to wake") {
  TaskQueue queue;
  Task a, b;
  REQUIRE(queue.trySleep());
  CHECK(queue.trySleep());
  CHECK(queue.push(&a));
  CHECK_FALSE(queue.push(&b));
  CHECK_FALSE(queue.trySleep());
  sm_task* task = queue.takeAll();
  REQUIRE(task == &a);
  CHECK(task->next == &b);
  REQUIRE(queue.trySleep());
  CHECK(queue.takeAll() == nullptr);  // awake for another reason
  CHECK_FALSE(queue.push(&a));
}

TEST_CASE("nothing is lost or turned round with many producers, and every sleep is ended") {
  constexpr int kProducers = 4, kEach = 50000;
  TaskQueue queue;
  std::atomic<int> wakes{0};
  std::vector<std::vector<Task>> tasks(kProducers, std::vector<Task>(kEach));
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      for (int i = 0; i < kEach; ++i) {
        tasks[p][i].producer = p;
        tasks[p][i].number = i;
        if (queue.push(&tasks[p][i])) ++wakes;
      }
    });
  }
  int next[kProducers] = {}, total = 0, slept = 0;
  while (total < kProducers * kEach) {
    if (queue.trySleep()) {
      ++slept;
      while (wakes.load() < slept) std::this_thread::yield();
    }
    for (sm_task* task = queue.takeAll(); task; task = task->next) {
      const Task* it = static_cast<Task*>(task);
      REQUIRE(it->number == next[it->producer]++);
      ++total;
    }
  }
  for (std::thread& thread : producers) thread.join();
  CHECK(wakes.load() == slept);
}
