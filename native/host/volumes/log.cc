// `log`: log-structured. The devices are cut into segments, and a block of a disk is wherever it was written last:
// every write goes to the end of an open segment, so that nothing is overwritten where it is, and a segment is used
// again when nothing lives in it any more. A cleaner moves what still lives in old segments. What nobody wrote, or gave
// up by a discard or write-zeroes, takes no room and reads as zeroes. log_page.h says how the map is kept on the
// medium.
//
// Options at format: segmentSize (a power of two from 16 KiB to 16 MiB; default 1 MiB, less on small devices). At
// format, as the default, or at open: seed (of the order in which segments are used), issue (clone or fresh: how
// children are made) and clean (for tests: the cleaner moves so many blocks for 100 that are written, whether there is
// need or not).
#include <algorithm>
#include <cerrno>

#include "control.h"
#include "directory.h"
#include "log_io.h"
#include "options.h"
#include "registry.h"
#include "superblock.h"

namespace sm {
namespace {

constexpr const char* kType = "log";
constexpr uint64_t kMostClean = 1000;
enum Word { kSegmentBytes, kSeed, kIssue, kClean };  // of the superblock
constexpr uint32_t kChunk = 1 << 16;                 // blocks that are given up in one go on the I/O thread

using Long = unsigned long long;

struct Volume {
  const sm_services* services = nullptr;
  LogLayout layout{};
  Durability durability;
  Directory directory;
  LogMap map;
  std::unique_ptr<LogJournal> journal;
  std::unique_ptr<LogIo> io;
  std::vector<std::unique_ptr<LogDisk>> disks;  // one for each record of the directory

  LogDisk* find(uint32_t id) {
    for (auto& disk : disks)
      if (disk->id == id) return disk.get();
    return nullptr;
  }
  uint32_t blocksOf(uint64_t bytes) const { return static_cast<uint32_t>(bytes / layout.blockSize); }
};

Volume& volumeOf(void* volume) { return *static_cast<Volume*>(volume); }

int32_t checkSize(const Volume& volume, uint64_t bytes, sm_error* error) {
  const uint64_t most = volume.layout.usable() * volume.layout.blockSize;
  if (bytes <= most) return 0;
  return report(
      error, -EFBIG,
      "a disk of %llu bytes can never be held: the volume has room for %llu bytes in all; make it smaller, or format a "
      "volume on larger devices",
      Long(bytes), Long(most));
}

int32_t makeDisk(const Volume& volume, uint32_t id, uint64_t bytes, std::unique_ptr<LogDisk>* out, sm_error* error) {
  auto disk = std::make_unique<LogDisk>();
  disk->disk = disk.get();
  disk->io = volume.io.get();
  disk->id = id;
  disk->blocks = volume.blocksOf(bytes);
  if (!disk->cells.allocate(disk->blocks))
    return report(error, -ENOMEM, "no memory for the map of a disk of %llu bytes", Long(bytes));
  *out = std::move(disk);
  return 0;
}

int32_t commitAndWait(Volume& volume) {
  ControlCommit control;
  callHome(volume.services, [&] { volume.io->commit().join(&control); });
  waitHome(volume.services, volume.io->devices()[0], [&] { return control.done; });
  return control.status;
}

// Until released, nothing but requests changes the map.
void holdCleaner(Volume& volume) {
  callHome(volume.services, [&] { volume.io->cleaner().hold(true); });
  waitHome(volume.services, volume.io->devices()[0], [&] { return volume.io->cleaner().idle(); });
}

void releaseCleaner(Volume& volume) {
  callHome(volume.services, [&] {
    volume.io->cleaner().hold(false);
    volume.io->poke();
  });
}

// Gives up a disk's blocks from `from` on. What is on the medium about them is void by the directory already; the next
// commit leaves it out.
void clearBlocks(Volume& volume, LogDisk& disk, uint32_t from) {
  for (uint32_t at = from; at < disk.blocks;) {
    const uint32_t to = at + std::min(kChunk, disk.blocks - at);
    callHome(volume.services, [&] {
      volume.map.clear(disk, at, to);
      volume.journal->writeAll();
    });
    at = to;
  }
  callHome(volume.services, [&] { volume.io->poke(); });
}

int32_t format(const sm_services* services, sm_device* const* devices, uint32_t count, const sm_option* options,
               uint32_t optionCount, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    uint64_t segmentBytes = 0, seed = 1, issue = 0, clean = 0;
    const OptionSpec specs[] = {{"segmentSize", OptionSpec::kSize, &segmentBytes, kSmallestSegment, kLargestSegment},
                                {"seed", OptionSpec::kNumber, &seed},
                                {"issue", OptionSpec::kIssue, &issue},
                                {"clean", OptionSpec::kNumber, &clean, 0, kMostClean}};
    if (int32_t status = parseOptions(kType, options, optionCount, specs, 4, error)) return status;
    std::vector<uint64_t> bytes;
    uint32_t blockSize = 512;
    for (uint32_t i = 0; i < count; ++i) {
      bytes.push_back(devices[i]->bytes);
      blockSize = std::max(blockSize, devices[i]->block_size);
    }
    const LogLayout layout = logLayout(bytes.data(), count, blockSize, segmentBytes);
    if (count && blockSize <= kPage && layout.usable() == 0)
      return report(error, -ENOSPC,
                    "the devices hold %llu segments of %llu bytes beside the metadata, which is too few: give larger "
                    "devices, or a smaller segmentSize",
                    Long(layout.segments), Long(layout.segmentBytes));
    if (layout.segments * layout.segmentBytes / blockSize >= UINT32_MAX)
      return report(error, -EFBIG, "the devices hold too many blocks of %u bytes: give fewer, or smaller ones",
                    blockSize);
    Superblock superblock;
    if (int32_t status = superblockErase(services, devices, count, kType, &superblock, error)) return status;
    superblock.words[kSegmentBytes] = layout.segmentBytes;
    superblock.words[kSeed] = seed;
    superblock.words[kIssue] = issue;
    superblock.words[kClean] = clean;
    if (int32_t status = Directory::format(services, devices[0], superblock.uuid, error)) return status;
    if (int32_t status = LogJournal::format(services, devices[0], layout, superblock.uuid, error)) return status;
    return superblockWrite(services, devices, superblock, error);
  });
}

