#include "superblock.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <random>
#include <utility>

#include "crc32c.h"
#include "medium.h"

namespace sm {
namespace {

constexpr char kMagic[8] = {'S', 'T', 'R', 'A', 'T', 'A', 'M', 'P'};
constexpr uint32_t kVersion = 1;
// Bytes of a device's beginning and end where others keep what they know it by: boot sectors, partition tables, the
// superblocks of file systems, RAID and volume managers, and their spare copies.
constexpr uint64_t kForeignHead = 2 << 20, kForeignTail = 1 << 20;

using Long = unsigned long long;

uint32_t checksum(const Superblock& superblock) { return crc32c(0, &superblock, offsetof(Superblock, crc)); }

int32_t flushAll(const sm_services* services, sm_device* const* devices, uint32_t count, sm_error* error) {
  for (uint32_t i = 0; i < count; ++i)
    if (int32_t status = mediumIo(services, devices[i], SM_OP_FLUSH, 0, nullptr, 0, error)) return status;
  return 0;
}

int32_t writePages(const sm_services* services, sm_device* const* devices, uint32_t count, const Superblock* superblock,
                   sm_error* error) {
  const PageMemory page = allocatePages(kPage);
  if (!page) return report(error, -ENOMEM, "no memory for a superblock");
  for (uint32_t i = 0; i < count; ++i) {
    if (superblock) {
      Superblock own = *superblock;
      own.deviceIndex = i;
      own.deviceBytes = devices[i]->bytes;
      own.crc = checksum(own);
      memcpy(page.get(), &own, sizeof own);
    }
    if (int32_t status = mediumIo(services, devices[i], SM_OP_WRITE, 0, page.get(), kPage, error)) return status;
  }
  return flushAll(services, devices, count, error);
}

int32_t eraseForeign(const sm_services* services, sm_device* device, sm_error* error) {
  const uint64_t end = device->bytes / device->block_size * device->block_size;
  const uint64_t head = std::min(end, kForeignHead);
  const uint64_t tail = std::max(head, (end - std::min(end, kForeignTail)) / kPage * kPage);
  for (const auto& [from, to] : {std::pair{kPage, head}, std::pair{tail, end}})
    if (from < to)
      if (int32_t status = mediumIo(services, device, SM_OP_WRITE_ZEROES, from, nullptr, to - from, error))
        return status;
  return 0;
}

// Whether what was read is a whole superblock of this type of volume.
int32_t checkOne(const Superblock& found, const sm_device* device, const char* type, sm_error* error) {
  if (memcmp(found.magic, kMagic, sizeof kMagic)) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&found);
    const bool empty = std::all_of(bytes, bytes + sizeof found, [](uint8_t byte) { return byte == 0; });
    return report(error, -EMEDIUMTYPE, "device '%s' holds no stratamap volume: its first block %s; format it first",
                  device->name, empty ? "is empty" : "holds something else");
  }
  if (found.version != kVersion)
    return report(error, -EPROTONOSUPPORT,
                  "device '%s' holds a volume of format version %u, this is version %u: open it with a release that "
                  "knows it, or format it anew",
                  device->name, found.version, kVersion);
  if (found.crc != checksum(found))
    return report(error, -EBADMSG,
                  "the superblock of device '%s' is torn or damaged (checksum %08x, computed %08x): restore the device "
                  "from a backup, or format it anew",
                  device->name, found.crc, checksum(found));
  if (strnlen(found.type, sizeof found.type) == sizeof found.type || strcmp(found.type, type))
    return report(error, -EMEDIUMTYPE,
                  "device '%s' holds a volume of type '%.31s', not '%s': open it with its own type", device->name,
                  found.type, type);
  if (!std::has_single_bit(found.blockSize) || found.blockSize > kPage || found.deviceBytes < kTypeAt)
    return report(error, -EBADMSG,
                  "the superblock of device '%s' is whole but makes no sense (%llu bytes in blocks of %u): it was not "
                  "written by this program; restore the device from a backup, or format it anew",
                  device->name, static_cast<Long>(found.deviceBytes), found.blockSize);
  return 0;
}

