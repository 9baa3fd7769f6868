// A host for tests of volumes: sm_services over devices in memory, on one thread, with a seeded scheduler that
// completes what is in flight in random order. It records what reached the devices in which order, so that the medium
// can be had as a crash at any instant may leave it: everything that was flushed or written with FUA, and of the rest a
// random subset of sectors of 512 bytes.
//
// Thread contract: one thread; post() also from a volume's own.
#pragma once

#include <doctest/doctest.h>
#include <stratamap/services.h>
#include <stratamap/volume.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace sm::test {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

inline uint64_t below(Random& random, uint64_t limit) { return limit ? random() % limit : 0; }
inline bool chance(Random& random, uint32_t percent) { return below(random, 100) < percent; }

struct DeviceShape {
  uint64_t bytes = 1 << 20;
  uint32_t blockSize = 512;
  uint32_t maxTransfer = 1 << 20;
  uint32_t flags = SM_DEVICE_DISCARD;
};

class World;

// A device whose requests wait for the scheduler.
struct MemoryDevice {
  struct Change {  // of the medium, in the order in which it happened
    uint64_t offset;
    Bytes data;
    bool durable;
  };
  sm_device device{};
  sm_device_ops ops{};
  World* world = nullptr;
  std::string name;
  Bytes now;                   // what a read returns
  Bytes stable;                // what is durable whatever comes
  std::deque<Change> changes;  // since `stable`
  uint64_t folded = 0;         // changes that have gone into it
  uint64_t counts[6] = {};     // requests, by op
};

struct WorldOptions {
  uint64_t seed = 1;
  std::vector<DeviceShape> devices{{}, {}};
  uint32_t children = 64;   // that can be had at once
  uint32_t buffers = 64;    // likewise
  uint32_t immediate = 20;  // percent of requests that complete inside submit
  bool threads = false;     // the volume has threads of its own: being idle is no hang
};

class World {
  sm_services table_{};  // first: a World is found from it

 public:
  explicit World(const WorldOptions& options, const std::vector<Bytes>* images = nullptr);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  const sm_services* services() const { return &table_; }
  const std::vector<sm_device*>& devices() const { return pointers_; }
  MemoryDevice& memory(size_t index) { return *devices_[index]; }
  Random& random() { return random_; }

  // A request for a volume, released by releaseParent.
  sm_request* parent();
  void releaseParent(sm_request* request);

  bool step();  // one random thing; false: there was nothing to do
  void runUntil(const std::function<bool()>& done);
  bool quiet() const { return live_ == 0 && waiters_.empty(); }  // no child anywhere
  uint32_t live() const { return live_; }

  // The medium after a crash now.
  std::vector<Bytes> crash();
  // The same with nothing but what was made durable.
  std::vector<Bytes> durable();

  // --- faults and observation. Fail: a status for a request that is about to complete, 0: none.
  // A write that fails may have changed any of its sectors.
  std::function<int32_t(const MemoryDevice&, const sm_request&)> fail;
  std::function<bool(const sm_request&)> hold;  // keeps a request in flight
  std::function<void(const MemoryDevice&, const sm_request&)> onSubmit;
  std::function<void()> onStep;
  std::vector<std::string> log;

 private:
  struct Slot {
    sm_request request{};
    uint8_t extension[SM_EXTENSION]{};
    iovec iov[SM_IOV_MAX]{};
    bool child = false;
  };
  struct Flight {
    sm_request* request;
    uint64_t flushUpTo;  // of a flush: changes completed when it was submitted
  };
  static World& of(const sm_services* services) {
    return *const_cast<World*>(reinterpret_cast<const World*>(services));
  }
  Slot* allocate(bool child);
  void release(sm_request* request, bool child);
  void submit(MemoryDevice& device, sm_request* request);
  void complete(size_t index);
  void runWaiters();
  void runPosted();    // a call comes after what was posted before it
  bool completeOne();  // false: there is none, or all are held
  void change(MemoryDevice& device, uint64_t offset, Bytes data, bool durable);
  void changeInPart(MemoryDevice& device, const sm_request& request);
  int32_t io(sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length);
  sm_request* clone(const sm_request* parent, uint64_t from, uint64_t length);
  void fillTable();

  Random random_;
  WorldOptions options_;
  std::vector<std::unique_ptr<MemoryDevice>> devices_;
  std::vector<sm_device*> pointers_;
  std::vector<Flight> flights_;
  std::deque<sm_task*> waiters_;
  bool returned_ = false;  // something was given back since the waiters ran
  std::mutex mutex_;
  std::deque<sm_task*> posted_;  // guarded by mutex_
  std::vector<sm_timer*> timers_;
  uint64_t clock_ = 1;
  uint64_t serial_ = 0;
  uint32_t live_ = 0;  // children
  uint32_t buffers_ = 0;
  std::set<Slot*> slots_;
};

}  // namespace sm::test
