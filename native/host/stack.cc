#include "host/stack.h"

#include <time.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace sm {
namespace {

// One run on every I/O thread. Invariant: whoever begins to run counts itself in under the lock, and nobody begins once
// `given up` is set; so when the caller returns, nothing of its own is in use. The tasks that are still queued then own
// what they need.
struct Everywhere {
  struct Task {
    sm_task task{};  // first: found from it
    std::shared_ptr<Everywhere> all;
  };

  void (*run)(void*);
  void* context;
  std::mutex mutex;
  std::condition_variable changed;
  size_t missing = 0, running = 0;
  bool givenUp = false;

  void runHere() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (givenUp) return;
      ++running;
    }
    run(context);
    std::lock_guard<std::mutex> lock(mutex);
    --running;
    --missing;
    changed.notify_all();
  }
};

}  // namespace

const Stack& Stack::of(const sm_stack* table) { return *reinterpret_cast<const Stack*>(table); }

int32_t Stack::everywhere(void (*run)(void*), void* context, uint64_t timeout) const {
  auto all = std::make_shared<Everywhere>();
  all->run = run;
  all->context = context;
  all->missing = threads_.size();
  for (const auto& thread : threads_) {
    auto* task = new Everywhere::Task{{}, all};
    task->task.run = [](sm_task* task) {
      std::unique_ptr<Everywhere::Task> owned(reinterpret_cast<Everywhere::Task*>(task));
      owned->all->runHere();
    };
    thread->post(&task->task);
  }
  std::unique_lock<std::mutex> lock(all->mutex);
  const auto bound = std::chrono::nanoseconds(timeout < uint64_t{INT64_MAX} / 4 ? timeout : INT64_MAX / 4);
  all->changed.wait_for(lock, bound, [&] { return all->missing == 0; });
  all->givenUp = true;
  all->changed.wait(lock, [&] { return all->running == 0; });
  return all->missing == 0 ? 0 : -ETIMEDOUT;
}

Stack::Stack(const std::vector<std::unique_ptr<IoThread>>& threads, HostClock& clock, DiskRegistry& disks)
    : table_{}, threads_(threads), clock_(clock), disks_(disks) {
  table_.version = SM_CONTRACT_VERSION;
  table_.size = sizeof table_;
  table_.everywhere = [](const sm_stack* self, void (*run)(void*), void* context, uint64_t timeout) {
    return of(self).everywhere(run, context, timeout);
  };
  table_.stamp = [](const sm_stack* self) -> uint64_t { return of(self).clock_.epoch.fetch_add(1) + 1; };
  table_.busy_before = [](const sm_stack* self, uint64_t stamp) {
    uint64_t busy = 0;
    for (const auto& thread : of(self).threads_) busy += thread->busyBefore(stamp);
    return busy;
  };
  table_.filter_attach = [](const sm_stack* self, sm_disk* disk, const sm_filter_ops* ops, void* context) -> int32_t {
    const auto found = of(self).disks_.find(disk);
    return found ? found->attachFilter(ops, context) : -ENOENT;
  };
  table_.filter_detach = [](const sm_stack* self, sm_disk* disk, void* context, uint64_t timeout) -> int32_t {
    const auto found = of(self).disks_.find(disk);
    return found ? found->detachFilter(context, timeout) : -ENOENT;
  };
  table_.resume = [](const sm_stack*, sm_request* request) {
    VirtualDisk::fromContract(request->disk)->resume(request);
  };
  table_.now = [](const sm_stack*) -> uint64_t {
    if (const IoThread* thread = IoThread::current()) return thread->now();
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
  };
  table_.threads = [](const sm_stack* self) { return static_cast<uint32_t>(of(self).threads_.size()); };
  table_.thread = [](const sm_stack* self) {
    const IoThread* thread = IoThread::current();
    const auto& own = of(self).threads_;
    // Another host's thread is none of ours.
    return thread && thread->index() < own.size() && own[thread->index()].get() == thread ? thread->index()
                                                                                          : UINT32_MAX;
  };
  table_.timer_start = [](const sm_stack*, sm_timer* timer, uint64_t delay) {
    IoThread::current()->timerStart(timer, delay);
  };
  table_.timer_stop = [](const sm_stack*, sm_timer* timer) { IoThread::current()->timerStop(timer); };
}

}  // namespace sm
