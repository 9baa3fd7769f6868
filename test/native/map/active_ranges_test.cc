#include "map/active_ranges.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <random>
#include <tuple>
#include <vector>

using namespace sm;

TEST_CASE("ranges in flight are those that a plain list holds") {
  struct Entry {
    Range range;
    ActiveRanges::Ref ref;
    uint32_t position;
  };
  std::mt19937_64 random(11);
  ActiveRanges active;
  std::vector<Entry> list;
  uint32_t slot = 0;
  uint64_t met = 0, missed = 0;
  // Small ones and large ones, neighbours and far apart, at odd offsets, and at multiples of what a hash may dislike.
  auto any = [&]() -> Range {
    const uint64_t kind = random() % 8;
    const uint64_t begin = kind < 4 ? random() % 64 * 4096 : kind < 6 ? random() % 300'000 : (random() % 64) << 32;
    const uint64_t length = kind == 0 ? random() % 200'000 : kind == 1 ? random() % 3 * 512 : 4096;
    return {begin, begin + length};
  };
  for (int step = 0; step < 200'000; ++step) {
    const size_t most = step / 1000 % 2 ? 40 : 4;
    if (list.size() < most && random() % 2) {
      const ActiveRanges::Ref ref = slot++ | (random() % 2 ? ActiveRanges::kModifies | ActiveRanges::kInFlight : 0);
      const Range range = any();
      list.push_back({range, ref, active.add(range, ref)});
    } else if (!list.empty() && random() % 3 == 0) {
      const size_t gone = random() % list.size();
      active.remove(list[gone].position, [&](uint32_t moved, uint32_t position) {
        for (Entry& each : list) {
          if ((each.ref & ActiveRanges::kSlot) == moved) each.position = position;
        }
      });
      list.erase(list.begin() + static_cast<ptrdiff_t>(gone));
    } else if (!list.empty() && random() % 4 == 0) {
      Entry& entry = list[random() % list.size()];
      active.landed(entry.position);
      entry.ref &= ~ActiveRanges::kInFlight;
      if (random() % 2) {
        active.decided(entry.position);
        entry.ref &= ~ActiveRanges::kModifies;
      }
    }
    if (random() % 20'000 == 0) {
      active.clear();
      list.clear();
    }
    const Range asked = random() % 50 == 0 ? Range{0, UINT64_MAX} : any();
    using Found = std::tuple<ActiveRanges::Ref, uint64_t, uint64_t>;
    std::vector<Found> found, expected;
    active.overlapping(asked,
                       [&](ActiveRanges::Ref ref, Range common) { found.emplace_back(ref, common.begin, common.end); });
    bool doubts = false;
    for (const Entry& each : list) {
      if (each.range.begin >= asked.end || each.range.end <= asked.begin) continue;
      const Range common = intersect(asked, each.range);
      expected.emplace_back(each.ref, common.begin, common.end);
      doubts |= (each.ref & ActiveRanges::kModifies) != 0;
    }
    std::sort(found.begin(), found.end());
    std::sort(expected.begin(), expected.end());
    REQUIRE(found == expected);
    REQUIRE(active.doubts(asked) == doubts);
    REQUIRE(active.size() == list.size());
    (expected.empty() ? missed : met) += 1;
  }
  CHECK(met > 10'000);
  CHECK(missed > 10'000);
}
