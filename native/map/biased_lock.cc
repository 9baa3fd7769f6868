#include "map/biased_lock.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

namespace sm {

const bool BiasedLock::kAsymmetric = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;

void BiasedLock::lockSlowly() {
  mutex_.lock();
  const void* owner = owner_.load(std::memory_order_relaxed);
  if (!owner || owner == self()) return;
  wanted_.store(true, std::memory_order_relaxed);
  if (kAsymmetric) syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
  __sync_synchronize();
  while (inside_.load(std::memory_order_acquire)) std::this_thread::yield();
}

void BiasedLock::unlockSlowly() {
  if (wanted_.load(std::memory_order_relaxed)) wanted_.store(false, std::memory_order_release);
  mutex_.unlock();
}

void BiasedLock::own() {
  lockSlowly();
  if (++owners_ == 1) {
    owner_.store(self(), std::memory_order_relaxed);
  } else if (owner_.load(std::memory_order_relaxed) != self()) {
    owner_.store(nullptr, std::memory_order_relaxed);
  }
  unlockSlowly();
}

void BiasedLock::disown() {
  lockSlowly();
  if (--owners_ == 0) owner_.store(nullptr, std::memory_order_relaxed);
  unlockSlowly();
}

}  // namespace sm
