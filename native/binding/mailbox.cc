#include "binding/mailbox.h"

#include <utility>

namespace sm::binding {

Mailbox::Mailbox(Napi::Env env) : env_(env) {
  setImmediate_ = Napi::Persistent(env.Global().Get("setImmediate").As<Napi::Function>());
  napi_value function;
  NAPI_THROW_IF_FAILED_VOID(
      env, napi_create_function(env, "stratamap", NAPI_AUTO_LENGTH, &Mailbox::onImmediate, this, &function));
  onImmediate_ = Napi::Persistent(Napi::Function(env, function));
  const Napi::String name = Napi::String::New(env, "stratamap");
  NAPI_THROW_IF_FAILED_VOID(
      env, napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, this, onFinalize, this, onWake, &wake_));
  NAPI_THROW_IF_FAILED_VOID(env, napi_unref_threadsafe_function(env, wake_));
}

void Mailbox::send(Letter* letter) {
  Letter* head = head_.load(std::memory_order_relaxed);
  do letter->next = head;
  while (!head_.compare_exchange_weak(head, letter));
  // Either this sees armed_, or lookOrSleep() sees the letter: both sides write, then read, in one order.
  if (!armed_.load() || !armed_.exchange(false)) return;
  std::lock_guard lock(mutex_);
  if (wake_) napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

void Mailbox::hold() {
  if (holders_++ == 0 && wake_) napi_ref_threadsafe_function(env_, wake_);
}

void Mailbox::letGo() {
  if (--holders_ == 0 && wake_) napi_unref_threadsafe_function(env_, wake_);
}

void Mailbox::onWake(napi_env env, napi_value, void* context, void*) {
  if (!env) return;
  auto* self = static_cast<Mailbox*>(context);
  self->deliverAll();
  self->lookAgain();
}

napi_value Mailbox::onImmediate(napi_env env, napi_callback_info info) {
  void* self = nullptr;
  if (napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &self) == napi_ok) {
    static_cast<Mailbox*>(self)->lookOrSleep();
  }
  return nullptr;
}

void Mailbox::lookOrSleep() {
  if (!head_.load(std::memory_order_relaxed)) {
    armed_.store(true);
    if (!head_.load() || !armed_.exchange(false)) return;
  }
  deliverAll();
  lookAgain();
}

// In the next pass of the event loop.
void Mailbox::lookAgain() {
  try {
    setImmediate_.Call({onImmediate_.Value()});
  } catch (const Napi::Error&) {
    // The environment is ending: nobody looks any more.
  }
}

void Mailbox::deliverAll() {
  Letter* newest = head_.exchange(nullptr, std::memory_order_acquire);
  Letter* oldest = nullptr;
  while (newest) {
    Letter* next = std::exchange(newest->next, oldest);
    oldest = std::exchange(newest, next);
  }
  while (oldest) {
    Letter* letter = std::exchange(oldest, oldest->next);
    napi_handle_scope scope;
    if (napi_open_handle_scope(env_, &scope) != napi_ok) scope = nullptr;
    letter->deliver(letter);
    if (scope) napi_close_handle_scope(env_, scope);
  }
}

void Mailbox::onFinalize(napi_env, void* data, void*) {
  auto* self = static_cast<Mailbox*>(data);
  std::lock_guard lock(self->mutex_);
  self->wake_ = nullptr;
}

}  // namespace sm::binding
