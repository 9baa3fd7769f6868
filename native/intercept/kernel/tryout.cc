#include "intercept/kernel/tryout.h"

#include <stratamap/request.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "correlate/hint.h"
#include "intercept/kernel/hint_ranges.h"
#include "intercept/kernel/tagged_io.h"
#include "intercept/kernel/trace_decoder.h"
#include "sys/loop.h"
#include "sys/perf_rings.h"

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

uint32_t numberOf(const std::string& path) {
  struct stat st;
  return stat(path.c_str(), &st) == 0 ? TraceDecoder::numberOf(st.st_rdev) : 0;
}

}  // namespace

int tryKernel(std::string* why) {
  TraceDecoder decoder;
  if (const int error = decoder.open(why)) return error;
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
  const uint32_t numbers[] = {numberOf(upper.loop.path), numberOf(lower.loop.path)};
  PerfRings rings(1 << 16);
  if (const int error = rings.open(why)) return error;
  const uint64_t starts = decoder.tracepoints()[BlockIo::kStart];
  for (const uint32_t number : numbers) {
    if (const int error = rings.add({&starts, 1}, "dev == " + std::to_string(number), why)) return error;
  }
  const uint16_t priority =
      HintAssociation::priorityOf(HintAssociation::tagOf(ranges.hints()[0], HintAssociation::kDefaultLevel));
  const Block block = makeBlock();
  if (!readPlaces(upper.loop.path, {{0, kBlock}}, priority, block.get())) {
    *why =
        "a scratch loop device cannot be read by direct I/O with an I/O priority: " + std::string(std::strerror(errno));
    return -EIO;
  }
  bool seen[2] = {}, tagged[2] = {};
  rings.drain([&](const PerfRings::Record& record) {
    BlockIo io;
    uint32_t number;
    if (!decoder.decode(record.data, &number, &io) || io.op != SM_OP_READ) return;
    for (int level = 0; level < 2; ++level) {
      if (number != numbers[level]) continue;
      seen[level] = true;
      tagged[level] |= io.ioprio == priority;
    }
  });
  if (!tagged[0]) {
    *why = seen[0] ? "the kernel drops the hint of an I/O priority: Linux 6.5 is needed"
                   : "the kernel does not tell of the I/O on a loop device";
    return -EOPNOTSUPP;
  }
  if (!tagged[1]) {
    *why =
        "the loop driver drops I/O priorities: only the uppermost device beneath a disk is mapped. Linux 6.12.25 or "
        "6.15 does not";
    return -ENOSYS;
  }
  return 0;
}

}  // namespace sm
