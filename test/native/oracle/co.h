// Coroutines for test volumes: Co<T> runs when awaited, and goes on with whoever awaited it when it is done.
#pragma once

#include <coroutine>
#include <exception>
#include <utility>

namespace truth {

template <class T>
class Co;

template <class Derived>
struct PromiseBase {
  std::coroutine_handle<> up = std::noop_coroutine();
  struct Final {
    bool await_ready() noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Derived> self) noexcept { return self.promise().up; }
    void await_resume() noexcept {}
  };
  std::suspend_always initial_suspend() noexcept { return {}; }
  Final final_suspend() noexcept { return {}; }
  void unhandled_exception() { std::terminate(); }
};

template <class T>
struct Promise : PromiseBase<Promise<T>> {
  T value{};
  Co<T> get_return_object();
  void return_value(T v) { value = v; }
  T take() { return value; }
};

template <>
struct Promise<void> : PromiseBase<Promise<void>> {
  Co<void> get_return_object();
  void return_void() {}
  void take() {}
};

template <class T>
class Co {
 public:
  using promise_type = Promise<T>;
  explicit Co(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  Co(Co&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Co& operator=(Co&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Co() {
    if (handle_) handle_.destroy();
  }
  std::coroutine_handle<> handle() const { return handle_; }
  bool done() const { return handle_.done(); }

  bool await_ready() const { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> up) {
    handle_.promise().up = up;
    return handle_;
  }
  T await_resume() { return handle_.promise().take(); }

 private:
  std::coroutine_handle<promise_type> handle_;
};

template <class T>
Co<T> Promise<T>::get_return_object() {
  return Co<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Co<void> Promise<void>::get_return_object() {
  return Co<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}

}  // namespace truth
