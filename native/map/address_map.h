// The address map: virtual disk address <-> physical device address, both directions, with states.
//
// Thread contract: everything may be called from any thread, with `mutex()` held where the comment says "locked".
// Queries lock by themselves, and hold the lock for a bounded number of extents at a time (rule 9). An I/O thread that
// takes the lock for every I/O may own it (biased_lock.h).
//
// Invariants: every mapping stands once in the forward direction (which alone holds its state) and once in the reverse;
// both are ranges of equal length. A mapping that something in flight puts in doubt (rules 2 and 4) is not rewritten
// then: queries lay the ranges in flight over it, and completion decides. So the common overwrite in place changes
// nothing here.
//
// A byte may have several places and a place several owners: they stand in layers, each an interval map of its own, at
// most kLayers of them; one more replaces the last, for to forget is always safe.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "map/active_ranges.h"
#include "map/biased_lock.h"
#include "map/changes.h"
#include "map/extent_map.h"
#include "map/ledger.h"
#include "map/types.h"
#include "map/values.h"

namespace sm {

// A range of a disk. `places` all are in `state`; where a byte has mapped and stale places, only the mapped are told.
struct VirtualExtent {
  uint64_t diskOffset = 0, length = 0;
  State state = State::kUnknown;
  bool moving = false, shared = false;
  std::vector<Place> places;
};

// A range of a device and one of its owners; a range with several owners is told once for each.
struct PhysicalExtent {
  uint64_t offset = 0, length = 0;
  State state = State::kStale;
  bool moving = false, shared = false;
  DiskKey disk = kNoKey;
  uint64_t diskOffset = 0;
};

// One mapping, whole. What a batch is made of.
struct Mapping {
  DiskKey disk = kNoKey;
  Range virt;
  Place place;
  State state = State::kUnknown;
  bool moving = false, shared = false;
};

struct DiskName {
  std::string vm, disk;
  bool operator==(const DiskName&) const = default;
};

class AddressMap {
 public:
  static constexpr int kLayers = 4;
  static constexpr size_t kChunk = 1024;  // extents under one hold of the lock

  AddressMap();
  ~AddressMap();

  // --- names. intern makes a key where there is none; find gives kNoKey.
  DiskKey internDisk(const DiskName& name);
  DeviceKey internDevice(const std::string& name);
  DiskKey findDisk(const DiskName& name) const;
  DeviceKey findDevice(const std::string& name) const;
  DiskName diskName(DiskKey key) const;
  std::string deviceName(DeviceKey key) const;
  // Keys are 0 … count - 1.
  size_t diskCount() const;
  size_t deviceCount() const;

  // --- queries: in doubt is stale
  // Covers [offset, offset + length) without gaps, in order.
  std::vector<VirtualExtent> locate(DiskKey disk, uint64_t offset, uint64_t length) const;
  // What is known of [offset, offset + length), ordered by offset.
  std::vector<PhysicalExtent> owners(DeviceKey device, uint64_t offset, uint64_t length) const;
  // The known extents of a disk from `offset` on, at most `limit`, as they are at one instant. Go on behind the last.
  std::vector<VirtualExtent> extents(DiskKey disk, uint64_t offset, size_t limit) const;

  // What has happened, but was not told yet, is told by `feed`, under the lock, before a question is answered:
  // `ledger`, one to the ledger. Null: nobody has anything to tell. Locked.
  void feedFrom(void (*feed)(void* context, bool asked), void* context) { feed_ = feed, feedContext_ = context; }
  void feed(bool asked) const {
    if (feed_) [[unlikely]]
      feed_(feedContext_, asked);
  }

  DeviceLedger deviceLedger(DeviceKey device) const;
  Ledger ledger() const;

  // --- changes, locked
  BiasedLock& mutex() const { return mutex_; }
  // Whether [virt) is mapped to exactly `place`, alone, without flags: then evidence for it changes nothing.
  bool holds(DiskKey disk, Range virt, Place place) const;
  // Where all of [virt) is, if it is mapped in one piece, not moving, and nobody else's as well.
  bool onlyPlace(DiskKey disk, Range virt, Place* place) const;
  // Appends the places of [virt), and returns true, where each of them is mapped, not moving and nobody else's as well;
  // false, and anything, elsewhere. Bytes without a place are not told.
  bool mappedPlaces(DiskKey disk, Range virt, std::vector<Mapping>* out) const;
  // `shared`: the flag of that name, for good.
  void add(DiskKey disk, Range virt, Place place, State state, bool shared = false);
  void removeVirtual(DiskKey disk, Range virt);
  void removePhysical(DeviceKey device, Range phys);
  void staleVirtual(DiskKey disk, Range virt);
  void stalePhysical(DeviceKey device, Range phys);
  void moving(DeviceKey device, Range phys);
  void staleAll();
  void staleDisk(DiskKey disk);
  void staleDevice(DeviceKey device);

