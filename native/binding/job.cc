#include "binding/job.h"

#include <cerrno>
#include <exception>
#include <utility>

#include "binding/errors.h"

namespace sm::binding {

Job::Job(Napi::Env env, std::shared_ptr<HostBox> host, Work work, Finish finish)
    : Napi::AsyncWorker(env, "stratamap"),
      queue_(host),
      host_(std::move(host)),
      work_(std::move(work)),
      finish_(std::move(finish)),
      deferred_(Napi::Promise::Deferred::New(env)) {}

Job::Job(Napi::Env env, std::shared_ptr<JobQueue> queue, Work work)
    : Napi::AsyncWorker(env, "stratamap"),
      queue_(std::move(queue)),
      work_(std::move(work)),
      deferred_(Napi::Promise::Deferred::New(env)) {}

void Job::Execute() {
  try {
    if (!host_) {
      failure_ = work_();
      return;
    }
    std::lock_guard lock(host_->busy);
    failure_ = host_->open() ? work_() : closedFailure("host", "the host");
  } catch (const std::exception& error) {
    failure_ = failed(ENOMEM, "host", std::string("the call could not be carried out: ") + error.what());
  }
}

void Job::OnOK() {
  const Napi::Env env = Env();
  try {
    if (failure_) {
      deferred_.Reject(toError(env, failure_));
    } else {
      deferred_.Resolve(finish_ ? napi_value(finish_(env)) : napi_value(env.Undefined()));
    }
  } catch (const Napi::Error&) {
    // The environment is ending: there is nobody left to tell.
  }
  if (queue_) queue_->finished();
}

Napi::Promise startJob(Napi::Env env, const std::shared_ptr<HostBox>& host, Job::Work work, Job::Finish finish) {
  Job* job = new Job(env, host, std::move(work), std::move(finish));
  Napi::Promise promise = job->promise();
  if (host) {
    host->enqueue(job);
  } else {
    job->Queue();
  }
  return promise;
}

Napi::Promise startInOrder(Napi::Env env, const std::shared_ptr<JobQueue>& queue, Job::Work work) {
  Job* job = new Job(env, queue, std::move(work));
  Napi::Promise promise = job->promise();
  queue->enqueue(job);
  return promise;
}

void startDetached(Napi::Env env, std::function<void()> work) {
  struct Detached : Napi::AsyncWorker {
    Detached(Napi::Env env, std::function<void()> work) : AsyncWorker(env, "stratamap"), work(std::move(work)) {}
    void Execute() override { work(); }
    std::function<void()> work;
  };
  (new Detached(env, std::move(work)))->Queue();
}

Napi::Promise rejected(Napi::Env env, const Failure& failure) {
  auto deferred = Napi::Promise::Deferred::New(env);
  deferred.Reject(toError(env, failure));
  return deferred.Promise();
}

}  // namespace sm::binding
