// `extent`: thin provisioning. The extents of all devices are one pool; a disk's extent is allocated by the first write
// to it, from a shuffled list, and given back by a discard of all of it.
//
// Options at format: extentSize (a power of two from 4 KiB to 16 MiB; default 64 KiB). At format, as the default, or at
// open: seed (of the shuffle) and issue (clone or fresh: how children are made).
//
// Until the next flush a discarded extent reads as the device left it or as zeroes after a crash: a discard is passed
// on to the device at once.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "control.h"
#include "directory.h"
#include "extent_io.h"
#include "extent_table.h"
#include "options.h"
#include "registry.h"
#include "superblock.h"

namespace sm {
namespace {

constexpr const char* kType = "extent";
constexpr uint64_t kSmallest = 4096, kLargest = 16 << 20, kDefault = 64 << 10;
enum Word { kExtentBytes, kSeed, kIssue };  // of the superblock
constexpr uint32_t kChunk = 1 << 16;        // extents that are given up in one go on the I/O thread

using Long = unsigned long long;

struct Disk : ExtentDisk {
  Disk() { cells = nullptr; }
  ~Disk() { free(cells); }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
};

struct Volume {
  const sm_services* services = nullptr;
  uint64_t extentBytes = 0;
  Durability durability;
  Directory directory;
  ExtentTable table;
  std::unique_ptr<ExtentIo> io;
  std::vector<std::unique_ptr<Disk>> disks;  // one for each record of the directory

  uint64_t extentsOf(uint64_t bytes) const { return bytes / extentBytes + (bytes % extentBytes != 0); }
  Disk* find(uint32_t id) {
    for (auto& disk : disks)
      if (disk->id == id) return disk.get();
    return nullptr;
  }
};

Volume& volumeOf(void* volume) { return *static_cast<Volume*>(volume); }

// Cells that say nothing; memory that is never used is never touched.
uint32_t* allocateCells(uint64_t count) { return static_cast<uint32_t*>(calloc(count, sizeof(uint32_t))); }

int32_t addDisk(Volume& volume, uint32_t id, uint64_t bytes, sm_error* error) {
  auto disk = std::make_unique<Disk>();
  disk->io = volume.io.get();
  disk->id = id;
  disk->bytes = bytes;
  disk->cellCount = static_cast<uint32_t>(volume.extentsOf(bytes));
  disk->cells = allocateCells(disk->cellCount);
  if (!disk->cells) return report(error, -ENOMEM, "no memory for the map of a disk of %llu bytes", Long(bytes));
  volume.disks.push_back(std::move(disk));
  return 0;
}

int32_t checkSize(const Volume& volume, uint64_t bytes, sm_error* error) {
  if (volume.extentsOf(bytes) <= volume.table.size()) return 0;
  return report(
      error, -EFBIG,
      "a disk of %llu bytes can never be held: the volume has %llu bytes in all; make it smaller, or format a "
      "volume on larger devices",
      Long(bytes), Long(volume.table.size() * volume.extentBytes));
}

// Makes everything durable that the I/O thread knows.
int32_t commitAndWait(Volume& volume) {
  ControlCommit control;
  callHome(volume.services, [&] { volume.io->commit().join(&control); });
  waitHome(volume.services, volume.io->devices()[0], [&] { return control.done; });
  return control.status;
}

void clearCells(Volume& volume, Disk& disk, uint32_t from) {
  for (uint32_t at = from; at < disk.cellCount;) {
    const uint32_t to = at + std::min(kChunk, disk.cellCount - at);
    callHome(volume.services, [&] { volume.io->clear(disk, at, to); });
    at = to;
  }
}

int32_t format(const sm_services* services, sm_device* const* devices, uint32_t count, const sm_option* options,
               uint32_t optionCount, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    uint64_t extentBytes = kDefault, seed = 1, issue = 0;
    const OptionSpec specs[] = {{"extentSize", OptionSpec::kSize, &extentBytes, kSmallest, kLargest},
                                {"seed", OptionSpec::kNumber, &seed},
                                {"issue", OptionSpec::kIssue, &issue}};
    if (int32_t status = parseOptions(kType, options, optionCount, specs, 3, error)) return status;
    uint64_t extents = 0;
    for (uint32_t i = 0; i < count; ++i) extents += extentLayout(devices[i]->bytes, extentBytes).extents;
    if (extents == 0)
      return report(
          error, -ENOSPC,
          "the devices hold not one extent of %llu bytes beside the metadata: give larger devices, or a smaller "
          "extentSize",
          Long(extentBytes));
    if (extents >= kBusyCell)
      return report(error, -EFBIG,
                    "the devices hold %llu extents of %llu bytes, which is too many: give a larger extentSize",
                    Long(extents), Long(extentBytes));
    Superblock superblock;
    if (int32_t status = superblockErase(services, devices, count, kType, &superblock, error)) return status;
    superblock.words[kExtentBytes] = extentBytes;
    superblock.words[kSeed] = seed;
    superblock.words[kIssue] = issue;
    if (int32_t status = Directory::format(services, devices[0], superblock.uuid, error)) return status;
    if (int32_t status = ExtentTable::format(services, devices, superblock, extentBytes, error)) return status;
    return superblockWrite(services, devices, superblock, error);
  });
}

