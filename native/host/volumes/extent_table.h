// What every physical extent is used for: in memory, and on the medium in sectors that each stand for themselves.
//
// On the medium each device has a table behind the directory: for each of its extents an entry {owner, virtual index,
// sequence}, 31 of them and a checksum in a sector of 512 bytes. A sector is written whole or not at all; sectors are
// written in any order. The table in memory is ahead of it until the next commit.
//
// Thread contract: load on a control thread before the first request; everything else on the home I/O thread.
// Invariants, on which it rests that no crash shows one disk's bytes to another:
// - the entry of an extent that is free or being allocated is clear on the medium, durably: one that is given up is not
//   free before a commit has cleared its entry;
// - an entry names an owner only if all bytes of the extent are that owner's or zeroes, durably: a commit flushes the
//   devices after it has decided what to write and before it writes.
#pragma once

#include <stratamap/services.h>

#include <vector>

#include "commit.h"
#include "medium.h"
#include "superblock.h"

namespace sm {

// As on the medium.
struct ExtentEntry {
  uint32_t disk;      // 0: none
  uint32_t index;     // of the extent in the disk
  uint64_t sequence;  // of two entries for one place the higher counts
};
constexpr uint32_t kEntriesPerSector = 31;
struct ExtentSector {
  ExtentEntry entries[kEntriesPerSector];
  uint32_t number;  // of the sector in its table
  uint32_t device;  // index
  uint32_t reserved;
  uint32_t crc;  // of the bytes before it and the volume's uuid
};
static_assert(sizeof(ExtentSector) == 512);
constexpr uint32_t kSectorsPerPage = kPage / sizeof(ExtentSector);

enum class ExtentState : uint8_t {
  kFree,
  kAllocating,
  kMapped,      // in use; no commit knows it yet
  kCommitting,  // in use; the running commit writes its entry
  kDurable,     // in use; its entry is on the medium
  kFreeing,     // given up; no commit knows it yet
  kClearing,    // given up; the running commit clears its entry
  kCleared,     // given up, its entry is clear; free when the last child that touches it has completed
};

struct Extent {
  uint32_t disk, index;  // whose it is, where it is in use
  uint32_t users;        // children in flight that touch it
  uint16_t device;
  ExtentState state;
};

struct ExtentLayout {
  uint64_t tableAt, dataAt;  // bytes
  uint32_t sectors, extents;
};
// `bytes` is a device's size, at least kTypeAt.
ExtentLayout extentLayout(uint64_t bytes, uint64_t extentBytes);

class ExtentTable final : public CommitSource {
 public:
  // Writes the tables of an empty volume.
  static int32_t format(const sm_services* services, sm_device* const* devices, const Superblock& superblock,
                        uint64_t extentBytes, sm_error* error);
  // Reads and checks them. Every extent that has an entry is then kDurable, all others are kFree but not to be had
  // before fillFree. -EBADMSG: a sector is damaged.
  int32_t load(const sm_services* services, sm_device* const* devices, const Superblock* superblocks,
               uint64_t extentBytes, sm_error* error);
  void fillFree(uint64_t seed);

  uint32_t size() const { return static_cast<uint32_t>(extents_.size()); }
  Extent& operator[](uint32_t extent) { return extents_[extent]; }
  uint32_t numberOf(const Extent& extent) const { return static_cast<uint32_t>(&extent - extents_.data()); }
  uint64_t sequenceOf(uint32_t extent) { return entryOf(extent).sequence; }
  sm_device* deviceOf(const Extent& extent) const { return parts_[extent.device].device; }
  uint64_t offsetOf(const Extent& extent) const {
    const Part& part = parts_[extent.device];
    return part.layout.dataAt + (static_cast<uint64_t>(numberOf(extent) - part.first) << shift_);
  }

  // --- allocation. take: null while none is free. comingFree: some are given up and will be free; comingByCommit: some
  // of those only after another commit.
  Extent* take();
  void giveBack(Extent& extent) { free(extent); }  // was being allocated
  bool comingFree() const { return freeing_ + clearing_ + cleared_ > 0; }
  bool comingByCommit() const { return freeing_ > 0; }

  void publish(Extent& extent, uint32_t disk, uint32_t index);  // from kAllocating
  void giveUp(Extent& extent);                                  // from a state of use
  void addUser(Extent& extent) { ++extent.users; }
  // Returns whether that made it free.
  bool dropUser(Extent& extent) { return --extent.users == 0 && extent.state == ExtentState::kCleared && free(extent); }

  // --- commit, one at a time. begin puts what is true now into sectors in memory, which do not change before end; the
  // second stage writes them, in page-aligned pieces.
  bool dirty() const { return dirtySectors_ > 0; }
  void begin() override;
  Next next(uint32_t stage, uint32_t slot, uint64_t longest, Run* out) override;
  void end(bool durable) override;

 private:
  struct Part {  // one device's
    sm_device* device;
    ExtentLayout layout;
    uint32_t first;  // its first extent
    PageMemory image;
    std::vector<uint8_t> dirty, writing;  // a bit for each sector, so a byte for each page
    ExtentSector& sector(uint32_t number) { return reinterpret_cast<ExtentSector*>(image.get())[number]; }
  };

  ExtentEntry& entryOf(uint32_t extent);
  int32_t loadPart(const sm_services* services, uint32_t device, sm_error* error);
  void markDirty(const Extent& extent);
  void build(Part& part, uint32_t number);
  void settle(Part& part, uint32_t number, bool durable);
  bool free(Extent& extent);
  uint64_t random();

  std::vector<Part> parts_;
  std::vector<Extent> extents_;
  std::vector<uint32_t> free_;  // shuffled
  uint8_t uuid_[16]{};
  uint32_t shift_ = 0;
  uint64_t nextSequence_ = 1;
  uint64_t random_ = 0;
  uint32_t freeing_ = 0, clearing_ = 0, cleared_ = 0;  // extents in these states
  uint32_t dirtySectors_ = 0;
  uint32_t runPart_ = 0, runPage_ = 0;  // where next goes on
};

}  // namespace sm
