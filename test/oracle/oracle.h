// The independent truth for the address map: the rules of the design (1 to 8) for correlation `descend`, stated once
// more, block by block, with nothing deferred, merged or bounded, and sharing no source with what it judges.
//
// It is told of every request above when it is submitted and when it completes, and of every request below when the
// driver takes it and just before the driver completes it; also of those that nobody watches. It answers, for each
// block of a disk, at which places its bytes are and in which state, and for each block of a device, whose bytes it
// holds.
//
// What an implementation is allowed to forget, it says: `crowded` (more places or owners than it need keep).
#pragma once

#include <map>
#include <memory>
#include <set>
#include <span>

#include "unit.h"

namespace oracle {

enum class State : uint8_t { kUnknown, kStale, kMapped };
enum class Carrier { kSerial, kSpare, kPrivateData, kExtension };

// A virtual block is, or was, at a place.
struct Mapping {
  Unit virt, place;
  State state = State::kStale;
  // An unattributed read saw the place. kMaybe: while a read that taught the mapping anew was on its way up.
  enum Moving : uint8_t { kNo, kYes, kMaybe } moving = kNo;
  uint64_t movingSince = 0;
  bool crowded = false;
};

struct Tally {
  uint64_t operations = 0, bytes = 0;
  bool operator==(const Tally&) const = default;
};
struct DeviceTally {
  Tally attributed, unattributed, control;
};
// Bytes of completed writes and write-zeroes that were left unmapped: all, and for two of the reasons.
struct UnmappedTally {
  uint64_t all = 0, overlap = 0, settling = 0;
};

struct OracleOptions {
  Carrier carrier = Carrier::kSerial;
  uint64_t capacity = 64;  // requests above that can be recorded at once
  std::vector<uint64_t> diskBlocks, deviceBlocks;
  std::vector<bool> sharedDevice;
};

class Oracle {
 public:
  static constexpr size_t kPlaces = 4;  // of a block, and owners of a place: what an implementation must keep
  static constexpr size_t kPieces = 8;  // runs of a child that are told apart

  explicit Oracle(const OracleOptions& options);

  // --- watching (rule 7)
  void attach();                  // a new observer, which sees everything from now on and knows of nothing in flight
  void watchDisk(uint32_t disk);  // after a time out of sight
  void watchDevice(uint32_t device);
  void leaveDisk(uint32_t disk);  // its requests in flight are still followed
  void leaveDevice(uint32_t device);
  void abandonDisk(uint32_t disk);  // nor are these
  bool watchesDisk(uint32_t disk) const { return disks_[disk].watched; }
  bool watchesDevice(uint32_t device) const { return devices_[device].watched; }
  void lost();   // an event was not seen
  void close();  // before a detach: nothing is learned any more

  // --- a child that was allocated, which may be long before it is issued, and released. Who watches cannot see that;
  // but the host says when all that was allocated before has ended. Of what is issued at once neither need be told.
  void allocated(const sm_request* child);
  void released(const sm_request* child);

  // --- events. `blind`: the observer sees it go down, and will not see it come back.
  void submitted(const sm_request* request, uint32_t disk, bool blind);
  void completed(const sm_request* request);
  void issued(const sm_request* request, uint32_t device, bool blind);
  void landed(const sm_request* request, int32_t status);

  // Whether its completion will be seen.
  bool follows(const sm_request* request) const {
    auto found = above_.find(request);
    return found != above_.end() && found->second->followed;
  }

  // --- answers
  const std::vector<std::shared_ptr<Mapping>>& places(Unit virt) const {
    return disks_[virt.space].blocks[virt.block].places;
  }
  const std::vector<std::shared_ptr<Mapping>>& owners(Unit place) const {
    return devices_[place.space].blocks[place.block].owners;
  }
  bool modifying(Unit virt) const { return !disks_[virt.space].blocks[virt.block].modifications.empty(); }
  const DeviceTally& tally(uint32_t device) const { return devices_[device].tally; }
  const UnmappedTally& unmapped() const { return unmapped_; }
  uint64_t overlaps() const { return overlaps_; }  // pairs of modifications of one block that overlapped in time
  uint64_t mappings() const { return mappings_; }  // made, in all

 private:
  struct Below {
    uint8_t op = 0;
    Unit first;
    uint64_t blocks = 0, stamp = 0, landedAt = 0;
    std::vector<const std::byte*> memory;
    std::vector<Bytes> data;  // a write's when issued, a read's when landed
    std::vector<bool> raced;  // another modification of the block was in flight at the issue
    bool done = false, ok = false, fit = true;
  };
  struct Above {
    uint8_t op = 0;
    Unit first;
    uint64_t blocks = 0;
    uint64_t serial = 0;
    const sm_request* request = nullptr;
    std::vector<const std::byte*> memory;
    std::vector<Bytes> data;  // a write's when submitted, a read's when completed
    std::vector<bool> over;   // a modification of the block overlapped this request in time
    std::vector<std::shared_ptr<Below>> children;
    bool recorded = false, learns = false, sharedBuffer = false, aliased = false, followed = true;
  };
  struct DiskBlock {
    std::vector<std::shared_ptr<Mapping>> places;
    std::vector<Above*> modifications;  // in flight
  };
  struct DeviceBlock {
    std::vector<std::shared_ptr<Mapping>> owners;
    std::set<const Below*> modifications;  // in flight
    uint64_t lastModified = 0;             // stamp of the last modification that was issued
  };
  using InFlight = std::set<const sm_request*>;
  struct Disk {
    bool watched = false;
    InFlight waiting;  // has to end before anything is learned of it
    std::vector<DiskBlock> blocks;
  };
  struct Device {
    bool watched = false, shared = false;
    InFlight waiting;
    std::vector<DeviceBlock> blocks;
    DeviceTally tally;
  };
  struct Pair {  // block `child` of a child carries block `parent` of its parent
    uint64_t child, parent;
  };

  void ended(const sm_request* request);
  void staleDisk(uint32_t disk);
  void staleDevice(uint32_t device);
  void stale(Unit place);
  void unmapOwners(Unit place);
  void unmapPlaces(Unit virt);
  void map(Unit virt, Unit place, const Below& by);
  std::span<const std::byte> fieldOf(const sm_request* request) const;
  bool inUse(const sm_request* request) const;
  Above* parentOf(const sm_request* child);
  std::vector<Pair> carried(const Below& child, const Above& parent) const;
  void finish(Above* above, bool ok);
  Unit blockOf(const Above& above, uint64_t i) const { return {above.first.space, above.first.block + i}; }

  const OracleOptions options_;
  std::vector<Disk> disks_;
  std::vector<Device> devices_;
  std::map<const sm_request*, std::unique_ptr<Above>> above_;
  std::map<const sm_request*, std::shared_ptr<Below>> below_;
  InFlight inFlight_;  // everything, above and below, watched or not
  InFlight held_;      // of which these end only when they are released
  InFlight waiting_;   // what has to end before anything is learned
  bool closing_ = false;
  uint64_t clock_ = 0;
  UnmappedTally unmapped_;
  uint64_t overlaps_ = 0, mappings_ = 0;
};

}  // namespace oracle
