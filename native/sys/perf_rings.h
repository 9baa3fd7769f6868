// Tracepoint records by perf_event_open(2): one ring of memory per CPU, shared with the kernel, into which all
// tracepoints that are asked for write; no system call to take them out.
//
// Thread contract: open from any thread; drain by one at a time (the owner serialises); wait and wake from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace sm {

class PerfRings {
 public:
  struct Record {
    uint64_t time = 0;  // ns of CLOCK_MONOTONIC
    std::span<const std::byte> data;
  };

  // `bytes` for each CPU, a power of two of pages.
  explicit PerfRings(size_t bytes);
  ~PerfRings();
  PerfRings(const PerfRings&) = delete;
  PerfRings& operator=(const PerfRings&) = delete;

  // Makes the rings, one for each CPU that is online; once, before anything else. 0, or a negative errno; `why` then
  // says what the kernel refuses and what to do.
  int open(std::string* why);
  // What these tracepoints tell comes into the rings from now on, as far as `filter` lets it pass
  // (Documentation/trace/events.rst). Not while others use the rings. 0, or a negative errno; `why` then says what the
  // kernel refuses and what to do.
  int add(std::span<const uint64_t> tracepoints, const std::string& filter, std::string* why);

  // Counts what passes `filter` of a tracepoint, from now on; its number from 0, or a negative errno.
  int addCounter(uint64_t tracepoint, const std::string& filter, std::string* why);
  uint64_t counted(int counter) const;

  // Whether there is something that has not been taken.
  bool pending() const;
  // Takes all that is there: f(Record) in the order of time. Returns 0 if the kernel had room for every record.
  template <class F>
  uint64_t drain(F&& f) {
    look();
    for (Ring* ring; (ring = earliest()) != nullptr; advance(ring)) f(ring->record);
    release();
    return std::exchange(lost_, 0);
  }

  // Waits until a ring is half full, or wake() was called, or `timeout` ms have passed.
  void wait(int timeout);
  void wake();

 private:
  struct Ring {
    int cpu = 0;
    void* memory = nullptr;
    std::byte* data = nullptr;
    int fd = -1;
    uint64_t tail = 0, head = 0;  // what there is: [tail, head)
    uint64_t next = 0;            // where the record behind `record` begins
    bool has = false;             // `record` is the next to be taken
    Record record;
    std::vector<std::byte> wrapped;  // a record that goes around the end of the ring
  };

  // `sampled`: it writes records; else it counts.
  int openEvent(int cpu, uint64_t tracepoint, bool sampled, const std::string& filter, std::string* why);
  void look();
  Ring* earliest();
  void advance(Ring* ring);
  void release();

  const size_t bytes_;
  std::vector<Ring> rings_;
  std::vector<int> others_;                 // descriptors of tracepoints that write into another's ring
  std::vector<std::vector<int>> counters_;  // descriptors, one for each CPU
  int wake_ = -1;
  uint64_t lost_ = 0;
};

}  // namespace sm
