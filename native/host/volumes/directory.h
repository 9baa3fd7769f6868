// The list of a volume's disks, on its first device, in two copies. A change writes the older copy whole, with the next
// sequence number and a checksum over all of it, then flushes: whenever a crash comes, one copy is whole.
//
// Thread contract: used where blocking is allowed, by one thread at a time.
#pragma once

#include <stratamap/services.h>
#include <stratamap/volume.h>

#include <vector>

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
  // -EBADMSG where neither copy is whole, or one that is makes no sense.
  int32_t load(const sm_services* services, sm_device* device, const uint8_t uuid[16], uint32_t blockSize,
               sm_error* error);

  const std::vector<DiskRecord>& disks() const { return disks_; }
  const DiskRecord* find(const char* vm, const char* name) const;  // null: none
  const DiskRecord* find(uint32_t id) const;
  void list(void (*each)(void* context, const sm_disk_info* info), void* context) const;

  // Durable when they return 0; where they fail nothing has changed. -EEXIST, -EINVAL (names, size), -ENOSPC (full).
  int32_t add(const char* vm, const char* name, uint64_t bytes, uint64_t word, uint32_t* id, sm_error* error);
  int32_t remove(uint32_t id, sm_error* error);
  int32_t resize(uint32_t id, uint64_t bytes, sm_error* error);

  // What add refuses but for lack of room, without touching anything.
  int32_t checkNew(const char* vm, const char* name, uint64_t bytes, sm_error* error) const;

 private:
  int32_t store(std::vector<DiskRecord> disks, uint32_t nextId, sm_error* error);

  const sm_services* services_ = nullptr;
  sm_device* device_ = nullptr;
  uint8_t uuid_[16]{};
  uint32_t blockSize_ = 512;
  std::vector<DiskRecord> disks_;
  uint64_t sequence_ = 0;
  uint32_t nextId_ = 1;
  uint32_t copy_ = 1;  // the one that holds what is above: 0 or 1
};

}  // namespace sm
