// First in, first out, linked by the elements themselves: nothing is allocated, and an element is in one list at a
// time.
//
// Thread contract: none; the owner serialises.
#pragma once

#include <stratamap/request.h>

#include <cstdint>
#include <utility>

namespace sm {

// How elements are linked: by their `next`; requests by their driver's scratch, which is to spare while no driver has
// them.
template <class T>
struct Links {
  static T* next(const T* element) { return element->next; }
  static void set(T* element, T* next) { element->next = next; }
};
template <>
struct Links<sm_request> {
  static sm_request* next(const sm_request* request) { return reinterpret_cast<sm_request*>(request->driver[0]); }
  static void set(sm_request* request, sm_request* next) { request->driver[0] = reinterpret_cast<uintptr_t>(next); }
};

template <class T>
class Fifo {
 public:
  bool empty() const { return !first_; }
  T* first() const { return first_; }
  void add(T* element) {
    Links<T>::set(element, nullptr);
    if (last_) {
      Links<T>::set(last_, element);
    } else {
      first_ = element;
    }
    last_ = element;
  }
  // Null where there is none.
  T* take() {
    T* element = first_;
    if (!element) return nullptr;
    first_ = Links<T>::next(element);
    if (!first_) last_ = nullptr;
    return element;
  }
  // f(element) for each that is in it now; what f adds comes afterwards.
  template <class F>
  void drain(F&& f) {
    T* element = std::exchange(first_, nullptr);
    last_ = nullptr;
    while (element) {
      T* next = Links<T>::next(element);  // f may put it elsewhere
      f(element);
      element = next;
    }
  }

 private:
  T *first_ = nullptr, *last_ = nullptr;
};

}  // namespace sm
