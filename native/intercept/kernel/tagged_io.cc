#include "intercept/kernel/tagged_io.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sys/ring.h"

namespace sm {

namespace {

constexpr int kWhoProcess = 1;  // IOPRIO_WHO_PROCESS: the calling thread, by 0

// Transfers `length` bytes with an I/O priority; 0 or a negative errno.
template <class Transfer>
int withPriority(uint16_t priority, uint64_t length, Transfer transfer) {
  const long before = syscall(SYS_ioprio_get, kWhoProcess, 0);
  if (syscall(SYS_ioprio_set, kWhoProcess, 0, priority) != 0) return -errno;
  const ssize_t moved = transfer();
  const int result = moved == ssize_t(length) ? 0 : moved < 0 ? -errno : -EIO;
  syscall(SYS_ioprio_set, kWhoProcess, 0, before < 0 ? 0 : before);
  return result;
}

}  // namespace

File::~File() {
  if (fd_ >= 0) close(fd_);
}

int writeBlock(int fd, uint16_t priority, const std::byte* block) {
  std::string why;
  const std::unique_ptr<Ring> ring = Ring::create(1, 1, &why);
  if (!ring) return -ENOSYS;
  struct Write : RingOp {
    int result = 0;
  } write;
  write.done = [](RingOp* op, int result) { static_cast<Write*>(op)->result = result; };
  ring->queue(&write,
              {.code = RingCode::kWrite, .file = {.number = fd}, .data = block, .length = kBlock, .ioprio = priority});
  while (ring->inFlight() > 0) {
    ring->enter(Ring::kForever);
    ring->reap();
  }
  if (write.result < 0) return write.result;
  return write.result == int{kBlock} ? 0 : -EIO;
}

bool readPlaces(const std::string& device, const std::vector<Range>& places, uint16_t priority, std::byte* out) {
  const File file(open(device.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (file.fd() < 0) return false;
  const Block block = makeBlock();
  for (const Range& place : places) {
    const auto transfer = [&] {
      return pread(file.fd(), block.get(), place.length(), static_cast<off_t>(place.begin));
    };
    if (withPriority(priority, place.length(), transfer) != 0) return false;
    std::memcpy(out, block.get(), place.length());
    out += place.length();
  }
  return true;
}

}  // namespace sm
