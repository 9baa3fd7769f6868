// A log whose cleaner moves what lives, under the eyes of the probe: nothing that is mapped is wrong, and what was
// moved is flagged, stale or unmapped until the next I/O of a guest finds it.
#include <doctest/doctest.h>

#include <algorithm>

#include "load.h"
#include "truth.h"

using namespace conformance;

namespace {

constexpr uint64_t kRequest = 4096, kBlocks = kDiskBytes / oracle::kBlock;
constexpr uint32_t kKept = 0, kBusy = 1;  // disks: written once, and over and over again

// What the map says of each block of a disk.
std::vector<sm::VirtualExtent> blocksOf(const Stack& stack, uint32_t disk) {
  std::vector<sm::VirtualExtent> blocks;
  for (const sm::VirtualExtent& extent : stack.map().locate(stack.key(disk), 0, kDiskBytes)) {
    for (uint64_t at = 0; at < extent.length; at += oracle::kBlock) {
      blocks.push_back(extent);
      for (sm::Place& place : blocks.back().places) place.offset += at;
    }
  }
  return blocks;
}

bool among(const sm::VirtualExtent& extent, sm::Place place) {
  return std::find(extent.places.begin(), extent.places.end(), place) != extent.places.end();
}

// One run: how many of the kept disk's blocks the cleaner moved while the busy one was written so often. It may go on
// to move some when all seemed at rest: then what it has moved cannot be told, and all is done again, up to `again`
// times.
uint64_t run(const Cell& cell, int rounds, int again = 10) {
  std::vector<Span> requests;
  for (uint64_t at = 0; at < kDiskBytes; at += kRequest) requests.push_back({at, kRequest});
  const std::vector<Span> half(requests.begin(), requests.begin() + static_cast<ptrdiff_t>(requests.size() / 2));
  uint64_t moved = 0, moving = 0, stale = 0, unknown = 0, notFlagged = 0, notFound = 0;
  Outcome outcome;
  {
    Stack stack(cell, &outcome);
    REQUIRE(stack.open());
    Load load(stack, cell.depth, cell.seed);
    REQUIRE(stack.attach());
    load.each(kKept, requests, SM_OP_WRITE);
    for (int round = 0; round < rounds; ++round) load.each(kBusy, load.tiles(), SM_OP_WRITE);
    load.each(kBusy, {{0, 0}}, SM_OP_FLUSH);
    stack.rest();
    compareMap(stack);
    const uint64_t writes = stack.writesBelow();
    const auto before = blocksOf(stack, kKept);
    load.each(kKept, half, SM_OP_READ);
    compareMap(stack);
    const auto after = blocksOf(stack, kKept);
    stack.detach();

    // Where they are is what reads teach a probe that knows nothing.
    REQUIRE(stack.attach());
    load.each(kKept, requests, SM_OP_READ);
    const auto truth = blocksOf(stack, kKept);
    if (stack.writesBelow() != writes && again > 0) return run(cell, rounds, again - 1);
    for (uint64_t i = 0; i < kBlocks; ++i) {
      REQUIRE(truth[i].state == sm::State::kMapped);
      const sm::Place place = truth[i].places[0];
      if (i < kBlocks / 2) notFound += after[i].state != sm::State::kMapped || !among(after[i], place);
      if (before[i].state == sm::State::kMapped && among(before[i], place)) continue;
      ++moved;
      moving += before[i].state == sm::State::kMapped && before[i].moving;
      notFlagged += before[i].state == sm::State::kMapped && !before[i].moving;
      stale += before[i].state == sm::State::kStale;
      unknown += before[i].state == sm::State::kUnknown;
    }
    CHECK(notFlagged == 0);
    CHECK(notFound == 0);
    MESSAGE(cell.association << "/" << cell.correlation << ": of " << kBlocks << " live blocks " << moved
                             << " were moved: " << moving << " moving, " << stale << " stale, " << unknown
                             << " unmapped");
  }
  CHECK(outcome.wrong == 0);
  for (const std::string& complaint : outcome.complaints) FAIL_CHECK(complaint);
  return moved;
}

}  // namespace

TEST_CASE("what a cleaner moves is flagged until a guest's next I/O") {
  for (const std::string association : {"serial", "address", "content"}) {
    for (const std::string correlation : {"descend", "ascend", "meet"}) {
      CAPTURE(association);
      CAPTURE(correlation);
      const Cell cell{cleaningLog(), association, correlation, Medium::kUring, 32, 1};
      // A fifth of all that lives, the busy disk's as well; how far the cleaner gets in a round depends on the machine.
      uint64_t most = 0;
      for (int rounds = 10; most * 5 < 2 * kBlocks && rounds <= 1280; rounds *= 2)
        most = std::max(most, run(cell, rounds));
      CHECK(most * 5 >= 2 * kBlocks);
    }
  }
}
