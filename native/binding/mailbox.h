// How other threads reach the JavaScript thread: a lock-free list of letters, and one wake-up for as many as there are.
//
// The first letter wakes the JavaScript thread by a thread-safe function. From then on it looks for more once in each
// pass of its event loop, by setImmediate, until there are none: so the senders make no system call under load, and
// timers and everything else have their turn however fast letters come. (A thread-safe function alone would run a
// thousand batches in one pass.)
//
// Thread contract: send() from any thread; everything else on the JavaScript thread. Invariants: a letter belongs to
// the mailbox from send() until its deliver() begins; armed_ is true only while the JavaScript thread looks for
// nothing, and who makes it false sees to the list; once the environment has ended no wake-up is sent, and letters stay
// undelivered.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "binding/node_api.h"

namespace sm::binding {

struct Letter {
  Letter* next = nullptr;
  void (*deliver)(Letter*) = nullptr;  // on the JavaScript thread, in a handle scope of its own, oldest letter first
};

class Mailbox {
 public:
  explicit Mailbox(Napi::Env env);
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void send(Letter* letter);
  // While anyone holds it, the mailbox keeps the process alive: a letter is on its way.
  void hold();
  void letGo();

 private:
  static void onWake(napi_env env, napi_value, void* context, void*);
  static napi_value onImmediate(napi_env env, napi_callback_info info);
  static void onFinalize(napi_env env, void* data, void* hint);
  void deliverAll();
  void lookAgain();
  void lookOrSleep();

  const Napi::Env env_;
  std::atomic<Letter*> head_{nullptr};  // newest first
  std::atomic<bool> armed_{true};
  uint64_t holders_ = 0;
  Napi::FunctionReference setImmediate_, onImmediate_;
  std::mutex mutex_;  // guards wake_ against the end of the environment; taken once for each wake-up
  napi_threadsafe_function wake_ = nullptr;
};

}  // namespace sm::binding
