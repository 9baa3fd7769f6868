// The thread on which TLS handshakes are computed, so that an I/O thread does no arithmetic of public keys.
//
// Thread contract: submit() from any thread. Invariant: a task is in the queue once, or running.
#pragma once

#include <stratamap/services.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "engine/thread.h"

namespace sm::nbd {

class TlsWorker {
 public:
  TlsWorker() : thread_([this] { work(); }) {}
  ~TlsWorker() {  // nothing is in the queue
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  void submit(sm_task* task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      queue_.push_back(task);
    }
    changed_.notify_one();
  }

 private:
  void work() {
    beginThread("sm-tls");
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      sm_task* task = queue_.front();
      queue_.pop_front();
      lock.unlock();
      task->run(task);
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<sm_task*> queue_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace sm::nbd
