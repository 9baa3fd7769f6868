// Whether the environment is about to end while something is held back.
//
// A worker that is terminated waits for the calls that are under way on libuv's threads before it runs a single cleanup
// hook, and such a call may wait for what a policy holds back: for an hour, if the policy says so. But its event loop
// turns meanwhile. So while there are policies this thread has the JavaScript thread look, a few times a second,
// whether JavaScript can still run, and if not, `ended` is called there.
//
// Thread contract: the JavaScript thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "binding/node_api.h"

namespace sm::binding {

class Vigil {
 public:
  // `needed` and `ended` run on the JavaScript thread; it rests while it is not needed.
  Vigil(Napi::Env env, std::function<bool()> needed, std::function<void()> ended);
  ~Vigil() { stop(); }
  Vigil(const Vigil&) = delete;
  Vigil& operator=(const Vigil&) = delete;

  void begin();
  void stop();  // for good

 private:
  static void onPulse(napi_env env, napi_value noop, void* context, void*);
  static void onFinalize(napi_env env, void* data, void* hint);
  void run();

  const Napi::Env env_;
  const std::function<bool()> needed_;
  const std::function<void()> ended_;
  std::thread thread_;
  std::mutex mutex_;  // of what follows; guards pulse_ against the end of the environment
  std::condition_variable changed_;
  bool resting_ = false, stopping_ = false;
  napi_threadsafe_function pulse_ = nullptr;
};

}  // namespace sm::binding
