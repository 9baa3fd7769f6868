#include "sys/block.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <string>

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x00002000U
#endif

namespace sm {

namespace {

BlockKind kindOf(mode_t mode) {
  if (S_ISBLK(mode)) return BlockKind::kBlockDevice;
  return S_ISREG(mode) ? BlockKind::kRegularFile : BlockKind::kOther;
}

// A number of a block device's queue; a partition's queue is its parent's. `otherwise` where sysfs does not say.
uint64_t queueNumber(dev_t device, const char* name, uint64_t otherwise) {
  const std::string folder = "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  for (const char* queue : {"/queue/", "/../queue/"}) {
    uint64_t value;
    if (std::ifstream(folder + queue + name) >> value) return value;
  }
  return otherwise;
}

// The kernel's struct statx as far as Linux 6.1 defines it: the C library's may be older.
struct DirectAlign {
  uint32_t memory = 0, offset = 0;  // 0: O_DIRECT is not supported
};

bool directAlign(int fd, DirectAlign* out) {
  struct {
    uint32_t mask;
    uint8_t before[148];  // up to stx_dio_mem_align at byte 152
    uint32_t memory, offset;
    uint8_t after[96];
  } raw{};
  static_assert(sizeof(raw) == 256);
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &raw) != 0 || !(raw.mask & STATX_DIOALIGN))
    return false;
  *out = {raw.memory, raw.offset};
  return true;
}

}  // namespace

int blockKind(const char* path, BlockKind* out) {
  struct stat st;
  if (stat(path, &st) != 0) return -errno;
  *out = kindOf(st.st_mode);
  return 0;
}

int blockFacts(int fd, BlockFacts* out) {
  struct stat st;
  if (fstat(fd, &st) != 0) return -errno;
  BlockFacts facts;
  facts.kind = kindOf(st.st_mode);
  uint32_t medium;  // logical block size below
  if (facts.kind == BlockKind::kBlockDevice) {
    int blockSize = 0, readOnly = 0;
    if (ioctl(fd, BLKGETSIZE64, &facts.bytes) != 0 || ioctl(fd, BLKSSZGET, &blockSize) != 0) return -errno;
    if (ioctl(fd, BLKROGET, &readOnly) != 0) return -errno;
    facts.blockSize = medium = blockSize;
    facts.readOnly = readOnly != 0;
    facts.discard = queueNumber(st.st_rdev, "discard_max_bytes", 0) > 0;
  } else {
    facts.bytes = st.st_size;
    facts.discard = facts.kind == BlockKind::kRegularFile;
    medium = queueNumber(st.st_dev, "logical_block_size", 4096);
  }
  DirectAlign align{medium, medium};
  directAlign(fd, &align);
  facts.direct = align.offset != 0;
  if (facts.direct) {
    facts.memoryAlign = std::max(align.memory, 1u);
    facts.offsetAlign = align.offset;
  }
  *out = facts;
  return 0;
}

}  // namespace sm