// Fills the disks' cells from the table. Of two extents for one place the newer counts; what counts for nothing any
// more (after a crash, or of a disk deleted or shrunk) is given up, so that its entry is cleared before it is used.
// What belongs to a disk that is yet to be added, or could if the copy of the directory that was not read is the newer
// one, is no such left-over: that volume is not opened.
int32_t fillCells(Volume& volume, const sm_device* first, sm_error* error) {
  uint32_t lastId = 0;
  Disk* disk = nullptr;
  for (uint32_t i = 0; i < volume.table.size(); ++i) {
    Extent& extent = volume.table[i];
    if (extent.state != ExtentState::kDurable) continue;
    if (extent.disk != lastId) disk = volume.find(lastId = extent.disk);
    if (!disk || extent.index >= disk->cellCount) {
      if (extent.disk >= volume.directory.nextId() || (disk && volume.directory.copyUnread()))
        return report(error, -EBADMSG,
                      "extent %u of disk %u is in use, but the list of disks on device '%s' does not know it: a newer "
                      "copy of the list is damaged or cannot be read; copy the device to a good one, or restore it "
                      "from a backup",
                      extent.index, extent.disk, first->name);
      volume.table.giveUp(extent);
      continue;
    }
    uint32_t& cell = disk->cells[extent.index];
    if (!cell) {
      cell = i + 1;
    } else if (volume.table.sequenceOf(cell - 1) > volume.table.sequenceOf(i)) {
      volume.table.giveUp(extent);
    } else {
      volume.table.giveUp(volume.table[cell - 1]);
      cell = i + 1;
    }
  }
  return 0;
}

int32_t open(const sm_services* services, sm_device* const* devices, uint32_t count, const sm_option* options,
             uint32_t optionCount, void** out, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    std::vector<Superblock> superblocks(std::max(count, 1u));
    if (int32_t status = superblockOpen(services, devices, count, kType, superblocks.data(), error)) return status;
    const uint64_t* words = superblocks[0].words;
    const uint64_t extentBytes = words[kExtentBytes];
    uint64_t seed = words[kSeed], issue = words[kIssue];
    if (extentBytes < kSmallest || extentBytes > kLargest || (extentBytes & (extentBytes - 1)) || issue > 1)
      return report(error, -EBADMSG,
                    "the superblock of device '%s' is whole but makes no sense (extents of %llu bytes)",
                    devices[0]->name, Long(extentBytes));
    const OptionSpec specs[] = {
        {"extentSize", OptionSpec::kSize, nullptr, 0, 0, "it is fixed when the volume is formatted: leave it out here"},
        {"seed", OptionSpec::kNumber, &seed},
        {"issue", OptionSpec::kIssue, &issue}};
    if (int32_t status = parseOptions(kType, options, optionCount, specs, 3, error)) return status;
    auto volume = std::make_unique<Volume>();
    volume->services = services;
    volume->extentBytes = extentBytes;
    if (int32_t status = volume->directory.load(services, devices[0], superblocks[0].uuid, superblocks[0].blockSize,
                                                volume->durability, error))
      return status;
    if (int32_t status = volume->table.load(services, devices, superblocks.data(), extentBytes, error)) return status;
    volume->io = std::make_unique<ExtentIo>(services, devices, count, static_cast<Issue>(issue), extentBytes,
                                            volume->table, volume->durability);
    for (const DiskRecord& record : volume->directory.disks()) {
      if (int32_t status = checkSize(*volume, record.bytes, error)) return status;
      if (int32_t status = addDisk(*volume, record.id, record.bytes, error)) return status;
    }
    if (int32_t status = fillCells(*volume, devices[0], error)) return status;
    volume->table.fillFree(seed);
    *out = volume.release();
    return 0;
  });
}

