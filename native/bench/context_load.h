// Cycles of bind, find and release: on one thread, on two with contexts of their own, and from one thread to another.
// In CPU time of a thread; what is handed over, in time elapsed.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "bench/bench.h"

namespace bench {

enum class Mode { kOne, kTwo, kHanded };

// The n-th key of `thread`. No two are equal.
struct Keys {
  const char* name;
  uint64_t (*of)(uint64_t n, uint32_t thread);
};
inline constexpr Keys kKeys[] = {
    // As the host's serials: threads take turns.
    {"sequential", [](uint64_t n, uint32_t thread) { return 2 * n + thread; }},
    {"random",
     [](uint64_t n, uint32_t thread) {
       const uint64_t product = (2 * n + thread) * 0xd6e8feb86659fd93ull;  // cheap, for it is measured as well
       return product ^ (product >> 32);
     }},
    {"aligned", [](uint64_t n, uint32_t thread) { return 0x7f0000000000 + (2 * n + thread) * 4096; }},
};

struct Load {
  Mode mode;
  uint32_t inFlight;  // a power of two, at least kBatch; of each thread
  uint64_t cycles;    // of each thread
  const Keys* keys;
};

inline constexpr uint32_t kBatch = 16, kPart = 4096;

inline void mustBe(bool found) {
  if (found) return;
  std::fprintf(stderr, "a context that was bound was not found\n");
  std::exit(1);
}

// The contexts in flight of one thread.
template <class Contexts>
class Flight {
 public:
  Flight(const Load& load, Contexts& contexts, uint32_t thread)
      : load_(load), contexts_(contexts), thread_(thread), ids_(load.inFlight) {
    for (uint64_t& id : ids_) id = bind(static_cast<uint32_t>(&id - ids_.data()));
  }
  ~Flight() {
    for (const uint64_t id : ids_) contexts_.release(thread_, id);
  }
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;

  void run(uint64_t cycles) {
    const uint32_t mask = load_.inFlight - 1;
    uint64_t found = 0;
    for (uint64_t cycle = 0; cycle < cycles; cycle += kBatch) {
      uint32_t at[kBatch];
      for (uint32_t& each : at) {
        each = next_ = (next_ * 5 + 12345) & mask;  // each once in inFlight turns
        contexts_.release(thread_, ids_[each]);
      }
      for (const uint32_t each : at) {
        uint32_t value = 0;
        ids_[each] = bind(each);
        found += contexts_.find(ids_[each], &value) && value == each;
      }
    }
    mustBe(found == cycles);
  }

 private:
  uint64_t bind(uint32_t value) { return contexts_.bind(thread_, load_.keys->of(++key_, thread_), value); }

  const Load load_;
  Contexts& contexts_;
  const uint32_t thread_;
  std::vector<uint64_t> ids_;
  uint64_t key_ = 0;
  uint32_t next_ = 0;
};

template <class Contexts>
double oneThread(const Load& load, Contexts& contexts) {
  Flight flight(load, contexts, 0);
  const double from = threadNs();
  flight.run(load.cycles);
  return (threadNs() - from) / static_cast<double>(load.cycles);
}

// Waits for another thread, on whose processor this one may run.
template <class F>
void spin(F&& done) {
  for (int looks = 0; !done(); ++looks) {
    if (looks % 1024 == 1023) std::this_thread::yield();
  }
}

// Keeps this thread to one of the processors that it may use, for two that share one never meet.
class Pinned {
 public:
  explicit Pinned(int which) {
    pthread_getaffinity_np(pthread_self(), sizeof(before_), &before_);
    cpu_set_t only;
    CPU_ZERO(&only);
    for (int cpu = 0, left = which % CPU_COUNT(&before_); cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &before_) && left-- == 0) CPU_SET(cpu, &only);
    }
    pthread_setaffinity_np(pthread_self(), sizeof(only), &only);
  }
  ~Pinned() { pthread_setaffinity_np(pthread_self(), sizeof(before_), &before_); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  cpu_set_t before_;
};

