// The block layer's observer: what stands in for the probe's interposers where the stack is the kernel's. It takes
// records out of the rings, under the map's lock and wherever somebody needs to know what has happened (a completion, a
// question to the map), and tells the correlator. A thread of its own empties rings that nobody else does, and sees
// when a device is quiet.
//
// Thread contract: open, watch, end and ~Observer from any thread that is not an I/O thread, one at a time, without
// the map's lock. Invariants: `devices_` and the rings are used under the map's lock alone; what is told at once is in
// the order of time.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "correlate/correlator.h"
#include "intercept/kernel/block_chain.h"
#include "intercept/kernel/block_events.h"
#include "intercept/kernel/hint_ranges.h"
#include "map/address_map.h"

namespace sm {

class Observer {
 public:
  // 0, or a negative errno where the machine does not let it; `why` then says what is missing. `levels`: those of the
  // best-effort class whose hints are used.
  static int open(AddressMap& map, Correlator& correlator, const std::vector<uint16_t>& levels,
                  std::unique_ptr<Observer>* out, std::string* why);
  ~Observer();

  // Observes the devices beneath the file of a disk that the correlator watches. 0, or -ENOTBLK and others, where there
  // is nothing to observe; `why` then says so.
  int watch(DiskKey disk, const std::string& file, std::string* why);
  // Before the correlator no longer watches anything.
  void end();

  // The devices that are observed.
  std::vector<DeviceKey> devices() const;
  // What the user should know. One sentence each.
  std::vector<std::string> notices() const;

 private:
  struct Device {
    BlockLevel level;
    DeviceKey key;
    uint64_t counted = 0;  // requests that began untold, of which the ledger knows
  };

  Observer(AddressMap& map, Correlator& correlator);
  void drain();
  void told(const BlockIo& io);
  void countKnown();
  int observe(const BlockLevel& level, bool hasBeneath, DeviceKey* key, std::string* why);
  void say(const std::string& notice);
  void tend();
  void lookForQuiet();
  void compareSample();

  AddressMap& map_;
  Correlator& correlator_;
  HintRanges ranges_;
  std::unique_ptr<BlockEvents> events_;
  std::vector<Device> devices_;
  std::vector<std::string> notices_;  // under the map's lock
  std::atomic<bool> ending_{false};
  std::thread tender_;

  // Whether the devices hold what was written: before the first request, and now and then (check_stack.cc).
  void checkStack(const std::string& folder, const BlockChain& chain, const std::vector<DeviceKey>& keys,
                  size_t* trusted, std::string* found);
  bool checking_ = false;
  std::vector<BlockIo> seen_;  // by us, meanwhile
};

}  // namespace sm
