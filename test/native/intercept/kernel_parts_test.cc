// The parts of the kernel's observer by themselves: what it reads from the system, and the hints that it shares.
#include <doctest/doctest.h>
#include <stratamap/request.h>
#include <sys/sysmacros.h>

#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "correlate/freshness.h"
#include "intercept/kernel/block_chain.h"
#include "intercept/kernel/hint_ranges.h"
#include "intercept/kernel/trace_decoder.h"
#include "native/host/support.h"
#include "sys/tracefs.h"

using namespace sm;

TEST_CASE("a tracepoint's format names its id and where each field stands") {
  Tracepoint point;
  REQUIRE(parseTraceFormat("name: block_io_start\nID: 2102\nformat:\n"
                           "\tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n"
                           "\tfield:char rwbs[10];\toffset:34;\tsize:10;\tsigned:0;\n\nprint fmt: \"%d\"\n",
                           &point) == 0);
  CHECK(point.id == 2102);
  REQUIRE(point.field("dev", 4) != nullptr);
  CHECK(point.field("dev", 4)->offset == 8);
  CHECK(point.field("dev", 8) == nullptr);
  REQUIRE(point.field("rwbs", 10) != nullptr);
  for (const char* text : {"", "ID: 5\n", "ID: x\n\tfield:int a;\toffset:0;\tsize:4;\n",
                           "ID: 5\n\tfield:int a;\toffset:99999999;\tsize:4;\n", "ID: 5\n\tfield:int a;\tsize:4;\n",
                           "\tfield:int a;\toffset:0;\tsize:4;\n"}) {
    CAPTURE(text);
    CHECK(parseTraceFormat(text, &point) == -EINVAL);
  }
}

TEST_CASE("the letters of a block trace say what is done; what is not known may change the medium") {
  const std::vector<std::pair<const char*, int>> known = {
      {"R", SM_OP_READ},         {"RA", SM_OP_READ},         {"RSM", SM_OP_READ},     {"W", SM_OP_WRITE},
      {"WS", SM_OP_WRITE},       {"FWFS", SM_OP_WRITE},      {"WFS", SM_OP_WRITE},    {"D", SM_OP_DISCARD},
      {"DE", SM_OP_DISCARD},     {"F", SM_OP_FLUSH},         {"FF", SM_OP_FLUSH},     {"FS", SM_OP_FLUSH},
      {"N", SM_OP_WRITE_ZEROES}, {"ZA", SM_OP_WRITE_ZEROES}, {"", SM_OP_WRITE_ZEROES}};
  for (const auto& each : known) {
    CAPTURE(each.first);
    CHECK(TraceDecoder::opOf(each.first) == each.second);
  }
}

TEST_CASE("this kernel's records are decoded, and nothing shorter than one") {
  TraceDecoder decoder;
  std::string why;
  if (decoder.open(&why) != 0) {
    MESSAGE("skipped: " << why);
    return;
  }
  CHECK(decoder.tracepoints().size() == 5);
  std::vector<std::byte> record(256);
  const uint16_t id = static_cast<uint16_t>(decoder.tracepoints()[0]);
  std::memcpy(record.data(), &id, sizeof id);
  BlockIo io;
  uint32_t device;
  CHECK(decoder.decode(record, &device, &io));
  for (size_t length = 0; length < 16; ++length) CHECK_FALSE(decoder.decode({record.data(), length}, &device, &io));
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
