#include "engine/io_thread.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "engine/buffer_pool.h"
#include "engine/fifo.h"
#include "engine/request_pool.h"
#include "engine/task_queue.h"
#include "engine/thread.h"
#include "engine/timer_heap.h"
#include "sys/ring.h"

namespace sm {

namespace {

thread_local IoThread* t_current = nullptr;

uint64_t clockNow(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

// Lets a thread wait until another has done something. Safe to destroy as soon as wait() has returned.
class Signal {
 public:
  void set() {
    std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

struct Call : sm_task {
  void (*work)(void*);
  void* context;
  Signal done;
};

}  // namespace

struct IoThread::State {
  State(const IoThreadOptions& options, const HostClock& clock)
      : options(options), buffers(options.bufferBytes), requests(options.requests, options.index, clock) {
    wakeFd = eventfd(0, EFD_CLOEXEC);
    if (wakeFd < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
    wakeOp.done = [](RingOp* op, int) { static_cast<WakeOp*>(op)->armed = false; };
    stop.run = [](sm_task* task) { static_cast<Stop*>(task)->asked = true; };
  }
  ~State() { close(wakeFd); }

  // --- set up on the thread, then constant
  const IoThreadOptions options;
  std::unique_ptr<Ring> ring;
  std::string whyNoRing, whyBuffersUnregistered;
  bool buffersRegistered = false;
  clockid_t cpuClock = CLOCK_THREAD_CPUTIME_ID;
  std::thread thread;

  // --- shared
  TaskQueue tasks;
  int wakeFd = -1;

  // --- the thread's own
  BufferPool buffers;
  RequestPool requests;
  TimerHeap timers;
  uint64_t now = 0;
  Fifo<sm_request> done;  // to complete
  Fifo<sm_task> waiters, atEnd;
  uint64_t returnsSeen = 0;  // of the pools, when the waiters last ran

  struct WakeOp : RingOp {
    bool armed = false;
    uint64_t count = 0;
  } wakeOp;

  struct Stop : sm_task {
    bool asked = false;
  } stop;

  void setUp(IoThread* self) {
    t_current = self;
    beginThread(("sm-io-" + std::to_string(options.index)).c_str());
    pthread_getcpuclockid(pthread_self(), &cpuClock);
    now = clockNow();
    if (!options.uring) {
      whyNoRing = whyBuffersUnregistered = "io_uring was not asked for";
      return;
    }
    ring = Ring::create(options.ringEntries, options.requests, &whyNoRing);  // a request has one operation at a time
    if (!ring) {
      whyBuffersUnregistered = whyNoRing;
      return;
    }
    const int result = ring->addBuffers(buffers.base(), buffers.bytes());
    buffersRegistered = result == 0;
    if (result < 0) whyBuffersUnregistered = std::string("io_uring_register_buffers: ") + std::strerror(-result);
    if (result == -ENOMEM) whyBuffersUnregistered += " (RLIMIT_MEMLOCK is too low for them)";
  }

  void wake() {
    const uint64_t one = 1;
    while (write(wakeFd, &one, sizeof one) < 0 && errno == EINTR) {
    }
  }

  void armWake() {
    if (wakeOp.armed) return;
    wakeOp.armed = true;
    ring->queue(&wakeOp, {.code = RingCode::kRead,
                          .file = {wakeFd, false},
                          .offset = 0,
                          .data = &wakeOp.count,
                          .length = sizeof wakeOp.count});
  }

  // Waits until something completes, someone posts, or a timer is due.
  void sleep() {
    uint64_t timeout = Ring::kForever;
    if (timers.nextDue() != TimerHeap::kNever) {
      const uint64_t time = clockNow();
      timeout = timers.nextDue() > time ? timers.nextDue() - time : 0;
    }
    if (ring) {
      armWake();
      ring->enter(timeout);
      return;
    }
    pollfd poll{wakeFd, POLLIN, 0};
    const timespec time{static_cast<time_t>(timeout / 1'000'000'000), static_cast<long>(timeout % 1'000'000'000)};
    if (ppoll(&poll, 1, timeout == Ring::kForever ? nullptr : &time, nullptr) > 0) {
      uint64_t count;
      [[maybe_unused]] const ssize_t drained = read(wakeFd, &count, sizeof count);
    }
  }

  static void runList(sm_task* task) {
    while (task) {
      sm_task* next = task->next;
      task->run(task);
      task = next;
    }
  }

  static void run(sm_task* task) { task->run(task); }

  uint64_t returns() const { return buffers.returns() + requests.returns(); }
  bool waitersCanRun() const { return !waiters.empty() && returns() != returnsSeen; }

  // All of them: which one what was given back suffices for, only they know. Those that wait again keep their order.
  void runWaiters() {
    returnsSeen = returns();
    waiters.drain(run);
  }

  uint32_t inRing() const { return ring->inFlight() - (wakeOp.armed ? 1 : 0); }

  void loop() {
    for (;;) {
      const bool idle = done.empty() && atEnd.empty() && !waitersCanRun() && tasks.trySleep();
      if (idle && stop.asked && (!ring || inRing() == 0)) break;
      if (idle) {
        sleep();
      } else if (ring && inRing() > 0) {
        ring->enter(0);
      }
      now = clockNow();
      if (ring) ring->reap();
      runList(tasks.takeAll());
      timers.runDue(now);
      done.drain(sm_request_pop);
      if (waitersCanRun()) runWaiters();
      atEnd.drain(run);
    }
    // The armed read of the wake-up is still in the ring.
    if (ring && wakeOp.armed) wake();
    while (ring && wakeOp.armed) {
      ring->enter(Ring::kForever);
      ring->reap();
    }
    ring.reset();
    t_current = nullptr;
  }
};

IoThread::IoThread(const IoThreadOptions& options, HostClock& clock) : state_(std::make_unique<State>(options, clock)) {
  Signal ready;
  state_->thread = std::thread([this, &ready] {
    state_->setUp(this);
    ready.set();
    state_->loop();
  });
  ready.wait();
}

IoThread::~IoThread() {
  post(&state_->stop);
  state_->thread.join();
}

IoThread* IoThread::current() { return t_current; }

uint32_t IoThread::index() const { return state_->options.index; }
uint32_t IoThread::requests() const { return state_->options.requests; }
Ring* IoThread::ring() { return state_->ring.get(); }
const std::string& IoThread::whyNoRing() const { return state_->whyNoRing; }
bool IoThread::buffersRegistered() const { return state_->buffersRegistered; }
const std::string& IoThread::whyBuffersUnregistered() const { return state_->whyBuffersUnregistered; }

void IoThread::post(sm_task* task) {
  if (state_->tasks.push(task)) state_->wake();
}

void IoThread::call(void (*run)(void*), void* context) {
  Call call;
  call.work = run;
  call.context = context;
  call.run = [](sm_task* task) {
    Call* call = static_cast<Call*>(task);
    call->work(call->context);
    call->done.set();
  };
  post(&call);
  call.done.wait();
}

uint64_t IoThread::busyBefore(uint64_t stamp) const { return state_->requests.busyBefore(stamp); }

uint64_t IoThread::now() const { return state_->now; }
BufferPool& IoThread::buffers() { return state_->buffers; }
sm_request* IoThread::allocate() { return state_->requests.allocate(); }
sm_request* IoThread::clone(const sm_request* parent, uint64_t from, uint64_t length) {
  return state_->requests.clone(parent, from, length);
}
void IoThread::release(sm_request* request) { state_->requests.release(request); }

void IoThread::wait(sm_task* task) { state_->waiters.add(task); }
void IoThread::atEndOfPass(sm_task* task) { state_->atEnd.add(task); }

void IoThread::completeLater(sm_request* request, int32_t status) {
  request->status = status;
  state_->done.add(request);
}

void IoThread::timerStart(sm_timer* timer, uint64_t delay) {
  // Not from now(), which may be a moment old: a timer never fires early, nor again in the same pass.
  const uint64_t time = clockNow();
  state_->timers.start(timer, delay < UINT64_MAX - time ? std::max(time + delay, state_->now + 1) : UINT64_MAX - 1);
}

void IoThread::timerStop(sm_timer* timer) { state_->timers.stop(timer); }

uint64_t IoThread::cpuTime() const { return clockNow(state_->cpuClock); }

}  // namespace sm
