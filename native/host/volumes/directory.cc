#include "directory.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <set>
#include <string>
#include <utility>

#include "crc32c.h"

namespace sm {
namespace {

constexpr uint64_t kMagic = 0x59524f5443455249;  // "IRECTORY"

// As on the medium, before the records.
struct Header {
  uint64_t magic;
  uint64_t sequence;
  uint8_t uuid[16];
  uint32_t count;
  uint32_t nextId;
  uint8_t reserved[20];
  uint32_t crc;  // of header and records, itself as 0
};
static_assert(sizeof(Header) == 64);
static_assert(sizeof(Header) + kMaxDisks * sizeof(DiskRecord) <= kDirectoryBytes);

// No use of a volume counts so far: of two copies the newer is always known.
constexpr uint64_t kLastSequence = UINT64_MAX / 2;

uint64_t copyBytes(uint32_t count) { return sizeof(Header) + count * sizeof(DiskRecord); }
uint64_t copyAt(uint32_t copy) { return kDirectoryAt + copy * kDirectoryBytes; }

uint32_t checksum(Header header, const uint8_t* copy) {
  header.crc = 0;
  return crc32c(crc32c(0, &header, sizeof header), copy + sizeof header, copyBytes(header.count) - sizeof header);
}

// Whether a copy as read is whole, and this volume's.
bool whole(const uint8_t* copy, const uint8_t uuid[16], Header* out) {
  memcpy(out, copy, sizeof *out);
  return out->magic == kMagic && !memcmp(out->uuid, uuid, sizeof out->uuid) && out->count <= kMaxDisks &&
         out->crc == checksum(*out, copy);
}

bool nameIsWhole(const char (&name)[SM_NAME_MAX + 1]) {
  const size_t length = strnlen(name, sizeof name);
  return length > 0 && length < sizeof name;
}

bool sensible(const Header& header, const std::vector<DiskRecord>& disks, uint32_t blockSize) {
  if (header.nextId == 0 || header.sequence > kLastSequence) return false;
  std::set<uint32_t> ids;
  std::set<std::pair<std::string, std::string>> names;
  for (const DiskRecord& disk : disks) {
    if (disk.id == 0 || disk.id >= header.nextId || disk.bytes == 0 || disk.bytes % blockSize) return false;
    if (!nameIsWhole(disk.vm) || !nameIsWhole(disk.name)) return false;
    if (!ids.insert(disk.id).second || !names.emplace(disk.vm, disk.name).second) return false;
  }
  return true;
}

}  // namespace

int32_t Directory::format(const sm_services* services, sm_device* device, const uint8_t uuid[16], sm_error* error) {
  Directory empty;
  empty.services_ = services;
  empty.device_ = device;
  memcpy(empty.uuid_, uuid, sizeof empty.uuid_);
  const Image image = empty.image({}, 1, 1);
  return image.memory ? empty.write(image, error) : report(error, -ENOMEM, "no memory for the directory");
}

int32_t Directory::load(const sm_services* services, sm_device* device, const uint8_t uuid[16], uint32_t blockSize,
                        Durability& durability, sm_error* error) {
  services_ = services;
  device_ = device;
  durability_ = &durability;
  memcpy(uuid_, uuid, sizeof uuid_);
  blockSize_ = blockSize;
  const PageMemory memory = allocatePages(2 * kDirectoryBytes);
  if (!memory) return report(error, -ENOMEM, "no memory for the directory");
  Header headers[2];
  bool valid[2];
  sm_error unread{};
  for (uint32_t i = 0; i < 2; ++i) {
    uint8_t* copy = memory.get() + i * kDirectoryBytes;
    valid[i] = mediumIo(services, device, SM_OP_READ, copyAt(i), copy, kDirectoryBytes, &unread) == 0 &&
               whole(copy, uuid, &headers[i]);
  }
  copyUnread_ = unread.code != 0;
  if (!valid[0] && !valid[1]) {
    if (copyUnread_) return report(error, unread.code, "%s", unread.message);
    return report(
        error, -EBADMSG,
        "both copies of the directory on device '%s' are damaged: restore the device from a backup, or format "
        "the volume anew",
        device->name);
  }
  if (copyUnread_)
    services->log(services, SM_LOG_WARNING,
                  (std::string(unread.message) + ": the other copy of the list of disks is used, which may lack the "
                                                 "last change")
                      .c_str());
  copy_ = valid[1] && (!valid[0] || headers[1].sequence > headers[0].sequence) ? 1 : 0;
  const Header& header = headers[copy_];
  disks_.resize(header.count);
  if (header.count)
    memcpy(static_cast<void*>(disks_.data()), memory.get() + copy_ * kDirectoryBytes + sizeof header,
           header.count * sizeof(DiskRecord));
  sequence_ = header.sequence;
  nextId_ = header.nextId;
  if (!sensible(header, disks_, blockSize))
    return report(
        error, -EBADMSG,
        "the directory on device '%s' is whole but makes no sense: it was not written by this program; restore "
        "the device from a backup, or format the volume anew",
        device->name);
  return 0;
}

const DiskRecord* Directory::find(const char* vm, const char* name) const {
  for (const DiskRecord& disk : disks_)
    if (!strcmp(disk.vm, vm) && !strcmp(disk.name, name)) return &disk;
  return nullptr;
}

const DiskRecord* Directory::find(const char* vm, const char* name, sm_error* error) const {
  const DiskRecord* record = find(vm, name);
  if (!record) report(error, -ENOENT, "the volume has no disk '%s' of '%s'", name, vm);
  return record;
}

const DiskRecord* Directory::find(uint32_t id) const {
  for (const DiskRecord& disk : disks_)
    if (disk.id == id) return &disk;
  return nullptr;
}

void Directory::list(void (*each)(void* context, const sm_disk_info* info), void* context) const {
  for (const DiskRecord& disk : disks_) {
    sm_disk_info info{};
    memcpy(info.vm, disk.vm, sizeof info.vm);
    memcpy(info.name, disk.name, sizeof info.name);
    info.bytes = disk.bytes;
    each(context, &info);
  }
}

int32_t Directory::checkNew(const char* vm, const char* name, uint64_t bytes, sm_error* error) const {
  for (const char* text : {vm, name})
    if (!*text || strlen(text) > SM_NAME_MAX)
      return report(error, -EINVAL, "'%.80s' cannot name a virtual machine or disk: give 1 to %d bytes", text,
                    SM_NAME_MAX);
  if (bytes == 0 || bytes % blockSize_)
    return report(error, -EINVAL, "a disk of %llu bytes cannot be: give a multiple of the block size, %u",
                  static_cast<unsigned long long>(bytes), blockSize_);
  if (find(vm, name)) return report(error, -EEXIST, "there is a disk '%s' of '%s' already", name, vm);
  if (disks_.size() >= kMaxDisks || nextId_ == UINT32_MAX)
    return report(error, -ENOSPC, "the volume has no room for another disk: it holds at most %u", kMaxDisks);
  return 0;
}

int32_t Directory::add(const char* vm, const char* name, uint64_t bytes, uint64_t word, uint32_t* id, sm_error* error) {
  if (int32_t status = checkNew(vm, name, bytes, error)) return status;
  DiskRecord record{};
  record.id = nextId_;
  record.bytes = bytes;
  record.words[0] = word;
  memcpy(record.vm, vm, strlen(vm));
  memcpy(record.name, name, strlen(name));
  std::vector<DiskRecord> disks = disks_;
  disks.push_back(record);
  if (int32_t status = store(std::move(disks), nextId_ + 1, error)) return status;
  *id = record.id;
  return 0;
}

int32_t Directory::remove(uint32_t id, sm_error* error) {
  std::vector<DiskRecord> disks = disks_;
  std::erase_if(disks, [id](const DiskRecord& disk) { return disk.id == id; });
  return store(std::move(disks), nextId_, error);
}

int32_t Directory::resize(uint32_t id, uint64_t bytes, sm_error* error) {
  if (bytes == 0 || bytes % blockSize_)
    return report(error, -EINVAL, "a disk of %llu bytes cannot be: give a multiple of the block size, %u",
                  static_cast<unsigned long long>(bytes), blockSize_);
  std::vector<DiskRecord> disks = disks_;
  for (DiskRecord& disk : disks)
    if (disk.id == id) disk.bytes = bytes;
  return store(std::move(disks), nextId_, error);
}

Directory::Image Directory::image(const std::vector<DiskRecord>& disks, uint32_t nextId, uint64_t sequence) const {
  const auto count = static_cast<uint32_t>(disks.size());
  Image image{nullptr, roundUp(copyBytes(count), kPage)};
  image.memory = allocatePages(image.length);
  if (!image.memory) return image;
  if (count) memcpy(image.memory.get() + sizeof(Header), disks.data(), count * sizeof(DiskRecord));
  Header header{};
  header.magic = kMagic;
  header.sequence = sequence;
  memcpy(header.uuid, uuid_, sizeof header.uuid);
  header.count = count;
  header.nextId = nextId;
  header.crc = checksum(header, image.memory.get());
  memcpy(image.memory.get(), &header, sizeof header);
  return image;
}

int32_t Directory::write(const Image& image, sm_error* error) const {
  return mediumIo(services_, device_, SM_OP_WRITE, copyAt(1 - copy_), image.memory.get(), image.length, error);
}

int32_t Directory::store(std::vector<DiskRecord> disks, uint32_t nextId, sm_error* error) {
  if (int32_t status = durability_->check(error)) return status;
  const Image after = image(disks, nextId, sequence_ + 1), before = image(disks_, nextId_, sequence_ + 2);
  if (!after.memory || !before.memory) return report(error, -ENOMEM, "no memory for the directory");
  int32_t status = write(after, error);
  if (!status) status = mediumFlush(services_, device_, *durability_, error);
  if (!status) {
    copy_ = 1 - copy_;
    ++sequence_;
    nextId_ = nextId;
    disks_ = std::move(disks);
    return 0;
  }
  // Durability may be lost by now, but this flush answers for this copy alone.
  int32_t again = write(before, nullptr);
  if (!again) again = mediumIo(services_, device_, SM_OP_FLUSH, 0, nullptr, 0, nullptr);
  if (!again) {
    copy_ = 1 - copy_;
    sequence_ += 2;
    return status;
  }
  durability_->lose(again);
  return report(error, status,
                "the list of disks on device '%s' could not be written (%s) nor put back (%s): whether it has changed "
                "shows when the volume is opened again; close it and open it again",
                device_->name, strerror(-status), strerror(-again));
}

}  // namespace sm
