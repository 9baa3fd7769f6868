#include "devices/open.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "sys/block.h"

namespace sm {

Failure openFailure(const DeviceSpec& spec, int error, const char* code, const std::string& found) {
  Failure failure = failed(error, "device", "open " + spec.path + " as device '" + spec.name + "': " + found, code);
  failure.device = spec.name;
  return failure;
}

namespace {

Failure busy(const DeviceSpec& spec, const char* who) {
  return openFailure(spec, EBUSY, "ERR_STRATAMAP_BUSY",
                     std::string("it is in use: ") + who +
                         "; close that, or open it with shared: true, and then nothing on " +
                         "it is ever taken for certain");
}

Failure openFailed(const DeviceSpec& spec, int error) {
  std::string found = std::strerror(error);
  if (error == EACCES || error == EROFS || error == EPERM)
    found += "; is it read-only, or root's alone? See readOnly: true";
  return openFailure(spec, error, nullptr, found);
}

// Holes can be punched: asked beyond the file's end, where nothing is.
bool takesHoles(int fd, uint64_t bytes, uint32_t block) {
  return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (bytes + block - 1) / block * block, block) == 0;
}

Failure describe(const DeviceSpec& spec, bool direct, OpenFile* file, DeviceFacts* facts) {
  BlockFacts found;
  if (const int error = blockFacts(file->fd, &found)) return openFailed(spec, -error);
  if (found.kind == BlockKind::kOther)
    return openFailure(spec, ENOTBLK, "ERR_STRATAMAP_NOT_A_DEVICE", "it changed its kind");
  if (found.readOnly && !spec.readOnly) return openFailed(spec, EROFS);
  file->blockDevice = found.kind == BlockKind::kBlockDevice;
  struct statfs system;
  file->inMemory = !file->blockDevice && fstatfs(file->fd, &system) == 0 && system.f_type == TMPFS_MAGIC;
  direct = direct && found.direct;
  facts->blockSize = found.blockSize;
  if (direct) {
    facts->blockSize = std::max(facts->blockSize, found.offsetAlign);
    file->memoryMask = found.memoryAlign - 1;
    file->lengthMask = found.offsetAlign - 1;
  }
  facts->direct = direct;
  facts->bytes = found.bytes / facts->blockSize * facts->blockSize;
  facts->discard =
      !spec.readOnly && found.discard && (file->blockDevice || takesHoles(file->fd, found.bytes, facts->blockSize));
  facts->discardZeroes = facts->discard && !file->blockDevice;  // a hole
  if (facts->bytes == 0)
    return openFailure(spec, EINVAL, "ERR_STRATAMAP_SIZE", "it holds not one block; give it a size first");
  if (facts->bytes != found.bytes) {
    facts->notices.push_back("device '" + spec.name + "': " + std::to_string(found.bytes - facts->bytes) +
                             " bytes at the end of " + spec.path + " are less than a block and are left alone");
  }
  return {};
}

}  // namespace

OwnedFd::~OwnedFd() { close(fd_); }

Failure openFile(const DeviceSpec& spec, OpenFile* file, DeviceFacts* facts) {
  *file = {};
  *facts = {.name = spec.name, .path = spec.path, .shared = spec.shared, .readOnly = spec.readOnly};
  BlockKind kind;
  if (const int error = blockKind(spec.path.c_str(), &kind)) return openFailed(spec, -error);
  if (kind == BlockKind::kOther) {
    return openFailure(spec, ENOTBLK, "ERR_STRATAMAP_NOT_A_DEVICE",
                       "it is neither a block device nor a regular file; give the path of one");
  }
  const bool exclusive = !spec.shared;
  int flags = (spec.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  if (kind == BlockKind::kBlockDevice && exclusive) flags |= O_EXCL;
  bool direct = spec.direct;
  file->fd = open(spec.path.c_str(), flags | (direct ? O_DIRECT : 0));
  if (file->fd < 0 && direct && errno == EINVAL) {
    direct = false;
    file->fd = open(spec.path.c_str(), flags);
  }
  if (file->fd < 0) {
    return errno == EBUSY ? busy(spec, "it is mounted, or another program holds it exclusively")
                          : openFailed(spec, errno);
  }
  // No time of access: it costs each read some 60 ns. Others than the owner are refused it, and go on without.
  if (const int now = fcntl(file->fd, F_GETFL); now >= 0) fcntl(file->fd, F_SETFL, now | O_NOATIME);
  Failure failed;
  if (kind == BlockKind::kRegularFile && exclusive && flock(file->fd, LOCK_EX | LOCK_NB) != 0) {
    failed = errno == EWOULDBLOCK ? busy(spec, "another program has locked it") : openFailed(spec, errno);
  } else {
    failed = describe(spec, direct, file, facts);
  }
  if (failed) {
    close(std::exchange(file->fd, -1));
    return failed;
  }
  if (spec.direct && !facts->direct) {
    facts->notices.push_back("device '" + spec.name + "': " + spec.path +
                             " does not take O_DIRECT: its I/O goes through the page cache");
  }
  return {};
}

}  // namespace sm
