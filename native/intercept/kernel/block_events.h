// What the kernel's block layer does, as a program of ours in the kernel tells it (block_events.bpf.c): a ring for each
// CPU, from which it is taken without a system call. What the map knows already is counted there, not told.
//
// Thread contract: open and watch from any thread; drain and the counts by one at a time (the owner serialises); wait
// and wake from any thread. Invariant: what one drain tells is in the order of time.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "correlate/expected_write.h"
#include "correlate/observed.h"

struct sm_block_event;
struct sm_block_memory;

namespace sm {

class BpfObject;

class BlockEvents {
 public:
  // `known`: the priority of requests of which the map knows where they go; 0: of none. `told` gets what drain() takes.
  // 0, or a negative errno; `why` then says what the system lacks or refuses.
  static int open(uint16_t known, void (*told)(void* context, const BlockIo& io), void* context,
                  std::unique_ptr<BlockEvents>* out, std::string* why);
  ~BlockEvents();

  // What else than starts and merges is told from now on, of all that is watched. 0, or a negative errno; `why` then
  // says what the system refuses.
  struct Wanted {
    bool issues = false;
    bool queuedDiscards = false;  // each, also those that become one request
  };
  int want(Wanted wanted, std::string* why);
  // This whole disk is watched from now on, with this key. 0, or -ENOSPC: there are too many; `why` then says so.
  int watch(dev_t disk, DeviceKey key, std::string* why);
  // Where writes that the map knows are expected (correlate/expected_write.h).
  sm_expected_word* expected();

  // Tells what has happened. Returns how many records were lost, for there was no room.
  uint64_t drain();
  // How much was not told for another reason: it happened in an interrupt of the program itself. A system call.
  uint64_t missed();
  // Of the known priority, how many requests began on a device that nobody was told of.
  uint64_t knownBegun(DeviceKey device) const;

  // Waits until a ring is half full, or wake() was called, or `timeout` ms have passed.
  void wait(int timeout);
  void wake();

  // A record as it is told.
  static BlockIo decode(const sm_block_event& event);

 private:
  BlockEvents();

  std::unique_ptr<BpfObject> object_;
  sm_block_memory* memory_ = nullptr;  // the object's; the kernel reads and writes it at the same time
  std::vector<BlockIo> taken_;         // by a drain, before it is told
  Wanted running_;
  uint64_t lost_ = 0, missed_ = 0;
  void (*told_)(void*, const BlockIo&) = nullptr;
  void* context_ = nullptr;
};

}  // namespace sm
