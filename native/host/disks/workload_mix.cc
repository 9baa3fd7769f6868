#include "disks/workload_mix.h"

#include <cerrno>
#include <utility>

namespace sm {
namespace {

constexpr uint32_t kMaxDepth = 1024;

}  // namespace

bool mixOf(const WorkloadOptions& options, Mix* mix) {
  const std::string& pattern = options.pattern;
  mix->random = pattern != "read" && pattern != "write";
  const bool mixed = pattern == "mixed";
  if (mixed) {
    mix->discard = options.discardPercent;
    mix->zeroes = options.zeroesPercent;
    mix->flush = options.flushPercent;
  }
  const double others = mix->discard + mix->zeroes + mix->flush;
  if (mixed || pattern == "randrw") {
    mix->read = options.readPercent < 0 ? (100 - others) / 2 : options.readPercent;
  } else if (pattern == "read" || pattern == "randread") {
    mix->read = 100;
  } else if (pattern != "write" && pattern != "randwrite") {
    return false;
  }
  return mix->discard >= 0 && mix->zeroes >= 0 && mix->flush >= 0 && mix->read >= 0 && mix->read + others <= 100;
}

uint64_t unitsOf(const VirtualDisk& disk, const WorkloadOptions& options) {
  const uint64_t length = options.length ? options.length : disk.bytes() - options.offset;
  return length / options.blockSize;
}

Failure Workload::checkOptions(const VirtualDisk& disk, const WorkloadOptions& options) {
  const auto wrong = [](std::string message) {
    Failure failure;
    failure.error = EINVAL;
    failure.code = "ERR_OUT_OF_RANGE";
    failure.layer = "disk";
    failure.message = std::move(message);
    return failure;
  };
  Mix mix;
  if (!mixOf(options, &mix)) {
    return wrong("pattern '" + options.pattern +
                 "' with these shares: use read, write, randread, randwrite, randrw or mixed, and shares of 0 to 100 "
                 "percent that do not exceed 100 together");
  }
  if (options.pattern != "mixed" && (options.discardPercent || options.zeroesPercent || options.flushPercent)) {
    return wrong("shares of discards, zeroes and flushes go with the pattern 'mixed', not with '" + options.pattern +
                 "'");
  }
  if (options.queueDepth == 0 || options.queueDepth > kMaxDepth) {
    return wrong("the queue depth is " + std::to_string(options.queueDepth) + ": use 1 to " +
                 std::to_string(kMaxDepth));
  }
  if (!(options.seconds > 0 && options.seconds <= 1e7) && options.seconds != 0) {
    return wrong("the time must be more than 0 and at most 10,000,000 seconds");
  }
  if ((options.seconds > 0) == (options.operations > 0)) {
    return wrong("give either seconds or operations, one of them and more than 0");
  }
  const std::string block = std::to_string(options.blockSize);
  if (Failure failure = disk.check(SM_OP_READ, 0, options.blockSize)) {
    return wrong("a block size of " + block + " does not suit: " + failure.message);
  }
  const uint64_t bytes = disk.bytes();
  if (options.offset >= bytes || options.length > bytes - options.offset || unitsOf(disk, options) == 0) {
    return wrong("the part of the disk to use, offset " + std::to_string(options.offset) + ", length " +
                 std::to_string(options.length) + ", must lie in its " + std::to_string(bytes) +
                 " bytes and hold at least one block of " + block);
  }
  return disk.check(SM_OP_READ, options.offset, options.blockSize);
}

}  // namespace sm
