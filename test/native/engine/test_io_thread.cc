#include <fcntl.h>
#include <time.h>

#include <atomic>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "engine/buffer_pool.h"
#include "engine/io_thread.h"
#include "native/sys/deprive.h"
#include "native/sys/temp.h"
#include "sys/ring.h"

using namespace sm;
using namespace sm::test;

namespace {

uint64_t clockNow() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1'000'000'000ull + time.tv_nsec;
}

struct Task : sm_task {
  explicit Task(std::function<void()> work = {}) : work(std::move(work)) {
    run = [](sm_task* task) { static_cast<Task*>(task)->work(); };
  }
  std::function<void()> work;
};

void on(IoThread& thread, std::function<void()> work) {
  thread.call([](void* context) { (*static_cast<std::function<void()>*>(context))(); }, &work);
}

void waitFor(const std::atomic<int>& value, int wanted) {
  while (value.load() < wanted) std::this_thread::yield();
}

// Each test runs with a ring, where there is one, and without.
template <typename Test>
void bothWays(Test test) {
  for (const bool uring : {true, false}) {
    CAPTURE(uring);
    HostClock clock;
    IoThread thread({.requests = 64, .bufferBytes = 1 << 20, .uring = uring}, clock);
    test(thread, clock);
  }
}

}  // namespace

TEST_CASE("the thread knows itself, and says why it has no ring") {
  CHECK(IoThread::current() == nullptr);
  HostClock clock;
  IoThread without({.index = 3, .uring = false}, clock);
  CHECK(without.ring() == nullptr);
  CHECK_FALSE(without.whyNoRing().empty());
  CHECK_FALSE(without.buffersRegistered());
  CHECK_FALSE(without.whyBuffersUnregistered().empty());
  CHECK(without.index() == 3);
  on(without, [&] { CHECK(IoThread::current() == &without); });
  IoThread with({}, clock);
  CHECK((with.ring() == nullptr) == !with.whyNoRing().empty());
  if (!with.ring()) MESSAGE("no ring: " << with.whyNoRing());
}

TEST_CASE("tasks run in the order posted, from one thread and from many") {
  bothWays([](IoThread& thread, HostClock&) {
    constexpr int kProducers = 3, kEach = 2000;
    std::atomic<int> ran{0};
    int next[kProducers] = {};
    std::atomic<bool> inOrder{true};
    std::vector<std::vector<Task>> tasks(kProducers);
    std::vector<std::thread> producers;
    for (int p = 0; p < kProducers; ++p) {
      for (int i = 0; i < kEach; ++i) {
        tasks[p].emplace_back([&, p, i] {
          if (next[p]++ != i || IoThread::current() != &thread) inOrder = false;
          ++ran;
        });
      }
      producers.emplace_back([&, p] {
        for (int i = 0; i < kEach; ++i) {
          thread.post(&tasks[p][i]);
          if (i % 100 == 0) usleep(200);  // lets it go to sleep now and then
        }
      });
    }
    for (std::thread& producer : producers) producer.join();
    waitFor(ran, kProducers * kEach);
    CHECK(inOrder);
  });
}

TEST_CASE("everything posted before the destructor runs, and what that posts") {
  for (const bool uring : {true, false}) {
    HostClock clock;
    std::atomic<int> ran{0};
    Task third([&] { ++ran; });
    auto thread = std::make_unique<IoThread>(IoThreadOptions{.uring = uring}, clock);
    Task first([&] { ++ran; }), second([&] {
      ++ran;
      IoThread::current()->post(&third);
    });
    thread->post(&first);
    thread->post(&second);
    thread.reset();
    CHECK(ran == 3);
  }
}

