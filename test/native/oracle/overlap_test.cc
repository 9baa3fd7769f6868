// Rule 3, forced: writes that overlap in time, through a volume that cuts and permutes, to devices that delay. Nothing
// here is left to chance but the order: every round has overlaps, and they are counted.
#include <doctest/doctest.h>

#include <algorithm>
#include <iostream>

#include "contract.h"
#include "episodes.h"

using namespace truth;

namespace {

struct Write {
  uint64_t first, blocks, begun, ended;
};

// Bytes of each write that another overlapped, in place and in time.
uint64_t overlapped(const std::vector<Write>& writes) {
  uint64_t bytes = 0;
  for (const Write& mine : writes) {
    for (uint64_t block = mine.first; block < mine.first + mine.blocks; ++block) {
      for (const Write& other : writes) {
        if (&other == &mine || block < other.first || block >= other.first + other.blocks) continue;
        if (other.begun > mine.ended || mine.begun > other.ended) continue;
        bytes += kBlock;
        break;
      }
    }
  }
  return bytes;
}

struct Totals {
  uint64_t rounds = 0, overlappedBytes = 0, collisions = 0, remapped = 0;
};

void force(const char* issue, uint64_t seed, Totals* totals) {
  WorldOptions options;
  options.seed = seed;
  options.disks = 2;
  options.diskBlocks = 32;
  options.deviceBlocks = 3 * 2048;
  options.volume = [&](World& world) {
    return makeContractVolume(world, fixtureVolume("permuting"), {{"seed", std::to_string(seed)}, {"delay", "0"}},
                              {{"issue", issue}});
  };
  World world(options);
  Watch& watch = *world.watches()[0];
  world.attach(watch);
  auto overlapLedger = [&] { return watch.map->ledger().unmapped[static_cast<int>(sm::Unmapped::kOverlap)].bytes; };
  auto settle = [&] {
    while (!world.quiet() && world.advance()) {
    }
  };
  for (int round = 0; round < 20; ++round) {
    const uint64_t before = overlapLedger(), at = world.below(16);
    const uint64_t starts[] = {at, at + 4, at + 2, at + 4};
    std::vector<Write> writes;
    std::vector<GuestPtr> guests;
    uint64_t time = 0;
    auto note = [&] {
      ++time;
      for (size_t i = 0; i < guests.size(); ++i) {
        if (!guests[i]->request && writes[i].ended == UINT64_MAX) writes[i].ended = time;
      }
    };
    for (uint64_t start : starts) {
      note();
      writes.push_back({start, 4 + world.below(8), ++time, UINT64_MAX});
      guests.push_back(world.submit(SM_OP_WRITE, 0, start, writes.back().blocks));
      for (uint64_t pauses = world.below(4); pauses > 0; --pauses) world.advance(), note();
    }
    while (!world.quiet() && world.advance()) note();
    world.compareAll();
    REQUIRE_MESSAGE(world.difference().empty(), "seed " << seed << ": " << world.difference());

    // Whatever overlapped is unmapped, and counted.
    const uint64_t bytes = overlapped(writes);
    CHECK(overlapLedger() - before == bytes);
    totals->overlappedBytes += bytes;
    for (const Write& write : writes) {
      for (uint64_t block = write.first; block < write.first + write.blocks; ++block) {
        std::vector<Write> here;
        for (const Write& each : writes) {
          if (block >= each.first && block < each.first + each.blocks)
            here.push_back({block, 1, each.begun, each.ended});
        }
        // The last to complete decides; one that overlapped nothing may be mapped.
        auto last = std::max_element(here.begin(), here.end(), [](auto& a, auto& b) { return a.ended < b.ended; });
        std::vector<Write> others;
        for (const Write& each : here) {
          if (&each == &*last || each.ended >= last->begun) others.push_back(each);
        }
        if (others.size() < 2) continue;
        const auto extents = watch.map->locate(watch.diskKeys[0], block * kBlock, kBlock);
        REQUIRE(extents.size() == 1);
        CHECK(extents[0].state == sm::State::kUnknown);
      }
    }

    // A write that is alone is mapped again, where the volume lets it be known whose a child is.
    world.submit(SM_OP_WRITE, 0, at, 8);
    settle();
    REQUIRE_MESSAGE(world.difference().empty(), "seed " << seed << ": " << world.difference());
    for (const auto& extent : watch.map->locate(watch.diskKeys[0], at * kBlock, 8 * kBlock)) {
      CHECK((extent.state == sm::State::kMapped) == (std::string(issue) == "clone"));
      if (extent.state == sm::State::kMapped) totals->remapped += extent.length;
    }
    ++totals->rounds;
  }
  totals->collisions += world.counts().collisions;
  world.detach(watch);
  CHECK(world.difference().empty());
}

}  // namespace

TEST_CASE("overlapping writes through permuting leave no mapping") {
  Totals totals;
  for (const char* issue : {"clone", "fresh"}) {
    for (uint64_t seed = firstSeed(); seed < firstSeed() + 20; ++seed) force(issue, seed, &totals);
  }
  std::cout << "overlap: " << totals.rounds << " rounds, " << totals.overlappedBytes << " bytes overlapped, "
            << totals.collisions << " collisions on the devices, " << totals.remapped << " bytes mapped afterwards\n";
  CHECK(totals.overlappedBytes > totals.rounds * kBlock);
  CHECK(totals.collisions > totals.rounds);
  CHECK(totals.remapped > 0);
}
