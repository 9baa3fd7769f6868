// The parts of the kernel's observer by themselves: what it reads from the system, and the hints that it shares.
#include <doctest/doctest.h>
#include <stratamap/request.h>

#include <set>
#include <string>
#include <vector>

#include "correlate/freshness.h"
#include "intercept/kernel/block_chain.h"
#include "intercept/kernel/block_events.bpf.h"
#include "intercept/kernel/block_events.h"
#include "intercept/kernel/hint_ranges.h"
#include "native/host/support.h"

using namespace sm;

TEST_CASE("a record of the block layer is decoded: what has no place on the device has none") {
  sm_block_event event{.time = 5,
                       .sector = 16,
                       .bytes = 4096,
                       .device = 3,
                       .thread = 7,
                       .priority = 0x4044,
                       .kind = 1,
                       .op = SM_OP_WRITE};
  const BlockIo io = BlockEvents::decode(event);
  CHECK(io.kind == BlockIo::kBackMerge);
  CHECK(io.op == SM_OP_WRITE);
  CHECK(io.ioprio == 0x4044);
  CHECK(io.device == 3);
  CHECK(io.phys.begin == 8192);
  CHECK(io.phys.end == 8192 + 4096);
  CHECK(io.time == 5);
  CHECK(io.thread == 7);
  event.sector = UINT64_MAX;  // a flush
  CHECK(BlockEvents::decode(event).phys.empty());
  event.sector = 16, event.bytes = 0;
  CHECK(BlockEvents::decode(event).phys.empty());
}

TEST_CASE("what is expected of a write is one word, or none where it does not fit") {
  CHECK(sm_expected(0, 0, 0) == 0);
  CHECK(sm_expected(256, 0, 8) == 0);
  CHECK(sm_expected(0, uint64_t{1} << 43, 8) == 0);
  CHECK(sm_expected(0, 0, 4096) == 0);
  const sm_expected_word most = sm_expected(255, (uint64_t{1} << 43) - 1, 4095);
  CHECK(most == ~SM_EXPECTED_BEGUN);
  CHECK(sm_expected_slot(most) < SM_EXPECTED_SLOTS);
  CHECK(sm_expected(1, 8, 8) != sm_expected(0, 8, 8));
  CHECK(sm_expected(0, 8, 16) != sm_expected(0, 8, 8));
}

TEST_CASE(
    "a line of the mount table gives its number, type and source, also where there are optional fields or spaces") {
  MountEntry entry;
  REQUIRE(parseMountEntry("36 35 7:9 / /mnt/a\\040b rw,noatime shared:1 master:2 - ext4 /dev/loop9 rw", &entry));
  CHECK(entry.id == 36);
  CHECK(entry.type == "ext4");
  CHECK(entry.source == "/dev/loop9");
  REQUIRE(parseMountEntry("1 0 0:2 / / rw - tmpfs a\\040b\\134c rw", &entry));
  CHECK(entry.source == "a b\\c");
  for (const char* line : {"", "x", "36 35 7:9 / /mnt rw", "36 35 7:9 / /mnt rw -", "36 35 7:9 / /mnt rw - ext4"}) {
    CAPTURE(line);
    CHECK_FALSE(parseMountEntry(line, &entry));
  }
}

TEST_CASE("hints are shared out so that nobody has another's, and given back at the end") {
  test::TempFolder folder;
  const std::string file = folder.path + "/hints";
  std::string why;
  std::set<uint16_t> taken;
  {
    std::vector<std::unique_ptr<HintRanges>> holders;
    for (;;) {
      auto holder = std::make_unique<HintRanges>();
      const int error = holder->acquire(file, &why);
      if (error != 0) {
        CHECK(error == -EBUSY);
        break;
      }
      CHECK(holder->hints().size() > 0);
      for (const uint16_t hint : holder->hints()) {
        CHECK(taken.insert(hint).second);
        CHECK((hint >= 8 && hint < 1024));
      }
      holders.push_back(std::move(holder));
    }
    CHECK(holders.size() >= 4);
    CHECK(taken.size() == 1016);
    CHECK(holders[0]->hints().size() == 508);
  }
  HintRanges again;
  CHECK(again.acquire(file, &why) == 0);
  CHECK(again.hints().size() == 508);
}

TEST_CASE("what was confirmed is fresh for this half of the greatest age and the next, and only whole blocks are") {
  Freshness fresh;
  constexpr uint64_t kMiB = 1 << 20;
  CHECK_FALSE(fresh.isFresh({0, 4096}, 5));
  fresh.confirm({512, 3 * 4096}, 5);  // blocks 1 and 2
  CHECK_FALSE(fresh.isFresh({0, 4096}, 5));
  CHECK(fresh.isFresh({4096, 3 * 4096}, 5));
  CHECK(fresh.isFresh({4096 + 512, 4096 + 1024}, 6));
  CHECK_FALSE(fresh.isFresh({4096, 3 * 4096}, 7));
  fresh.confirm({15 * kMiB, 40 * kMiB}, 9);
  CHECK(fresh.isFresh({15 * kMiB, 40 * kMiB}, 10));
  fresh.confirm({20 * kMiB, 21 * kMiB}, 10);
  CHECK(fresh.isFresh({20 * kMiB, 21 * kMiB}, 11));
  CHECK_FALSE(fresh.isFresh({20 * kMiB, 21 * kMiB + 1}, 11));
  CHECK_FALSE(fresh.isFresh({20 * kMiB, 21 * kMiB}, 900));
}
