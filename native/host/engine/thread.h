// What every thread of the host begins with.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace sm {

// Names the calling thread (at most 15 bytes), and leaves the process's signals to other threads: a system call made
// here is never interrupted by one.
inline void beginThread(const char* name) {
  pthread_setname_np(pthread_self(), name);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

}  // namespace sm