TEST_CASE("the destructor waits for what is in the ring and for deferred completions") {
  TempFolder folder;
  const int fd = open(folder.file("data", 4096).c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  struct Op : RingOp {
    std::atomic<int>* count;
  };
  HostClock clock;
  std::atomic<int> written{0}, completed{0};
  auto thread = std::make_unique<IoThread>(IoThreadOptions{}, clock);
  const bool ring = thread->ring() != nullptr;
  std::vector<Op> ops(100);
  Task start([&] {
    sm_request* request = IoThread::current()->allocate();
    sm_request_push(
        request,
        [](sm_request* request, void* context, uint64_t) {
          ++*static_cast<std::atomic<int>*>(context);
          IoThread::current()->release(request);
        },
        &completed, 0);
    IoThread::current()->completeLater(request, 0);
    for (Op& op : ops) {
      op.done = [](RingOp* op, int result) { *static_cast<Op*>(op)->count += result; };
      op.count = &written;
      if (ring)
        IoThread::current()->ring()->queue(&op, {.code = RingCode::kWrite, .file = {fd}, .data = &op, .length = 1});
    }
  });
  thread->post(&start);
  thread.reset();
  CHECK(completed == 1);
  CHECK(written == (ring ? 100 : 0));
  close(fd);
}

TEST_CASE("a call returns when its work is done") {
  bothWays([](IoThread& thread, HostClock&) {
    std::atomic<int> total{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
      callers.emplace_back([&] {
        for (int j = 0; j < 500; ++j) {
          int mine = 0;
          on(thread, [&] { mine = ++total; });
          if (mine == 0) total = -1'000'000;
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(total == 2000);
  });
}

TEST_CASE("timers fire once, not before their time, the earliest first; stopped ones do not") {
  bothWays([](IoThread& thread, HostClock&) {
    struct Timer : sm_timer {
      uint64_t started = 0, delay = 0, fired = 0;
      int order = -1;
      std::atomic<int>* count = nullptr;
    };
    std::atomic<int> count{0};
    Timer timers[4] = {};
    const uint64_t delays[4] = {20'000'000, 1'000'000, 10'000'000, 5'000'000};
    on(thread, [&] {
      for (int i = 0; i < 4; ++i) {
        timers[i].count = &count;
        timers[i].delay = delays[i];
        timers[i].started = clockNow();
        timers[i].run = [](sm_timer* t) {
          Timer* timer = static_cast<Timer*>(t);
          timer->fired = clockNow();
          timer->order = (*timer->count)++;
        };
        thread.timerStart(&timers[i], delays[i]);
      }
      thread.timerStop(&timers[3]);
      thread.timerStart(&timers[2], 2'000'000'000'000);
      thread.timerStart(&timers[2], 10'000'000);
    });
    waitFor(count, 3);
    on(thread, [] {});
    CHECK(timers[1].order == 0);
    CHECK(timers[2].order == 1);
    CHECK(timers[0].order == 2);
    CHECK(timers[3].order == -1);
    for (int i = 0; i < 3; ++i) CHECK(timers[i].fired >= timers[i].started + timers[i].delay);
  });
}

TEST_CASE("a timer that starts itself again lets others run") {
  bothWays([](IoThread& thread, HostClock&) {
    struct Timer : sm_timer {
      IoThread* thread;
      std::atomic<int> fired{0};
    } timer;
    timer.position = 0;
    timer.thread = &thread;
    timer.run = [](sm_timer* t) {
      Timer* timer = static_cast<Timer*>(t);
      ++timer->fired;
      timer->thread->timerStart(timer, 0);
    };
    on(thread, [&] { thread.timerStart(&timer, 0); });
    waitFor(timer.fired, 100);
    on(thread, [&] { thread.timerStop(&timer); });
    CHECK(timer.position == 0);
  });
}

TEST_CASE("now is constant within a pass, and moves between passes") {
  bothWays([](IoThread& thread, HostClock&) {
    uint64_t first = 0, second = 0, before = clockNow();
    on(thread, [&] {
      first = thread.now();
      usleep(2000);
      CHECK(thread.now() == first);
      CHECK(clockNow() >= first + 2'000'000);
    });
    on(thread, [&] { second = thread.now(); });
    CHECK(first >= before);
    CHECK(second >= first + 2'000'000);
    CHECK(second <= clockNow());
  });
}

TEST_CASE("completeLater completes from the loop, in order, without recursion") {
  bothWays([](IoThread& thread, HostClock&) {
    struct Run {
      IoThread* thread;
      bool inside = false, nested = false;
      int left = 100'000;
      std::atomic<int> done{0};
      std::vector<uint64_t> order;
    } run{.thread = &thread};
    on(thread, [&] {
      run.inside = true;
      for (uint64_t i = 0; i < 8; ++i) {
        sm_request* request = thread.allocate();
        sm_request_push(
            request,
            [](sm_request* request, void* context, uint64_t word) {
              Run* run = static_cast<Run*>(context);
              if (run->inside) run->nested = true;
              run->inside = true;
              if (request->status != -static_cast<int32_t>(word)) run->nested = true;
              if (run->order.size() < 8) run->order.push_back(word);
              if (--run->left > 0) {
                sm_request_push(request, request->frames[0].done, run, word);
                run->thread->completeLater(request, -static_cast<int32_t>(word));
              } else {
                run->thread->release(request);
                if (run->left <= -7) run->done = 1;
              }
              run->inside = false;
            },
            &run, i);
        thread.completeLater(request, -static_cast<int32_t>(i));
      }
      run.inside = false;
    });
    waitFor(run.done, 1);
    on(thread, [&] {
      CHECK_FALSE(run.nested);
      CHECK(run.order == std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 6, 7});
    });
  });
}

TEST_CASE("who waits for a request or a buffer runs after one was given back, in the order of the calls") {
  bothWays([](IoThread& thread, HostClock&) {
    std::vector<sm_request*> requests;
    std::vector<int> served;
    std::atomic<int> count{0};
    std::vector<Task> waiters;
    waiters.reserve(6);
    void* buffer = nullptr;
    on(thread, [&] {
      while (sm_request* request = thread.allocate()) requests.push_back(request);
      for (int i = 0; i < 6; ++i) {
        waiters.emplace_back([&, i] {
          if (i % 2 == 0) {  // wants a request
            sm_request* request = thread.allocate();
            if (!request) return thread.wait(&waiters[i]);
            requests.push_back(request);
          } else {  // wants the whole pool
            uint64_t capacity;
            void* data;
            if (!thread.buffers().get(thread.buffers().largest(), &data, &capacity)) return thread.wait(&waiters[i]);
            thread.buffers().put(data);
          }
          served.push_back(i);
          ++count;
        });
        if (i == 0) {
          uint64_t capacity;
          REQUIRE(thread.buffers().get(4096, &buffer, &capacity));
        }
        thread.wait(&waiters[i]);
      }
    });
    on(thread, [] {});
    on(thread, [&] { CHECK(served.empty()); });
    on(thread, [&] {
      thread.release(requests.back());
      requests.pop_back();
    });
    waitFor(count, 1);
    on(thread, [] {});
    on(thread, [&] {
      CHECK(served == std::vector<int>{0});
      thread.buffers().put(buffer);
    });
    waitFor(count, 4);
    on(thread, [&] {
      CHECK(served == std::vector<int>{0, 1, 3, 5});
      for (int i = 0; i < 2; ++i) {
        thread.release(requests.back());
        requests.pop_back();
      }
    });
    waitFor(count, 6);
    on(thread, [&] {
      CHECK(served == std::vector<int>{0, 1, 3, 5, 2, 4});
      for (sm_request* request : requests) thread.release(request);
    });
  });
}

TEST_CASE("stamps: what was allocated before is counted from other threads until it is released") {
  bothWays([](IoThread& thread, HostClock& clock) {
    sm_request* old = nullptr;
    on(thread, [&] { old = thread.allocate(); });
    const uint64_t stamp = ++clock.epoch;
    std::atomic<bool> stop{false};
    std::atomic<int> churned{0};
    Task churn;
    churn.work = [&] {
      for (int i = 0; i < 100; ++i) thread.release(thread.allocate());
      ++churned;
      if (!stop) thread.post(&churn);
    };
    thread.post(&churn);
    waitFor(churned, 10);
    for (int i = 0; i < 100; ++i) CHECK(thread.busyBefore(stamp) == 1);
    on(thread, [&] { thread.release(old); });
    for (int i = 0; i < 100; ++i) CHECK(thread.busyBefore(stamp) == 0);
    stop = true;
    on(thread, [] {});
  });
}

TEST_CASE("the thread's CPU time is its own") {
  bothWays([](IoThread& thread, HostClock&) {
    const uint64_t before = thread.cpuTime();
    on(thread, [] {
      const uint64_t until = clockNow() + 5'000'000;
      while (clockNow() < until) {
      }
    });
    CHECK(thread.cpuTime() > before);
  });
}

TEST_CASE("with too little locked memory the buffers stay unregistered, and that is said") {
  const int result = inChild([] {
    if (!limitLockedMemory(65536)) return 99;
    HostClock clock;
    IoThread thread({.bufferBytes = 8 << 20}, clock);
    if (!thread.ring()) return 99;
    if (thread.buffersRegistered()) return 1;
    if (thread.whyBuffersUnregistered().find("RLIMIT_MEMLOCK") == std::string::npos) return 2;
    bool got = false;
    on(thread, [&] {
      void* data;
      uint64_t capacity;
      got = thread.buffers().get(1 << 20, &data, &capacity);
      if (thread.ring()->fixed(data, 4096)) got = false;
    });
    return got ? 0 : 3;
  });
  if (result == 99) SM_SKIP("no io_uring, or locked memory cannot be limited");
  CHECK(result == 0);
}

TEST_CASE("where io_uring is refused the thread works without, and says so") {
  const int result = inChild([] {
    if (!refuseUring()) return 99;
    HostClock clock;
    IoThread thread({}, clock);
    if (thread.ring() || thread.whyNoRing().empty()) return 1;
    bool ran = false;
    on(thread, [&] { ran = true; });
    return ran ? 0 : 2;
  });
  if (result == 99) SM_SKIP("no seccomp");
  CHECK(result == 0);
}

TEST_CASE("what is kept for the end of a pass runs behind the rest of it, once, and not in the pass that it began in") {
  bothWays([](IoThread& thread, HostClock&) {
    std::vector<int> order;
    std::atomic<int> done{0};
    Task second([&] {
      order.push_back(3);
      done = 1;
    });
    Task first([&] {
      order.push_back(2);
      thread.atEndOfPass(&second);
      sm_request* request = thread.allocate();
      sm_request_push(
          request,
          [](sm_request* request, void* context, uint64_t) {
            static_cast<std::vector<int>*>(context)->push_back(4);
            IoThread::current()->release(request);
          },
          &order, 0);
      thread.completeLater(request, 0);
    });
    on(thread, [&] {
      thread.atEndOfPass(&first);
      order.push_back(1);
    });
    waitFor(done, 1);
    on(thread, [] {});
    CHECK(order == std::vector<int>{1, 2, 4, 3});
  });
}
