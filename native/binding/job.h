// A call that may block, on one of libuv's threads, as a promise.
#pragma once

#include <functional>
#include <memory>

#include "binding/handles.h"
#include "binding/node_api.h"
#include "engine/failure.h"

namespace sm::binding {

class Job : public Napi::AsyncWorker {
 public:
  using Work = std::function<Failure()>;                     // on the pool
  using Finish = std::function<Napi::Value(Napi::Env env)>;  // on the JavaScript thread, where work did not fail

  // With a host: fails with ERR_STRATAMAP_CLOSED where the host is closed by the time it runs.
  Job(Napi::Env env, std::shared_ptr<HostBox> host, Work work, Finish finish = nullptr);
  Job(Napi::Env env, std::shared_ptr<JobQueue> queue, Work work);
  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override;
  void OnOK() override;

 private:
  std::shared_ptr<JobQueue> queue_;  // or null
  std::shared_ptr<HostBox> host_;    // or null
  Work work_;
  Finish finish_;
  Failure failure_;
  Napi::Promise::Deferred deferred_;
};

// Queues a job, after those of the same host where there is one.
Napi::Promise startJob(Napi::Env env, const std::shared_ptr<HostBox>& host, Job::Work work,
                       Job::Finish finish = nullptr);
// Queues a job after those of the same queue.
Napi::Promise startInOrder(Napi::Env env, const std::shared_ptr<JobQueue>& queue, Job::Work work);
// For finalizers: nobody waits for it.
void startDetached(Napi::Env env, std::function<void()> work);

// A promise that is rejected already.
Napi::Promise rejected(Napi::Env env, const Failure& failure);

}  // namespace sm::binding
