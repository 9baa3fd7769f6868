// Memory by the page, for what is looked up at random: pools and tables. 2 MiB and more are aligned to that, and the
// system is asked to back them by large pages (madvise), for otherwise nearly every access would miss the TLB. Where it
// refuses, small pages serve; backedLarge tells what it did.
//
// Thread contract: none; the memory is its owner's. It is zero until it is written, and takes no room before that.
// Checkers of leaks do not look for pointers in it.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace sm {

class Pages {
 public:
  static constexpr size_t kLarge = 2 << 20;

  Pages() = default;
  // std::bad_alloc. `large`: whether to ask for large pages where there is room for one.
  explicit Pages(size_t bytes, bool large = true);
  Pages(Pages&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)), asked_(other.asked_) {}
  Pages& operator=(Pages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(asked_, other.asked_);
    return *this;
  }
  ~Pages();

  char* data() const { return static_cast<char*>(data_); }
  size_t bytes() const { return bytes_; }
  // Whether large pages were asked for, and the system did not refuse at once.
  bool askedLarge() const { return asked_; }
  // Bytes that large pages back at this moment, as /proc/self/smaps says. Not for the path of an I/O.
  size_t backedLarge() const;

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  bool asked_ = false;
};

// `count` of T, all bits zero, which has to be what a T begins with.
template <class T>
class PagedArray {
  static_assert(std::is_trivially_destructible_v<T> && alignof(T) <= 4096);

 public:
  explicit PagedArray(size_t count) : pages_(count * sizeof(T)) {}
  T& operator[](size_t i) const { return std::launder(reinterpret_cast<T*>(pages_.data()))[i]; }
  const Pages& pages() const { return pages_; }

 private:
  Pages pages_;
};

}  // namespace sm
