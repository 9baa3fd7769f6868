// The stack of one cell: a host with one I/O thread, devices, a volume, disks, and what watches them: the probe that is
// tested, and the truth, which sees every request above before the probe and its completion after it.
//
// Thread contract: the I/O thread alone touches `content` while I/O is in flight; the test's thread when there is none.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cell.h"
#include "host/host.h"
#include "intercept/probe.h"
#include "native/host/mounted.h"
#include "native/host/support.h"
#include "oracle/content.h"
#include "policies/counters.h"
#include "policies/fault.h"
#include "sys/loop.h"

namespace conformance {

constexpr uint64_t kDiskBytes = 1 << 20, kDisks = 3, kDeviceBytes = 12 << 20;

class Stack {
 public:
  // Complains, and then is not open, where something fails.
  Stack(const Cell& cell, Outcome* outcome);
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  bool open() const { return open_; }
  // A new probe with a new map; and the truth, unless that would cost what is to be measured.
  bool attach(bool witnessed = true);
  // Rule 7: all is stale afterwards.
  void detach();
  // Rule 8: the ledger's sums are what was counted below while the probe was attached.
  void checkLedger();
  // From now on some of what the devices are asked fails, in whole or in part; or no more.
  void beginFaults(uint64_t seed);
  void endFaults();

  // Waits until the volume does nothing on its own any more.
  void rest();
  // How many writes have been submitted to the devices.
  uint64_t writesBelow() const;

  const std::vector<sm::VirtualDisk*>& disks() const { return disks_; }
  sm::DiskKey key(size_t disk) const;
  const sm::AddressMap& map() const { return *map_; }
  oracle::Content& content() { return content_; }
  // `length` bytes of a device, read outside the stack.
  const std::byte* read(sm::DeviceKey device, uint64_t offset, uint64_t length);
  uint64_t blockSize() const { return blockSize_; }
  size_t places() const { return cell_.volume.places; }
  void complain(const std::string& what);
  Outcome& outcome() { return *outcome_; }

 private:
  struct Witness;
  struct FreeMemory {
    void operator()(std::byte* memory) const { free(memory); }
  };
  bool failed(const sm::Failure& failure, const char* what);
  void openAll(const Cell& cell);
  bool openDevice(const Cell& cell, size_t index);
  // Counts what a device is asked, and reads outside of the stack what it holds.
  bool watch(sm_device* device, const std::string& path);
  std::string makeDirectory(const Cell& cell);

  const Cell& cell_;
  Outcome* outcome_;
  bool open_ = false;
  sm::test::TempFolder folder_;
  std::unique_ptr<sm::test::Mounted> mounted_;
  std::vector<sm::LoopDevice> loops_;
  std::vector<int> files_;  // for reading outside the stack, by device
  std::unique_ptr<std::byte, FreeMemory> memory_;
  std::unique_ptr<sm::Host> host_;
  std::vector<sm_device*> devices_;
  sm::Volume* volume_ = nullptr;
  std::vector<sm::VirtualDisk*> disks_;
  std::vector<std::unique_ptr<Witness>> witnesses_;
  std::vector<std::unique_ptr<sm::Counters>> counters_;  // by device, below the probe
  std::vector<sm::Tally> before_;                        // what they had when the probe was attached
  std::unique_ptr<sm::Fault> fault_;                     // below all else
  bool faulted_ = false;                                 // a volume may say at its end that it lost something
  oracle::Content content_;
  std::shared_ptr<sm::AddressMap> map_;
  std::unique_ptr<sm::Probe> probe_;
  uint64_t blockSize_ = 512;
};

}  // namespace conformance
