// The program in the kernel, on a real loop device: what it tells, and what it counts instead.
#include "intercept/kernel/block_events.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stratamap/request.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "intercept/kernel/block_events.bpf.h"
#include "intercept/kernel/tagged_io.h"
#include "native/host/support.h"
#include "native/intercept/may_observe.h"

namespace {

using namespace sm;
using namespace sm::test;

constexpr uint16_t kKnown = 2 << 13 | 9 << 3 | 4, kTag = 2 << 13 | 10 << 3 | 4;
constexpr uint64_t kSector = 512;

struct Watched {
  TempFolder memory{memoryFolder()};
  Loop loop{memory.file("medium", 1 << 20)};
  std::vector<BlockIo> told;
  std::unique_ptr<BlockEvents> events;
  std::string why;

  bool start() {
    if (!mayObserve(&why)) return false;
    REQUIRE_MESSAGE(loop.attached, loop.why);
    const auto tell = [](void* to, const BlockIo& io) { static_cast<std::vector<BlockIo>*>(to)->push_back(io); };
    REQUIRE_MESSAGE(BlockEvents::open(kKnown, tell, &told, &events, &why) == 0, why);
    struct stat st;
    REQUIRE(stat(loop.path.c_str(), &st) == 0);
    REQUIRE_MESSAGE(events->want({.issues = true}, &why) == 0, why);
    REQUIRE_MESSAGE(events->watch(st.st_rdev, 7, &why) == 0, why);
    return true;
  }
  // What is told of I/O with one of our priorities: the system reads a new device as well.
  std::vector<BlockIo> starts() {
    CHECK(events->drain() == 0);
    std::vector<BlockIo> ours;
    for (const BlockIo& io : told) {
      CHECK(io.device == 7);
      if (io.kind == BlockIo::kStart && (io.ioprio == kKnown || io.ioprio == kTag)) ours.push_back(io);
    }
    told.clear();
    return ours;
  }
  // The device's first block.
  void write(uint16_t priority) {
    const Block block = makeBlock();
    const File file(open(loop.path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
    REQUIRE(writeBlock(file.fd(), priority, block.get()) == 0);
  }
  void read(uint16_t priority, uint64_t offset, int times = 1) {
    const Block block = makeBlock();
    const File file(open(loop.path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    REQUIRE(syscall(SYS_ioprio_set, 1, 0, priority) == 0);
    for (int i = 0; i < times; ++i)
      REQUIRE(pread(file.fd(), block.get(), sm::kBlock, static_cast<off_t>(offset)) == ssize_t{sm::kBlock});
    REQUIRE(syscall(SYS_ioprio_set, 1, 0, 0) == 0);
  }
};

}  // namespace

TEST_CASE("the kernel tells what begins, but counts what is known and begins as expected, once") {
  Watched watched;
  if (!watched.start()) {
    MESSAGE("skipped: " << watched.why);
    return;
  }
  watched.read(kTag, 8192);
  auto starts = watched.starts();
  REQUIRE(starts.size() == 1);
  CHECK(starts[0].op == SM_OP_READ);
  CHECK(starts[0].phys.begin == 8192);
  CHECK(starts[0].phys.length() == sm::kBlock);
  CHECK(starts[0].thread != 0);

  watched.read(kKnown, 8192);
  CHECK(watched.starts().empty());
  CHECK(watched.events->knownBegun(7) == 1);

  const sm_expected_word word = sm_expected(7, 0, sm::kBlock / kSector);
  sm_expected_word& slot = watched.events->expected()[sm_expected_slot(word)];
  watched.write(kKnown);  // nobody expects it
  CHECK(watched.starts().size() == 1);
  std::atomic_ref(slot).store(word);
  watched.write(kTag);  // another's
  CHECK(watched.starts().size() == 1);
  CHECK(slot == word);
  watched.write(kKnown);
  CHECK(watched.starts().empty());
  CHECK(slot == (word | SM_EXPECTED_BEGUN));
  CHECK(watched.events->knownBegun(7) == 2);
  watched.write(kKnown);  // once is enough
  starts = watched.starts();
  REQUIRE(starts.size() == 1);
  CHECK(starts[0].op == SM_OP_WRITE);
  CHECK(watched.events->knownBegun(7) == 2);
}

TEST_CASE("that the ring was too small is told") {
  Watched watched;
  if (!watched.start()) {
    MESSAGE("skipped: " << watched.why);
    return;
  }
  // Each is told twice, begun and issued, on whatever CPU.
  const int most = SM_BLOCK_RING / (sizeof(sm_block_event) + 8) / 2 * static_cast<int>(sysconf(_SC_NPROCESSORS_CONF));
  watched.read(kTag, 0, most + 1000);
  CHECK(watched.events->drain() > 0);
  watched.told.clear();
  watched.read(kTag, 0);
  CHECK(watched.starts().size() == 1);
}
