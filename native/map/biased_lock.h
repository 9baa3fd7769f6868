// A mutual exclusion that costs its owner, one thread at a time, neither an atomic read-modify-write nor a fence, and
// all others a little more than a mutex: what is done for every I/O on one I/O thread, and now and then elsewhere.
//
// Thread contract: lock and unlock from any thread (not recursive). own() and disown() from any thread that does not
// hold it. Without an owner it is a mutex.
//
// How: the owner says that it is inside, and then looks whether another wants in; another says that it wants in, and
// then looks whether the owner is inside. Each must see the other's word or have its own seen, which takes a full fence
// on both sides; membarrier(2) lets the other side run the owner's fence for it. Where the kernel refuses membarrier,
// the owner has a fence of its own.
//
// Invariants: only who holds mutex_ writes wanted_; owner_ changes only while mutex_ is held and the owner is not
// inside, and is looked at again after wanted_, so that who has ceased to be the owner does not enter as one.
#pragma once

#include <atomic>
#include <mutex>

namespace sm {

class BiasedLock {
 public:
  BiasedLock() = default;
  BiasedLock(const BiasedLock&) = delete;
  BiasedLock& operator=(const BiasedLock&) = delete;

  void lock() {
    if (owner_.load(std::memory_order_relaxed) == self()) {
      inside_.store(true, std::memory_order_relaxed);
      if (kAsymmetric) {
        std::atomic_signal_fence(std::memory_order_seq_cst);
      } else {
        __sync_synchronize();
      }
      if (!wanted_.load(std::memory_order_acquire) && owner_.load(std::memory_order_relaxed) == self()) return;
      inside_.store(false, std::memory_order_release);
    }
    lockSlowly();
  }

  void unlock() {
    if (inside_.load(std::memory_order_relaxed) && owner_.load(std::memory_order_relaxed) == self()) {
      inside_.store(false, std::memory_order_release);
    } else {
      unlockSlowly();
    }
  }

  // The calling thread is the owner from now on, unless another is: then it has no owner any more until both have
  // called disown. own once for each time that disown is called.
  void own();
  void disown();

 private:
  static const void* self() {
    static thread_local const char here = 0;
    return &here;
  }
  static bool registerBarrier();
  static const bool kAsymmetric;

  void lockSlowly();
  void unlockSlowly();

  std::atomic<const void*> owner_{nullptr};
  std::atomic<bool> inside_{false};  // the owner is, as the owner
  std::atomic<bool> wanted_{false};
  alignas(64) std::mutex mutex_;
  unsigned owners_ = 0;  // own without disown
};

}  // namespace sm
