// What the system says about a file that data may live on: a block device or a regular file.
#pragma once

#include <cstdint>

namespace sm {

enum class BlockKind { kBlockDevice, kRegularFile, kOther };

// By stat(2), without opening. Returns 0 or a negative errno.
int blockKind(const char* path, BlockKind* out);

struct BlockFacts {
  BlockKind kind = BlockKind::kOther;
  uint64_t bytes = 0;
  uint32_t blockSize = 512;  // bytes: the logical block of a device; 512 for a file
  bool readOnly = false;     // the device refuses writes
  bool discard = false;      // a device: its queue takes discards; a file: its file system takes holes, for all we know
  bool direct = false;       // O_DIRECT can work at all
  uint32_t memoryAlign = 512;  // bytes: what O_DIRECT asks of a buffer's address
  uint32_t offsetAlign = 512;  // bytes: what it asks of offsets, and of each segment's length
};

// By statx (STATX_DIOALIGN, Linux 6.1), BLKGETSIZE64, BLKSSZGET, BLKROGET, and sysfs; where the kernel does not say how
// O_DIRECT wants its buffers, the logical block size of the medium, or 4096. Returns 0 or a negative errno.
int blockFacts(int fd, BlockFacts* out);

}  // namespace sm
