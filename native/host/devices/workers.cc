#include "devices/workers.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <new>
#include <system_error>

#include "engine/thread.h"

namespace sm {

namespace {

constexpr int kIoprioWhoProcess = 1;  // linux/ioprio.h; 0 then is the calling thread

// In request->driver.
struct Work : sm_task {
  IoThread* home;

  sm_request* request() {
    return reinterpret_cast<sm_request*>(reinterpret_cast<char*>(this) - offsetof(sm_request, driver));
  }
};
static_assert(sizeof(Work) <= sizeof(sm_request::driver));

}  // namespace

Workers::Workers(const OpenFile& file, unsigned count) : file_(file) {
  // Nothing else may throw once a thread runs: it is joined by the destructor alone.
  threads_.reserve(count);
  for (unsigned i = 0; i < count; ++i) scratches_.push_back(std::make_unique<Scratch>());
  for (unsigned i = 0; i < count; ++i) {
    try {
      threads_.emplace_back([this, scratch = scratches_[i].get()] { work(*scratch); });
    } catch (const std::system_error&) {
      if (threads_.empty()) throw;
      break;
    }
  }
}

Workers::~Workers() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::submit(sm_request* request, IoThread* home) {
  Work* work = new (request->driver) Work;
  work->next = nullptr;
  work->home = home;
  work->run = [](sm_task* task) {
    sm_request* request = static_cast<Work*>(task)->request();
    sm_request_complete(request, request->status);
  };
  {
    std::lock_guard lock(mutex_);
    (first_ ? last_->next : first_) = work;
    last_ = work;
  }
  changed_.notify_one();
}

void Workers::work(const Scratch& scratch) {
  beginThread("sm-worker");
  uint16_t priority = 0;  // of this thread; 0: as it was given
  for (;;) {
    Work* work;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return first_ || stop_; });
      if (!first_) return;
      work = static_cast<Work*>(first_);
      first_ = work->next;
    }
    sm_request* request = work->request();
    if (request->ioprio != priority) {
      priority = request->ioprio;
      syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, priority);
    }
    request->status = execute(file_, *request, scratch);
    work->home->post(work);
  }
}

}  // namespace sm