// One record of the map. What belongs to a disk deleted or shrunk counts for nothing any more; what belongs to a disk
// that is yet to be added, or could if the copy of the directory that was not read is the newer one, is no such
// left-over: that volume is not opened.
int32_t apply(Volume& volume, const sm_device* first, const LogRecord& record, sm_error* error) {
  const uint64_t end = uint64_t{record.first} + record.count;
  if (record.disk == 0 || record.count == 0 ||
      (record.place && uint64_t{record.place} - 1 + record.count > volume.map.segments().places()))
    return report(error, -EBADMSG,
                  "the map on device '%s' is whole but makes no sense: it was not written by this program; restore the "
                  "device from a backup, or format the volume anew",
                  first->name);
  LogDisk* disk = volume.find(record.disk);
  const uint32_t blocks = disk ? disk->blocks : 0;
  if (record.place && end > blocks &&
      (record.disk >= volume.directory.nextId() || (disk && volume.directory.copyUnread())))
    return report(error, -EBADMSG,
                  "block %u of disk %u is in use, but the list of disks on device '%s' does not know it: a newer copy "
                  "of the list is damaged or cannot be read; copy the device to a good one, or restore it from a "
                  "backup",
                  static_cast<uint32_t>(end - 1), record.disk, first->name);
  for (uint64_t block = record.first; block < std::min<uint64_t>(end, blocks); ++block)
    disk->cells.place.get()[block] = record.place ? record.place + static_cast<uint32_t>(block - record.first) : 0;
  return 0;
}

// When the last free segments were being written to, the rest of one of them is what the cleaner needs to go on.
void adoptHead(Volume& volume) {
  Segments& segments = volume.map.segments();
  if (segments.free() > kReserve) return;
  LogHead best{kNoSegment, segments.blocks()};
  for (uint32_t i = 0; i < segments.size(); ++i) {
    if (segments[i].state != SegmentState::kFull) continue;
    uint32_t used = segments.blocks(), slot, block;
    while (used > 0 && !volume.map.ownerOf(segments.firstOf(i) + used - 1, &slot, &block)) --used;
    if (used < best.used) best = {i, used};
  }
  if (best.segment == kNoSegment) return;
  segments.reopen(best.segment);
  volume.io->cleaner().adopt(best);
}

