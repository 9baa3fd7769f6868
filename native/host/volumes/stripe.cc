// `stripe`: chunks in turn over two or more devices. A disk is a contiguous range of rows, a row being one chunk on
// each device; the first range that is large enough is taken.
//
// Options at format: chunkSize (a power of two from 4 KiB to 16 MiB; default 64 KiB). At format, as the default, or at
// open: issue (clone or fresh: how children are made).
//
// A discard becomes write-zeroes: a disk's discarded bytes read as zeroes, which a device does not promise of its own.
#include <algorithm>
#include <cerrno>
#include <memory>

#include "control.h"
#include "directory.h"
#include "medium.h"
#include "options.h"
#include "registry.h"
#include "stripe_io.h"
#include "superblock.h"

namespace sm {
namespace {

constexpr const char* kType = "stripe";
constexpr uint64_t kSmallest = 4096, kLargest = 16 << 20, kDefault = 64 << 10;
constexpr uint64_t kAlignment = 1 << 20;  // bytes: larger chunks are aligned to this
enum Word { kChunkBytes, kIssue };        // of the superblock

using Long = unsigned long long;

struct Volume {
  const sm_services* services = nullptr;
  StripeLayout layout{};
  Durability durability;
  Directory directory;
  std::unique_ptr<StripeIo> io;
  std::vector<std::unique_ptr<StripeDisk>> open;

  const std::vector<sm_device*>& devices() const { return io->devices(); }
};

Volume& volumeOf(void* volume) { return *static_cast<Volume*>(volume); }

// `smallest` is the size of the smallest device.
StripeLayout makeLayout(uint64_t smallest, uint64_t chunkBytes, uint32_t devices) {
  StripeLayout layout{chunkBytes, roundUp(kTypeAt, std::min(chunkBytes, kAlignment)), 0, devices};
  layout.rows = smallest > layout.dataAt ? (smallest - layout.dataAt) / chunkBytes : 0;
  return layout;
}

// The rows of every disk, from the first to behind the last, in order.
std::vector<std::pair<uint64_t, uint64_t>> takenRows(const Volume& volume) {
  std::vector<std::pair<uint64_t, uint64_t>> taken;
  for (const DiskRecord& disk : volume.directory.disks())
    taken.emplace_back(disk.words[0], disk.words[0] + volume.layout.rowsOf(disk.bytes));
  std::sort(taken.begin(), taken.end());
  return taken;
}

int32_t format(const sm_services* services, sm_device* const* devices, uint32_t count, const sm_option* options,
               uint32_t optionCount, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    uint64_t chunkBytes = kDefault, issue = 0;
    const OptionSpec specs[] = {{"chunkSize", OptionSpec::kSize, &chunkBytes, kSmallest, kLargest},
                                {"issue", OptionSpec::kIssue, &issue}};
    if (int32_t status = parseOptions(kType, options, optionCount, specs, 2, error)) return status;
    if (count < 2) return report(error, -EINVAL, "volume 'stripe' takes 2 or more devices, %u given", count);
    uint64_t smallest = UINT64_MAX;
    for (uint32_t i = 0; i < count; ++i) smallest = std::min(smallest, devices[i]->bytes);
    if (makeLayout(smallest, chunkBytes, count).rows == 0)
      return report(
          error, -ENOSPC,
          "the smallest device holds not one chunk of %llu bytes beside the metadata: give larger devices, or a "
          "smaller chunkSize",
          Long(chunkBytes));
    Superblock superblock;
    if (int32_t status = superblockErase(services, devices, count, kType, &superblock, error)) return status;
    superblock.words[kChunkBytes] = chunkBytes;
    superblock.words[kIssue] = issue;
    if (int32_t status = Directory::format(services, devices[0], superblock.uuid, error)) return status;
    return superblockWrite(services, devices, superblock, error);
  });
}