int32_t checkPlace(const Superblock& found, const Superblock& first, sm_device* const* devices, uint32_t count,
                   uint32_t index, sm_error* error) {
  const sm_device* device = devices[index];
  if (memcmp(found.uuid, first.uuid, sizeof found.uuid))
    return report(error, -EXDEV, "device '%s' belongs to another volume than device '%s': give the devices of one",
                  device->name, devices[0]->name);
  if (found.deviceCount != count)
    return report(error, -ENODEV, "the volume on device '%s' has %u devices, %u %s given: give all of them, in order",
                  device->name, found.deviceCount, count, count == 1 ? "is" : "are");
  if (found.deviceIndex != index)
    return report(error, -EXDEV,
                  "device '%s' is number %u of its volume but was given as number %u: give the devices in the order in "
                  "which they were formatted",
                  device->name, found.deviceIndex, index);
  if (device->bytes < found.deviceBytes)
    return report(error, -EOVERFLOW, "device '%s' has %llu bytes, it had %llu when formatted: give it back its size",
                  device->name, static_cast<Long>(device->bytes), static_cast<Long>(found.deviceBytes));
  if (device->block_size > found.blockSize)
    return report(error, -EINVAL,
                  "device '%s' has blocks of %u bytes, the volume was formatted for %u: attach it with that block size",
                  device->name, device->block_size, found.blockSize);
  return 0;
}

}  // namespace

int32_t superblockErase(const sm_services* services, sm_device* const* devices, uint32_t count, const char* type,
                        Superblock* out, sm_error* error) {
  if (count == 0 || count > kMaxDevices)
    return report(error, -EINVAL, "volume '%s' takes 1 to %u devices, %u were given", type, kMaxDevices, count);
  *out = {};
  for (uint32_t i = 0; i < count; ++i) {
    if (devices[i]->block_size > kPage)
      return report(error, -EINVAL, "device '%s' has blocks of %u bytes: at most %u are supported", devices[i]->name,
                    devices[i]->block_size, static_cast<unsigned>(kPage));
    if (devices[i]->bytes < kTypeAt)
      return report(error, -ENOSPC, "device '%s' has %llu bytes: the metadata alone needs %llu", devices[i]->name,
                    static_cast<Long>(devices[i]->bytes), static_cast<Long>(kTypeAt));
    for (uint32_t j = 0; j < i; ++j)
      if (devices[i] == devices[j])
        return report(error, -EINVAL, "device '%s' was given twice: give each once", devices[i]->name);
    out->blockSize = std::max(out->blockSize, devices[i]->block_size);
  }
  memcpy(out->magic, kMagic, sizeof kMagic);
  out->version = kVersion;
  out->deviceCount = count;
  snprintf(out->type, sizeof out->type, "%s", type);
  std::random_device random;
  for (uint8_t& byte : out->uuid) byte = static_cast<uint8_t>(random());
  // First, and durably, the superblocks: what lies behind one that is still there must not be gone.
  if (int32_t status = writePages(services, devices, count, nullptr, error)) return status;
  for (uint32_t i = 0; i < count; ++i)
    if (int32_t status = eraseForeign(services, devices[i], error)) return status;
  return 0;
}

int32_t superblockWrite(const sm_services* services, sm_device* const* devices, Superblock superblock,
                        sm_error* error) {
  if (int32_t status = flushAll(services, devices, superblock.deviceCount, error)) return status;
  return writePages(services, devices, superblock.deviceCount, &superblock, error);
}

int32_t superblockOpen(const sm_services* services, sm_device* const* devices, uint32_t count, const char* type,
                       Superblock* out, sm_error* error) {
  if (count == 0 || count > kMaxDevices)
    return report(error, -EINVAL, "volume '%s' takes 1 to %u devices, %u were given", type, kMaxDevices, count);
  const PageMemory page = allocatePages(kPage);
  if (!page) return report(error, -ENOMEM, "no memory for a superblock");
  for (uint32_t i = 0; i < count; ++i) {
    if (devices[i]->bytes < kPage || devices[i]->block_size > kPage)
      return report(error, -EMEDIUMTYPE, "device '%s' holds no stratamap volume: %llu bytes in blocks of %u",
                    devices[i]->name, static_cast<Long>(devices[i]->bytes), devices[i]->block_size);
    if (int32_t status = mediumIo(services, devices[i], SM_OP_READ, 0, page.get(), kPage, error)) return status;
    memcpy(&out[i], page.get(), sizeof out[i]);
    if (int32_t status = checkOne(out[i], devices[i], type, error)) return status;
    if (int32_t status = checkPlace(out[i], out[0], devices, count, i, error)) return status;
  }
  return 0;
}

}  // namespace sm