  // --- batches, locked (address_batch.cc). At random in a large map every mapping costs some waits for memory; those
  // of a batch are waited for together. Fetches what changes of these, and questions about them, are going to touch.
  // The place may be without a device.
  void prefetch(std::span<const Mapping> batch) const;
  // The same for one mapping, in three steps with some time between them, so that none waits: where it begins, on
  // `disk` and, unless its device is kNoKey, in `place`. Worth it where isLarge: what is small is in a core's caches.
  void fetchPaths(DiskKey disk, uint64_t offset, Place place) const;
  void fetchRegions(DiskKey disk, uint64_t offset, Place place) const;
  void fetchRuns(DiskKey disk, uint64_t offset, Place place) const;
  bool isLarge() const { return pool_->used() > kCached; }
  // Each in turn: what its range is mapped to, it and nothing else (rule 5: writes replace).
  void replace(std::span<const Mapping> batch);
  // Completes each mapping of which the range, or the place and the length, are given: place or range, state and flags
  // as locate and owners tell them. state stays kUnknown where it takes those to tell: unless all of it has one place,
  // and that one owner, and neither had more.
  void locateEach(std::span<Mapping> batch) const;
  void ownersEach(std::span<Mapping> batch) const;

  // --- persistence, locked (address_copy.cc)
  // What becomes other ranges or places is marked in `changes` from now on; null: nowhere. Returns where it was before.
  Changes* markIn(Changes* changes) { return std::exchange(changes_, changes); }
  // Appends what a first part of `virt` is mapped to, whatever the state; returns where that part ends.
  uint64_t copy(DiskKey disk, Range virt, std::vector<Mapping>* out) const;
  // While a map is loaded: [virt) is mapped to this, all of it stale, and to nothing else. In one direction alone:
  // `restored` makes the other, once, at the end.
  void restore(DiskKey disk, Range virt, std::span<const Mapping> mappings);
  void restored();

  // One watcher at a time for each disk and device, for the ranges in flight are its. False: another has it.
  bool watchDisk(DiskKey disk, const void* watcher);
  bool watchDevice(DeviceKey device, const void* watcher);
  void unwatchDisk(DiskKey disk) { disks_[disk]->watcher = nullptr; }
  void unwatchDevice(DeviceKey device) { devices_[device]->watcher = nullptr; }

  ActiveRanges& activeOf(DiskKey disk) { return disks_[disk]->active; }
  ActiveRanges& activeOn(DeviceKey device) { return devices_[device]->active; }
  DeviceLedger& ledgerOf(DeviceKey device) { return devices_[device]->ledger; }
  Ledger& ledgerOfAll() { return ledger_; }

 private:
  static constexpr size_t kCached = 1 << 20;  // bytes

  template <class Value>
  struct Layers : std::array<ExtentMap<Value>, kLayers> {
    explicit Layers(const std::shared_ptr<Pool>& pool)
        : std::array<ExtentMap<Value>, kLayers>{ExtentMap<Value>(pool), ExtentMap<Value>(pool), ExtentMap<Value>(pool),
                                                ExtentMap<Value>(pool)} {}
    bool upperEmpty() const { return (*this)[1].empty() & (*this)[2].empty() & (*this)[3].empty(); }
  };
  struct Disk {
    explicit Disk(const std::shared_ptr<Pool>& pool) : layers(pool) {}
    DiskName name;
    Layers<Forward> layers;
    ActiveRanges active;
    const void* watcher = nullptr;
  };
  struct Device {
    explicit Device(const std::shared_ptr<Pool>& pool) : layers(pool) {}
    std::string name;
    Layers<Reverse> layers;
    ActiveRanges active;
    const void* watcher = nullptr;
    DeviceLedger ledger;
  };

  void changed(DiskKey disk, Range virt) {
    if (changes_) [[unlikely]]
      changes_->mark(disk, virt);
  }
  // The two halves of `add`.
  void addForward(DiskKey disk, Range virt, const Forward& value);
  void addReverse(DiskKey disk, Range virt, Place place);
  // Where a layer's occupants go that a further one replaces: they are forgotten in both directions.
  void insertForward(DiskKey disk, Range virt, const Forward& value);
  void insertReverse(DeviceKey device, Range phys, const Reverse& value);
  void eraseForward(DiskKey disk, Range virt, Place place);
  void eraseReverse(DeviceKey device, Range phys, Reverse owner);
  // What [virt) is mapped to, if that is one place for all of it which has no other owner.
  bool alone(DiskKey disk, Range virt, Forward* value) const;
  bool inUpperLayers(DiskKey disk, Range virt, Place place) const;
  template <class F>
  void updatePhysical(DeviceKey device, Range phys, F&& f);

  // --- address_batch.cc
  void fetchForward(std::span<const Mapping> some, bool change) const;
  void fetchReverse(std::span<const Place> places, int layer, bool change) const;  // from a layer on
  void complete(Mapping* mapping) const;

  // --- address_query.cc
  bool inDoubt(DiskKey disk, Range virt, Place place) const;
  bool sharedPlace(DeviceKey device, Range phys) const;
  void cutsOf(DiskKey disk, Range virt, std::vector<uint64_t>* cuts) const;
  VirtualExtent describe(DiskKey disk, Range virt) const;
  uint64_t locateChunk(DiskKey disk, Range virt, std::vector<VirtualExtent>* out) const;
  uint64_t ownersChunk(DeviceKey device, Range phys, std::vector<PhysicalExtent>* out) const;

  mutable BiasedLock mutex_;
  std::shared_ptr<Pool> pool_ = std::make_shared<Pool>();  // of all the layers
  std::vector<std::unique_ptr<Disk>> disks_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<Range> found_;  // of eraseForward, eraseReverse and updatePhysical
  Changes* changes_ = nullptr;
  void (*feed_)(void*, bool) = nullptr;
  void* feedContext_ = nullptr;
  Ledger ledger_;
};

}  // namespace sm