int32_t loadMap(Volume& volume, sm_device* const* devices, uint32_t count, uint64_t seed, sm_error* error) {
  const sm_services* services = volume.services;
  if (int32_t status = volume.journal->load(
          services, [&](const LogRecord& record) { return apply(volume, devices[0], record, error); }, error))
    return status;
  for (auto& disk : volume.disks)
    for (uint32_t block = 0; block < disk->blocks; ++block)
      if (disk->place(block) && !volume.map.load(*disk, block))
        return report(error, -EBADMSG,
                      "the map on device '%s' gives one place to two blocks: restore the device from a backup, or "
                      "format the volume anew",
                      devices[0]->name);
  // What was read may be in the kernel's memory alone, where a process ended: what is free by it is free only then.
  for (uint32_t i = 0; i < count; ++i)
    if (int32_t status = mediumFlush(services, devices[i], volume.durability, error)) return status;
  volume.map.segments().fillFree(seed);
  adoptHead(volume);
  return 0;
}

int32_t open(const sm_services* services, sm_device* const* devices, uint32_t count, const sm_option* options,
             uint32_t optionCount, void** out, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    std::vector<Superblock> superblocks(std::max(count, 1u));
    if (int32_t status = superblockOpen(services, devices, count, kType, superblocks.data(), error)) return status;
    const Superblock& first = superblocks[0];
    const uint64_t segmentBytes = first.words[kSegmentBytes];
    uint64_t seed = first.words[kSeed], issue = first.words[kIssue], clean = first.words[kClean];
    const bool sensible = segmentBytes >= kSmallestSegment && segmentBytes <= kLargestSegment &&
                          !(segmentBytes & (segmentBytes - 1)) && issue <= 1 && clean <= kMostClean &&
                          first.blockSize >= 512 && first.blockSize <= kPage &&
                          !(first.blockSize & (first.blockSize - 1));
    std::vector<uint64_t> bytes;
    for (uint32_t i = 0; i < count; ++i) bytes.push_back(superblocks[i].deviceBytes);
    auto volume = std::make_unique<Volume>();
    volume->services = services;
    if (sensible) volume->layout = logLayout(bytes.data(), count, first.blockSize, segmentBytes);
    if (!sensible || volume->layout.usable() == 0 ||
        volume->layout.segments * segmentBytes / first.blockSize >= UINT32_MAX)
      return report(error, -EBADMSG,
                    "the superblock of device '%s' is whole but makes no sense (segments of %llu bytes)",
                    devices[0]->name, Long(segmentBytes));
    uint32_t blockSize = 512;
    for (uint32_t i = 0; i < count; ++i) blockSize = std::max(blockSize, devices[i]->block_size);
    if (blockSize != first.blockSize)
      return report(error, -EINVAL,
                    "the devices have blocks of %u bytes, the volume places blocks of %u, as they had when it was "
                    "formatted: attach them with that block size",
                    blockSize, first.blockSize);
    const OptionSpec specs[] = {{"segmentSize", OptionSpec::kSize, nullptr, 0, 0,
                                 "it is fixed when the volume is formatted: leave it out here"},
                                {"seed", OptionSpec::kNumber, &seed},
                                {"issue", OptionSpec::kIssue, &issue},
                                {"clean", OptionSpec::kNumber, &clean, 0, kMostClean}};
    if (int32_t status = parseOptions(kType, options, optionCount, specs, 4, error)) return status;
    if (int32_t status =
            volume->directory.load(services, devices[0], first.uuid, first.blockSize, volume->durability, error))
      return status;
    if (!volume->map.init(devices, volume->layout))
      return report(error, -ENOMEM, "no memory for the map of a volume of %llu blocks",
                    Long(volume->layout.segments * volume->layout.segmentBlocks()));
    volume->journal = std::make_unique<LogJournal>(volume->map, devices[0], volume->layout, first.uuid);
    volume->io = std::make_unique<LogIo>(services, devices, count, static_cast<Issue>(issue), clean, volume->layout,
                                         volume->map, *volume->journal, volume->durability);
    for (const DiskRecord& record : volume->directory.disks()) {
      if (int32_t status = checkSize(*volume, record.bytes, error)) return status;
      if (int32_t status = makeDisk(*volume, record.id, record.bytes, &volume->disks.emplace_back(), error))
        return status;
      volume->map.add(*volume->disks.back());
    }
    if (int32_t status = loadMap(*volume, devices, count, seed, error)) return status;
    *out = volume.release();
    return 0;
  });
}