using Clock = std::chrono::steady_clock;
inline double nsSince(Clock::time_point from) {
  return std::chrono::duration<double, std::nano>(Clock::now() - from).count();
}

// f(0) here and f(1) on another thread, both from the same moment on.
template <class F>
void together(F&& f) {
  std::atomic<int> ready{0};
  auto begin = [&] {
    ++ready;
    spin([&] { return ready.load() == 2; });
  };
  std::thread other([&] {
    const Pinned pinned(1);
    begin();
    f(1);
  });
  const Pinned pinned(0);
  begin();
  f(0);
  other.join();
}

// What contends badly is measured for this long and not to the end.
inline constexpr double kLongest = 2e8;  // ns

template <class Contexts>
double twoThreads(const Load& load, Contexts& contexts) {
  Flight first(load, contexts, 0), second(load, contexts, 1);
  double each[2];
  std::atomic<bool> over{false};  // for both, so that neither is ever alone for long
  together([&](int thread) {
    Flight<Contexts>& flight = thread ? second : first;
    const auto began = Clock::now();
    const double from = threadNs();
    uint64_t done = 0;
    do {
      flight.run(kPart);
      done += kPart;
      if (done >= load.cycles || nsSince(began) > kLongest) over = true;
    } while (!over.load(std::memory_order_relaxed));
    each[thread] = (threadNs() - from) / static_cast<double>(done);
  });
  return (each[0] + each[1]) / 2;
}

// Bound by the first thread; found and released by the second, which has their ids from a ring. Where others use the
// processors too, a thread that waits for one that does not run measures them: so the time is taken of parts, each long
// enough for the ring to go round four times, and it is that of the fastest tenth.
template <class Contexts>
double handed(const Load& load, Contexts& contexts) {
  std::vector<uint64_t> ring(load.inFlight);
  alignas(64) std::atomic<uint64_t> written{0};
  alignas(64) std::atomic<uint64_t> read{0};
  alignas(64) std::atomic<bool> over{false};  // nothing more is written
  const uint64_t mask = load.inFlight - 1, part = std::max(4 * load.inFlight, kPart);
  std::vector<double> parts;
  auto bindAll = [&] {
    const auto began = Clock::now();
    for (uint64_t at = 0; at < load.cycles && (at % part != 0 || nsSince(began) < kLongest); at += kBatch) {
      spin([&] { return at + kBatch <= read.load(std::memory_order_acquire) + load.inFlight; });
      for (uint64_t i = at; i < at + kBatch; ++i) {
        ring[i & mask] = contexts.bind(0, load.keys->of(i + 1, 0), static_cast<uint32_t>(i & mask));
      }
      written.store(at + kBatch, std::memory_order_release);
    }
    over.store(true, std::memory_order_release);
  };
  auto findAll = [&] {
    auto from = Clock::now();
    uint64_t at = 0, found = 0;
    auto more = [&] { return written.load(std::memory_order_acquire) >= at + kBatch; };
    while (spin([&] { return more() || over.load(std::memory_order_acquire); }), more()) {
      for (const uint64_t end = at + kBatch; at < end; ++at) {
        uint32_t value = 0;
        const uint64_t id = ring[at & mask];
        found += contexts.find(id, &value) && value == (at & mask);
        contexts.release(1, id);
      }
      read.store(at, std::memory_order_release);
      if (at % part != 0) continue;
      parts.push_back(nsSince(from) / static_cast<double>(part));
      from = Clock::now();
    }
    mustBe(found == at);
  };
  together([&](int thread) { thread ? findAll() : bindAll(); });
  return quantile(parts, .1);
}

// Nothing is kept, so that the rest of handing over can be told from it: the id is the value.
class InNothing {
 public:
  explicit InNothing(uint32_t) {}
  uint64_t bind(uint32_t, uint64_t, uint32_t value) { return value; }
  bool find(uint64_t id, uint32_t* value) const {
    *value = static_cast<uint32_t>(id);
    return true;
  }
  void release(uint32_t, uint64_t) {}
};

}  // namespace bench
