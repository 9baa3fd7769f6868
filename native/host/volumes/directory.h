// The list of a volume's disks, on its first device, in two copies. A change writes the older copy whole, with the next
// sequence number and a checksum over all of it, then flushes: whenever a crash comes, one copy is whole. A change that
// fails may have reached the medium all the same, so the old list goes over it; where that fails too, nobody knows
// which one will be found, and the volume's durability is lost.
//
// Thread contract: used where blocking is allowed, by one thread at a time.
#pragma once

#include <stratamap/services.h>
#include <stratamap/volume.h>

#include <vector>

#include "medium.h"

namespace sm {

constexpr uint32_t kMaxDisks = 1000;

// As on the medium.
struct DiskRecord {
  uint32_t id;  // never 0, never used again
  uint32_t reserved;
  uint64_t bytes;
  uint64_t words[2];  // the volume type's own
  char vm[SM_NAME_MAX + 1];
  char name[SM_NAME_MAX + 1];
};
static_assert(sizeof(DiskRecord) == 160);

class Directory {
 public:
  // Writes an empty one.
  static int32_t format(const sm_services* services, sm_device* device, const uint8_t uuid[16], sm_error* error);
  // A copy that cannot be read or is not whole is left alone; without any: the error of the read, or -EBADMSG, as where
  // a whole one makes no sense.
  int32_t load(const sm_services* services, sm_device* device, const uint8_t uuid[16], uint32_t blockSize,
               Durability& durability, sm_error* error);

  const std::vector<DiskRecord>& disks() const { return disks_; }
  const DiskRecord* find(const char* vm, const char* name) const;                   // null: none
  const DiskRecord* find(const char* vm, const char* name, sm_error* error) const;  // null: told as -ENOENT
  const DiskRecord* find(uint32_t id) const;
  // Every disk ever added has a lower id, as far as the list knows.
  uint32_t nextId() const { return nextId_; }
  // A copy could not be read: it may be newer than the list.
  bool copyUnread() const { return copyUnread_; }
  void list(void (*each)(void* context, const sm_disk_info* info), void* context) const;

  // Durable when they return 0; where they fail nothing has changed, but for a medium that fails twice: see above.
  // -EEXIST, -EINVAL (names, size), -ENOSPC (full).
  int32_t add(const char* vm, const char* name, uint64_t bytes, uint64_t word, uint32_t* id, sm_error* error);
  int32_t remove(uint32_t id, sm_error* error);
  int32_t resize(uint32_t id, uint64_t bytes, sm_error* error);

  // What add refuses but for lack of room, without touching anything.
  int32_t checkNew(const char* vm, const char* name, uint64_t bytes, sm_error* error) const;

 private:
  struct Image {  // of a copy
    PageMemory memory;
    uint64_t length;
  };
  Image image(const std::vector<DiskRecord>& disks, uint32_t nextId, uint64_t sequence) const;
  // Into the older copy.
  int32_t write(const Image& image, sm_error* error) const;
  int32_t store(std::vector<DiskRecord> disks, uint32_t nextId, sm_error* error);

  const sm_services* services_ = nullptr;
  sm_device* device_ = nullptr;
  Durability* durability_ = nullptr;
  uint8_t uuid_[16]{};
  uint32_t blockSize_ = 512;
  std::vector<DiskRecord> disks_;
  uint64_t sequence_ = 0;
  uint32_t nextId_ = 1;
  uint32_t copy_ = 1;  // the one that holds what is above: 0 or 1
  bool copyUnread_ = false;
};

}  // namespace sm
