#include "binding/vigil.h"

#include <chrono>
#include <utility>

namespace sm::binding {

Vigil::Vigil(Napi::Env env, std::function<bool()> needed, std::function<void()> ended)
    : env_(env), needed_(std::move(needed)), ended_(std::move(ended)) {}

void Vigil::begin() {
  if (stopping_) return;  // by this thread alone
  if (!thread_.joinable()) {
    const Napi::Function noop = Napi::Function::New(env_, [](const Napi::CallbackInfo&) {});
    const Napi::String name = Napi::String::New(env_, "stratamap");
    NAPI_THROW_IF_FAILED_VOID(env_, napi_create_threadsafe_function(env_, noop, nullptr, name, 1, 1, this, onFinalize,
                                                                    this, onPulse, &pulse_));
    NAPI_THROW_IF_FAILED_VOID(env_, napi_unref_threadsafe_function(env_, pulse_));
    thread_ = std::thread([this] { run(); });
  }
  std::lock_guard lock(mutex_);
  resting_ = false;
  changed_.notify_one();
}

void Vigil::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void Vigil::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait(lock, [this] { return stopping_ || !resting_; });
    changed_.wait_for(lock, std::chrono::milliseconds(200), [this] { return stopping_; });
    // Where the last pulse has not been answered yet the queue is full, which is as well.
    if (!stopping_ && pulse_) napi_call_threadsafe_function(pulse_, nullptr, napi_tsfn_nonblocking);
  }
  if (pulse_) napi_release_threadsafe_function(std::exchange(pulse_, nullptr), napi_tsfn_release);
}

void Vigil::onPulse(napi_env env, napi_value noop, void* context, void*) {
  auto* self = static_cast<Vigil*>(context);
  if (!self->needed_()) {
    std::lock_guard lock(self->mutex_);
    self->resting_ = true;
    return;
  }
  napi_value global;
  const bool runs = env && noop && napi_get_global(env, &global) == napi_ok &&
                    napi_call_function(env, global, noop, 0, nullptr, nullptr) == napi_ok;
  if (!runs) self->ended_();
}

void Vigil::onFinalize(napi_env, void* data, void*) {
  auto* self = static_cast<Vigil*>(data);
  std::lock_guard lock(self->mutex_);
  self->pulse_ = nullptr;
}

}  // namespace sm::binding