int32_t open(const sm_services* services, sm_device* const* devices, uint32_t count, const sm_option* options,
             uint32_t optionCount, void** out, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    std::vector<Superblock> superblocks(std::max(count, 1u));
    if (int32_t status = superblockOpen(services, devices, count, kType, superblocks.data(), error)) return status;
    const uint64_t chunkBytes = superblocks[0].words[kChunkBytes];
    uint64_t issue = superblocks[0].words[kIssue];
    if (chunkBytes < kSmallest || chunkBytes > kLargest || (chunkBytes & (chunkBytes - 1)) || issue > 1)
      return report(error, -EBADMSG, "the superblock of device '%s' is whole but makes no sense (chunks of %llu bytes)",
                    devices[0]->name, Long(chunkBytes));
    const OptionSpec specs[] = {
        {"chunkSize", OptionSpec::kSize, nullptr, 0, 0, "it is fixed when the volume is formatted: leave it out here"},
        {"issue", OptionSpec::kIssue, &issue}};
    if (int32_t status = parseOptions(kType, options, optionCount, specs, 2, error)) return status;
    uint64_t smallest = UINT64_MAX;
    for (const Superblock& superblock : superblocks) smallest = std::min(smallest, superblock.deviceBytes);
    auto volume = std::make_unique<Volume>();
    volume->services = services;
    volume->layout = makeLayout(smallest, chunkBytes, count);
    if (int32_t status = volume->directory.load(services, devices[0], superblocks[0].uuid, superblocks[0].blockSize,
                                                volume->durability, error))
      return status;
    for (const DiskRecord& record : volume->directory.disks())
      if (record.words[0] > volume->layout.rows ||
          volume->layout.rowsOf(record.bytes) > volume->layout.rows - record.words[0])
        return report(error, -EBADMSG,
                      "the directory on device '%s' is whole but disk '%s' of '%s' lies outside the volume",
                      devices[0]->name, record.name, record.vm);
    const auto taken = takenRows(*volume);
    for (size_t i = 1; i < taken.size(); ++i)
      if (taken[i].first < taken[i - 1].second)
        return report(error, -EBADMSG,
                      "the directory on device '%s' is whole but two disks share row %llu: it was not written by this "
                      "program; restore the device from a backup, or format the volume anew",
                      devices[0]->name, Long(taken[i].first));
    volume->io =
        std::make_unique<StripeIo>(services, devices, static_cast<Issue>(issue), volume->layout, volume->durability);
    *out = volume.release();
    return 0;
  });
}

// All metadata is durable whenever an entry returns 0.
int32_t close(void* handle, sm_error* error) {
  const std::unique_ptr<Volume> volume(&volumeOf(handle));
  waitHome(volume->services, volume->devices()[0], [&] { return volume->io->idle(); });
  return volume->durability.check(error);
}

// The first row of the first gap of `rows` rows, as if disk `without` were not there; or -1, and the largest gap.
int64_t findGap(const Volume& volume, uint64_t rows, uint64_t* largest) {
  auto taken = takenRows(volume);
  taken.emplace_back(volume.layout.rows, volume.layout.rows);
  uint64_t at = 0;
  *largest = 0;
  for (const auto& [from, to] : taken) {
    if (from >= at && from - at >= rows) return static_cast<int64_t>(at);
    if (from > at) *largest = std::max(*largest, from - at);
    at = std::max(at, to);
  }
  return -1;
}

// Makes bytes `from` to the end of the last row before `to` of a disk zeroes, durably.
int32_t zero(Volume& volume, uint64_t firstRow, uint64_t from, uint64_t to, sm_error* error) {
  const StripeLayout& layout = volume.layout;
  const uint64_t wholeRow = layout.rowsOf(from), endRow = layout.rowsOf(to);
  while (from < wholeRow * layout.rowBytes()) {
    const StripeLayout::Place place = layout.find(firstRow, from);
    if (int32_t status = mediumIo(volume.services, volume.devices()[place.device], SM_OP_WRITE_ZEROES, place.offset,
                                  nullptr, place.span, error))
      return status;
    from += place.span;
  }
  for (sm_device* device : volume.devices()) {
    const uint64_t at = layout.dataAt + (firstRow + wholeRow) * layout.chunkBytes;
    if (wholeRow < endRow)
      if (int32_t status = mediumIo(volume.services, device, SM_OP_WRITE_ZEROES, at, nullptr,
                                    (endRow - wholeRow) * layout.chunkBytes, error))
        return status;
    if (int32_t status = mediumFlush(volume.services, device, volume.durability, error)) return status;
  }
  return 0;
}