int32_t close(void* handle, sm_error* error) {
  const std::unique_ptr<Volume> volume(&volumeOf(handle));
  LogIo& io = *volume->io;
  holdCleaner(*volume);
  bool due = false;  // also while a commit runs that nobody waits for: who asked for it may be done by now
  callHome(volume->services, [&] { due = volume->journal->dirty() || io.commit().running(); });
  const int32_t status = due ? commitAndWait(*volume) : 0;
  waitHome(volume->services, io.devices()[0], [&] { return io.idle() && !io.commit().running(); });
  if (status == 0) return volume->durability.check(error);
  return report(error, status, "the volume's metadata could not be made durable: %s; what was flushed before is safe",
                strerror(-status));
}

int32_t diskCreate(void* handle, const char* vm, const char* name, uint64_t bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    if (int32_t status = volume.directory.checkNew(vm, name, bytes, error)) return status;
    if (int32_t status = checkSize(volume, bytes, error)) return status;
    std::unique_ptr<LogDisk> disk;
    if (int32_t status = makeDisk(volume, 0, bytes, &disk, error)) return status;
    volume.disks.reserve(volume.disks.size() + 1);
    if (int32_t status = volume.directory.add(vm, name, bytes, 0, &disk->id, error)) return status;
    callHome(volume.services, [&] { volume.map.add(*disk); });
    volume.disks.push_back(std::move(disk));
    return 0;
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
  *disk = static_cast<LogTarget*>(volume.find(record->id));
  *bytes = record->bytes;
  return 0;
}

void diskClose(void*, void*) {}

int32_t diskDelete(void* handle, const char* vm, const char* name, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    const DiskRecord* record = volume.directory.find(vm, name, error);
    if (!record) return -ENOENT;
    LogDisk* disk = volume.find(record->id);
    if (int32_t status = volume.directory.remove(disk->id, error)) return status;
    clearBlocks(volume, *disk, 0);
    callHome(volume.services, [&] { volume.map.remove(*disk); });
    std::erase_if(volume.disks, [disk](const auto& each) { return each.get() == disk; });
    return 0;
  });
}

// Before blocks behind the end become visible, the medium says nothing about them any more.
int32_t grow(Volume& volume, LogDisk& disk, uint64_t bytes, sm_error* error) {
  const uint32_t blocks = volume.blocksOf(bytes);
  LogDisk::Cells cells;
  const bool larger = blocks > disk.cells.count;
  if (larger && !cells.allocate(blocks))
    return report(error, -ENOMEM, "no memory for the map of a disk of %llu bytes", Long(bytes));
  if (int32_t status = commitAndWait(volume))
    return report(error, status, "the volume's metadata could not be made durable: %s", strerror(-status));
  if (int32_t status = volume.directory.resize(disk.id, bytes, error)) return status;
  holdCleaner(volume);
  if (larger) std::copy_n(disk.cells.place.get(), disk.blocks, cells.place.get());
  callHome(volume.services, [&] {
    if (larger) volume.map.grow(disk, cells);
    disk.blocks = blocks;
  });
  releaseCleaner(volume);
  return 0;
}

int32_t diskResize(void* handle, void* diskHandle, uint64_t bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    LogDisk& disk = *static_cast<LogTarget*>(diskHandle)->disk;
    const uint32_t blocks = volume.blocksOf(bytes);
    if (blocks == disk.blocks && bytes % volume.layout.blockSize == 0) return 0;
    if (int32_t status = checkSize(volume, bytes, error)) return status;
    if (blocks > disk.blocks) return grow(volume, disk, bytes, error);
    if (int32_t status = volume.directory.resize(disk.id, bytes, error)) return status;
    clearBlocks(volume, disk, blocks);
    callHome(volume.services, [&] { disk.blocks = blocks; });
    return 0;
  });
}

void submit(void* volume, void* disk, sm_request* request) { volumeOf(volume).io->start(disk, request); }

}  // namespace

const sm_volume_ops logOps = {SM_CONTRACT_VERSION,
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
