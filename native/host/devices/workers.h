// Threads that carry out requests by blocking system calls.
//
// Thread contract: submit() on I/O threads; a request completes on `home`, where it was submitted to its device.
// Invariants: a request is in the queue, or with one worker, or on its way back by IoThread::post; its scratch
// (request->driver) holds the links.
#pragma once

#include <stratamap/services.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "devices/blocking.h"
#include "devices/open.h"

namespace sm {

class Workers {
 public:
  // With fewer threads where `count` cannot be had; std::system_error or std::bad_alloc without one.
  Workers(const OpenFile& file, unsigned count);
  ~Workers();  // no request is with them
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void submit(sm_request* request, IoThread* home = IoThread::current());

 private:
  void work(const Scratch& scratch);

  const OpenFile file_;
  std::mutex mutex_;
  std::condition_variable changed_;
  sm_task *first_ = nullptr, *last_ = nullptr;
  bool stop_ = false;
  std::vector<std::unique_ptr<Scratch>> scratches_;  // one for each thread
  std::vector<std::thread> threads_;
};

}  // namespace sm