int32_t checkSize(const Volume& volume, uint64_t bytes, sm_error* error) {
  if (volume.layout.rowsOf(bytes) <= volume.layout.rows) return 0;
  return report(
      error, -EFBIG,
      "a disk of %llu bytes can never be held: the volume has %llu bytes in all; make it smaller, or format a "
      "volume on larger devices",
      Long(bytes), Long(volume.layout.rows * volume.layout.rowBytes()));
}

int32_t diskCreate(void* handle, const char* vm, const char* name, uint64_t bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    if (int32_t status = volume.directory.checkNew(vm, name, bytes, error)) return status;
    if (int32_t status = checkSize(volume, bytes, error)) return status;
    uint64_t largest = 0;
    const int64_t row = findGap(volume, volume.layout.rowsOf(bytes), &largest);
    if (row < 0)
      return report(error, -ENOSPC,
                    "no room for a disk of %llu bytes: the largest gap has %llu; delete a disk, or make it smaller",
                    Long(bytes), Long(largest * volume.layout.rowBytes()));
    if (int32_t status = zero(volume, static_cast<uint64_t>(row), 0, bytes, error)) return status;
    uint32_t id = 0;
    return volume.directory.add(vm, name, bytes, static_cast<uint64_t>(row), &id, error);
  });
}

int32_t diskList(void* handle, void (*each)(void* context, const sm_disk_info* info), void* context, sm_error*) {
  volumeOf(handle).directory.list(each, context);
  return 0;
}

int32_t diskOpen(void* handle, const char* vm, const char* name, void** disk, uint64_t* bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    const DiskRecord* record = volume.directory.find(vm, name, error);
    if (!record) return -ENOENT;
    volume.open.push_back(std::make_unique<StripeDisk>(StripeDisk{record->id, record->words[0]}));
    *disk = volume.open.back().get();
    *bytes = record->bytes;
    return 0;
  });
}

void diskClose(void* handle, void* disk) {
  std::erase_if(volumeOf(handle).open, [disk](const auto& each) { return each.get() == disk; });
}

int32_t diskDelete(void* handle, const char* vm, const char* name, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    const DiskRecord* record = volume.directory.find(vm, name, error);
    if (!record) return -ENOENT;
    return volume.directory.remove(record->id, error);
  });
}

int32_t diskResize(void* handle, void* diskHandle, uint64_t bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    const DiskRecord& record = *volume.directory.find(static_cast<StripeDisk*>(diskHandle)->id);
    if (bytes == record.bytes) return 0;
    if (int32_t status = checkSize(volume, bytes, error)) return status;
    if (bytes > record.bytes) {
      const uint64_t row = record.words[0], rows = volume.layout.rowsOf(bytes);
      uint64_t end = volume.layout.rows;  // of the gap that the disk begins
      for (const DiskRecord& other : volume.directory.disks())
        if (other.words[0] > row) end = std::min(end, other.words[0]);
      if (end - row < rows)
        return report(
            error, -ENOSPC,
            "disk '%s' of '%s' cannot grow to %llu bytes where it lies: there is room for %llu; delete the disk "
            "behind it, or copy it to a new one",
            record.name, record.vm, Long(bytes), Long((end - row) * volume.layout.rowBytes()));
      if (int32_t status = zero(volume, row, record.bytes, bytes, error)) return status;
    }
    return volume.directory.resize(record.id, bytes, error);
  });
}

void submit(void* volume, void* disk, sm_request* request) { volumeOf(volume).io->start(disk, request); }

}  // namespace

const sm_volume_ops stripeOps = {SM_CONTRACT_VERSION,
                                 sizeof(sm_volume_ops),
                                 kType,
                                 format,
                                 open,
                                 close,
                                 diskCreate,
                                 diskList,
                                 diskOpen,
                                 diskClose,
                                 diskDelete,
                                 diskResize,
                                 submit};

}  // namespace sm