int32_t close(void* handle, sm_error* error) {
  const std::unique_ptr<Volume> volume(&volumeOf(handle));
  Commit& commit = volume->io->commit();
  bool due = false;  // also while a commit runs that nobody waits for: who asked for it may be done by now
  callHome(volume->services, [&] { due = volume->table.dirty() || commit.running(); });
  const int32_t status = due ? commitAndWait(*volume) : 0;
  waitHome(volume->services, volume->io->devices()[0], [&] { return volume->io->idle() && !commit.running(); });
  if (status == 0) return volume->durability.check(error);
  return report(error, status, "the volume's metadata could not be made durable: %s; what was flushed before is safe",
                strerror(-status));
}

int32_t diskCreate(void* handle, const char* vm, const char* name, uint64_t bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    if (int32_t status = volume.directory.checkNew(vm, name, bytes, error)) return status;
    if (int32_t status = checkSize(volume, bytes, error)) return status;
    if (int32_t status = addDisk(volume, 0, bytes, error)) return status;
    const int32_t status = volume.directory.add(vm, name, bytes, 0, &volume.disks.back()->id, error);
    if (status) volume.disks.pop_back();
    return status;
  });
}

int32_t diskList(void* handle, void (*each)(void* context, const sm_disk_info* info), void* context, sm_error*) {
  volumeOf(handle).directory.list(each, context);
  return 0;
}

int32_t diskOpen(void* handle, const char* vm, const char* name, void** disk, uint64_t* bytes, sm_error* error) {
  Volume& volume = volumeOf(handle);
  const DiskRecord* record = volume.directory.find(vm, name, error);
  if (!record) return -ENOENT;
  *disk = static_cast<ExtentDisk*>(volume.find(record->id));
  *bytes = record->bytes;
  return 0;
}

void diskClose(void*, void*) {}

int32_t diskDelete(void* handle, const char* vm, const char* name, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    const DiskRecord* record = volume.directory.find(vm, name, error);
    if (!record) return -ENOENT;
    Disk* disk = volume.find(record->id);
    if (int32_t status = volume.directory.remove(disk->id, error)) return status;
    clearCells(volume, *disk, 0);
    std::erase_if(volume.disks, [disk](const auto& each) { return each.get() == disk; });
    return 0;
  });
}

// Before bytes behind the end become visible: the rest of the last extent is zeroed, and no entry for a place behind it
// is on the medium any more.
int32_t prepareGrowth(Volume& volume, const Disk& disk, sm_error* error) {
  const uint64_t within = disk.bytes % volume.extentBytes;
  const uint32_t cell = within ? disk.cells[disk.cellCount - 1] : 0;
  if (cell) {
    const Extent& extent = volume.table[cell - 1];
    const uint64_t at = volume.table.offsetOf(extent) + within;
    if (int32_t status = mediumIo(volume.services, volume.table.deviceOf(extent), SM_OP_WRITE_ZEROES, at, nullptr,
                                  volume.extentBytes - within, error))
      return status;
  }
  const int32_t status = commitAndWait(volume);
  if (status) return report(error, status, "the volume's metadata could not be made durable: %s", strerror(-status));
  return 0;
}

int32_t diskResize(void* handle, void* diskHandle, uint64_t bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    Disk& disk = *static_cast<Disk*>(static_cast<ExtentDisk*>(diskHandle));
    if (bytes == disk.bytes) return 0;
    if (int32_t status = checkSize(volume, bytes, error)) return status;
    const auto count = static_cast<uint32_t>(volume.extentsOf(bytes));
    if (bytes < disk.bytes) {
      if (int32_t status = volume.directory.resize(disk.id, bytes, error)) return status;
      clearCells(volume, disk, count);
      callHome(volume.services, [&] {
        disk.bytes = bytes;
        disk.cellCount = count;
      });
      return 0;
    }
    uint32_t* cells = allocateCells(count);
    if (!cells) return report(error, -ENOMEM, "no memory for the map of a disk of %llu bytes", Long(bytes));
    memcpy(cells, disk.cells, disk.cellCount * sizeof *cells);
    int32_t status = prepareGrowth(volume, disk, error);
    if (!status) status = volume.directory.resize(disk.id, bytes, error);
    if (!status)
      callHome(volume.services, [&] {
        std::swap(cells, disk.cells);
        disk.bytes = bytes;
        disk.cellCount = count;
      });
    free(cells);
    return status;
  });
}

void submit(void* volume, void* disk, sm_request* request) { volumeOf(volume).io->start(disk, request); }

}  // namespace

const sm_volume_ops extentOps = {SM_CONTRACT_VERSION,
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
