// The interval map against a plain array of blocks.
#include "map/extent_map.h"

#include <doctest/doctest.h>

#include <optional>
#include <random>
#include <vector>

namespace {

using namespace sm;

// Two numbers: one runs along with the address, one does not.
struct Value {
  uint64_t at = 0;
  int mark = 0;
  Value advanced(uint64_t bytes) const { return {at + bytes, mark}; }
  bool operator==(const Value&) const = default;
};

constexpr uint64_t kSize = 200;
using Plain = std::vector<std::optional<Value>>;

// All entries, whole and in order; checks on the way that they are disjoint, not empty, and as few as can be.
Plain expand(const ExtentMap<Value>& map, size_t* entries) {
  Plain out(kSize);
  uint64_t end = 0;
  std::optional<Value> after;
  *entries = 0;
  map.each({0, kSize}, [&](Range range, const Value& value) {
    ++*entries;
    CHECK(range.begin >= end);
    CHECK(range.begin < range.end);
    if (range.begin == end && after) CHECK_FALSE(*after == value);
    for (uint64_t i = range.begin; i < range.end; ++i) out[i] = value.advanced(i - range.begin);
    end = range.end;
    after = value.advanced(range.length());
  });
  return out;
}

TEST_CASE("an extent map is an array of blocks") {
  std::mt19937_64 random(7);
  for (int world = 0; world < 40; ++world) {
    ExtentMap<Value> map;
    Plain plain(kSize);
    for (int step = 0; step < 400; ++step) {
      const uint64_t begin = random() % kSize, end = begin + random() % std::min<uint64_t>(30, kSize - begin + 1);
      const Range range{begin, end};
      switch (random() % 5) {
        case 0:
          map.erase(range);
          for (uint64_t i = begin; i < end; ++i) plain[i].reset();
          break;
        case 1:
        case 2: {
          // Often the value that continues a neighbour.
          const Value value{begin + random() % 2 * 1000, static_cast<int>(random() % 2)};
          map.assign(range, value);
          for (uint64_t i = begin; i < end; ++i) plain[i] = value.advanced(i - begin);
          break;
        }
        case 3:
          map.update(range, [](Value& value) { value.mark = 1; });
          for (uint64_t i = begin; i < end; ++i) {
            if (plain[i]) plain[i]->mark = 1;
          }
          break;
        case 4:
          if (random() % 10 != 0) break;
          map.updateAll([](Value& value) { value.mark = 0; });
          for (auto& each : plain) {
            if (each) each->mark = 0;
          }
          break;
      }
      size_t entries = 0;
      REQUIRE(expand(map, &entries) == plain);
      REQUIRE(map.size() == entries);

      bool meets = false, covers = !range.empty() && plain[begin].has_value();
      for (uint64_t i = begin; i < end; ++i) {
        meets |= plain[i].has_value();
        covers = covers && plain[i] && *plain[i] == plain[begin]->advanced(i - begin);
      }
      if (!range.empty()) {
        CHECK(map.meets(range) == meets);
        Value value;
        REQUIRE(map.covers(range, &value) == covers);
        if (covers) CHECK(value == *plain[begin]);
      }
      const size_t n = 1 + random() % 5;
      uint64_t expected = UINT64_MAX;
      size_t passed = 0;
      map.each({0, kSize}, [&](Range entry, const Value&) {
        if (entry.begin > begin && ++passed == n) expected = entry.begin;
      });
      CHECK(map.nthBegin(begin, n) == expected);
    }
  }
}

}  // namespace
