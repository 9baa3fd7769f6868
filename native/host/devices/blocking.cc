#include "devices/blocking.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "devices/check.h"

namespace sm {

namespace {

int32_t writeAll(const OpenFile& file, const void* data, uint64_t length, uint64_t offset) {
  while (length > 0) {
    const ssize_t moved = pwrite(file.fd, data, length, offset);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return moved < 0 ? -errno : -EIO;
    data = static_cast<const char*>(data) + moved;
    length -= moved;
    offset += moved;
  }
  return 0;
}

// Reads and writes: whole, whatever the kernel does at once.
int32_t transfer(const OpenFile& file, const sm_request& request, const Scratch& scratch) {
  const bool write = request.op == SM_OP_WRITE;
  const bool bounce = !file.aligned(request);
  const int flags = write && (request.flags & SM_FLAG_FUA) ? RWF_DSYNC : 0;
  if (bounce && write) gather(request, 0, request.length, scratch.data());
  for (uint64_t done = 0; done < request.length;) {
    iovec parts[SM_IOV_MAX];
    int count = 0;
    if (bounce) {
      parts[count++] = {static_cast<char*>(scratch.data()) + done, request.length - done};
    } else {
      eachPiece(request, done, request.length - done, [&](char* data, uint64_t bytes) {
        parts[count++] = {data, bytes};
      });
    }
    const off_t offset = request.offset + done;
    const ssize_t moved =
        write ? pwritev2(file.fd, parts, count, offset, flags) : preadv2(file.fd, parts, count, offset, flags);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return -errno;
    const uint64_t kept = moved & ~file.lengthMask;  // direct I/O goes on at a block
    if (kept == 0) return -EIO;                      // the medium ended
    done += kept;
  }
  if (bounce && !write) scatter(request, 0, request.length, scratch.data());
  return 0;
}

int32_t discard(const OpenFile& file, const sm_request& request) {
  if (!file.blockDevice) {  // what is discarded reads as zeroes: there is no doing nothing
    const int flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return fallocate(file.fd, flags, request.offset, request.length) == 0 ? 0 : -errno;
  }
  uint64_t range[2] = {request.offset, request.length};
  return ioctl(file.fd, BLKDISCARD, range) == 0 || errno == EOPNOTSUPP ? 0 : -errno;
}

int32_t writeZeroes(const OpenFile& file, const sm_request& request, const Scratch& scratch) {
  uint64_t range[2] = {request.offset, request.length};
  int result;
  if (file.blockDevice) {
    result = ioctl(file.fd, BLKZEROOUT, range);
  } else {
    result = fallocate(file.fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, request.offset, request.length);
    if (result != 0 && errno == EOPNOTSUPP) {
      result = fallocate(file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, request.offset, request.length);
    }
  }
  if (result == 0) return 0;
  if (errno != EOPNOTSUPP) return -errno;
  std::memset(scratch.data(), 0, std::min<uint64_t>(request.length, kDeviceMaxTransfer));
  for (uint64_t done = 0; done < request.length;) {
    const uint64_t step = std::min<uint64_t>(request.length - done, kDeviceMaxTransfer);
    if (const int32_t error = writeAll(file, scratch.data(), step, request.offset + done)) return error;
    done += step;
  }
  return 0;
}

int32_t flush(const OpenFile& file) { return fdatasync(file.fd) == 0 ? 0 : -errno; }

}  // namespace

Scratch::Scratch() {
  data_ = mmap(nullptr, kDeviceMaxTransfer, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data_ == MAP_FAILED) throw std::bad_alloc();
}

Scratch::~Scratch() { munmap(data_, kDeviceMaxTransfer); }

int32_t execute(const OpenFile& file, const sm_request& request, const Scratch& scratch) {
  switch (request.op) {
    case SM_OP_READ:
    case SM_OP_WRITE:
      return transfer(file, request, scratch);
    case SM_OP_FLUSH:
      return flush(file);
    case SM_OP_DISCARD:
      return discard(file, request);
    case SM_OP_WRITE_ZEROES: {
      const int32_t status = writeZeroes(file, request, scratch);
      return status == 0 && (request.flags & SM_FLAG_FUA) ? flush(file) : status;
    }
    default:
      return -EINVAL;
  }
}

}  // namespace sm
