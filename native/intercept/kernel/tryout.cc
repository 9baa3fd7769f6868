#include "intercept/kernel/tryout.h"

#include <stratamap/request.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "correlate/hint.h"
#include "intercept/kernel/block_events.h"
#include "intercept/kernel/hint_ranges.h"
#include "intercept/kernel/tagged_io.h"
#include "sys/loop.h"

namespace sm {

namespace {

constexpr size_t kBytes = 1 << 20;

struct Scratch {
  LoopDevice loop;
  int attach(const std::string& file, std::string* why) {
    return loopAttach({.file = file, .directIo = true, .readOnly = true}, &loop, why);
  }
  ~Scratch() {
    std::string what;
    if (loop.number >= 0) loopDetach(&loop, &what);
  }
};

dev_t deviceOf(const std::string& path) {
  struct stat st;
  return stat(path.c_str(), &st) == 0 ? st.st_rdev : 0;
}

// What is told of reads on two levels.
struct Told {
  uint16_t priority = 0;
  bool seen[2] = {}, tagged[2] = {};
};

}  // namespace

int tryKernel(std::string* why) {
  HintRanges ranges;
  if (const int error = ranges.acquire(HintRanges::kLockFile, why)) return error;
  const File memory(memfd_create("stratamap", MFD_CLOEXEC));
  if (memory.fd() < 0 || ftruncate(memory.fd(), kBytes) != 0) {
    *why = std::string("no file can be made in memory: ") + std::strerror(errno);
    return -errno;
  }
  Scratch lower, upper;
  if (const int error = lower.attach("/proc/self/fd/" + std::to_string(memory.fd()), why)) return error;
  if (const int error = upper.attach(lower.loop.path, why)) return error;
  Told told;
  told.priority =
      HintAssociation::priorityOf(HintAssociation::tagOf(ranges.hints()[0], HintAssociation::kDefaultLevel));
  const auto tell = [](void* context, const BlockIo& io) {
    auto& to = *static_cast<Told*>(context);
    if (io.kind != BlockIo::kStart || io.op != SM_OP_READ) return;
    to.seen[io.device] = true;
    to.tagged[io.device] |= io.ioprio == to.priority;
  };
  std::unique_ptr<BlockEvents> events;
  if (const int error = BlockEvents::open(0, tell, &told, &events, why)) return error;
  if (const int error = events->watch(deviceOf(upper.loop.path), 0, why)) return error;
  if (const int error = events->watch(deviceOf(lower.loop.path), 1, why)) return error;
  const Block block = makeBlock();
  if (!readPlaces(upper.loop.path, {{0, kBlock}}, told.priority, block.get())) {
    *why =
        "a scratch loop device cannot be read by direct I/O with an I/O priority: " + std::string(std::strerror(errno));
    return -EIO;
  }
  events->drain();
  if (!told.tagged[0]) {
    *why = told.seen[0] ? "the kernel drops the hint of an I/O priority: Linux 6.5 is needed"
                        : "the kernel does not tell of the I/O on a loop device";
    return -EOPNOTSUPP;
  }
  if (!told.tagged[1]) {
    *why =
        "the loop driver drops I/O priorities: only the uppermost device beneath a disk is mapped. Linux 6.12.25 or "
        "6.15 does not";
    return -ENOSYS;
  }
  return 0;
}

}  // namespace sm
