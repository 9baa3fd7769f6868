// The extent map where its form changes: borders of blocks, regions, nodes and directories, the end of the address
// space, values that pack and that do not. Against a balanced tree that knows nothing of all this, and against plain
// sectors.
#include <doctest/doctest.h>

#include <optional>
#include <random>
#include <vector>

#include "map/extent_map.h"
#include "map/ordered_extents.h"
#include "map/values.h"

namespace {

using namespace sm;

constexpr uint64_t kKi = 1024, kMi = kKi * kKi, kGi = kKi * kMi;
constexpr uint64_t kRegion = 256 * kKi, kNode = 16 * kMi;

// One number that runs along, one that does not. Packs where the first is at a sector and the second small.
struct Value {
  uint64_t at = 0;
  uint64_t mark = 0;
  Value advanced(uint64_t bytes) const { return {at + bytes, mark}; }
  bool operator==(const Value&) const = default;

  static constexpr uint64_t kBlockStep = 8 << 2;
  bool pack(uint64_t* bits) const {
    if (at % 512 != 0 || at >= (uint64_t{1} << 62) || mark > 3) return false;
    *bits = at / 512 << 2 | mark;
    return true;
  }
  static Value unpack(uint64_t bits) { return {bits >> 2 << 9, bits & 3}; }
};

struct Told {
  uint64_t begin, end;
  Value value;
  bool operator==(const Told&) const = default;
};

template <class Map>
std::vector<Told> tell(const Map& map, Range range) {
  std::vector<Told> out;
  map.each(range, [&](Range part, const Value& value) { out.push_back({part.begin, part.end, value}); });
  return out;
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t below(uint64_t n) { return engine_() % n; }
  template <size_t N>
  uint64_t of(const uint64_t (&choice)[N]) {
    return choice[below(N)];
  }

 private:
  std::mt19937_64 engine_;
};

// One change, the same to both.
template <class A, class B>
void changeBoth(Random& random, Range range, A& a, B& b) {
  const uint64_t kind = random.below(8);
  if (kind < 2) {
    a.erase(range);
    b.erase(range);
  } else if (kind < 6) {
    // Often the value that continues a neighbour; at times one that does not pack.
    Value value{range.begin % (kGi * kKi) + random.below(3) * 512 * kMi, random.below(2)};
    if (random.below(8) == 0) value.at += random.below(2) == 0 ? 77 : 512;
    if (random.below(16) == 0) value.mark = 9;
    a.assign(range, value);
    b.assign(range, value);
  } else {
    const uint64_t mark = random.below(8) == 0 ? 7 : random.below(3);
    auto f = [&](Value& value) { value.mark = mark; };
    if (random.below(40) == 0) {
      a.updateAll(f);
      b.updateAll(f);
    } else {
      a.update(range, f);
      b.update(range, f);
    }
  }
}

template <class A, class B>
void askBoth(Random& random, Range range, const A& a, const B& b) {
  REQUIRE(tell(a, range) == tell(b, range));
  CHECK(a.meets(range) == b.meets(range));
  Value x, y;
  REQUIRE(a.covers(range, &x) == b.covers(range, &y));
  if (b.covers(range, &y)) CHECK(x == y);
  const size_t n = 1 + random.below(6);
  CHECK(a.nthBegin(range.begin, n) == b.nthBegin(range.begin, n));
}

}  // namespace

TEST_CASE("an extent map is a balanced tree, at every border and alignment") {
  // Where a world is, and how wide it is.
  const uint64_t places[] = {
      0, kRegion, kNode - kRegion, kGi - kNode, 64 * kGi - kRegion, uint64_t{1} << 48, UINT64_MAX - 3 * kRegion + 1};
  for (uint64_t seed = 1; seed <= 160; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    auto pool = std::make_shared<Pool>();
    ExtentMap<Value> map(pool);
    OrderedExtents<Value> model;
    const uint64_t base = random.of(places);
    const uint64_t width =
        std::min(random.of({2 * kRegion, 3 * kRegion, 3 * kNode, 3 * kGi, UINT64_MAX}), UINT64_MAX - base);
    auto someRange = [&] {
      const uint64_t unit = random.of({1, 512, 4096, 4096, 4096, kRegion, kNode, kGi});
      const uint64_t longest =
          std::min(width, random.of({unit, 16 * 4096, kRegion, 5 * kRegion, 2 * kNode, UINT64_MAX}));
      const uint64_t begin = base + random.below(width) / unit * unit;
      const uint64_t length = std::max(unit, random.below(longest) / unit * unit);
      return Range{begin, length > UINT64_MAX - begin ? UINT64_MAX : begin + length};
    };
    for (int step = 0; step < 120; ++step) {
      changeBoth(random, someRange(), map, model);
      askBoth(random, someRange(), map, model);
      if (step % 10 == 0) {
        REQUIRE(tell(map, {0, UINT64_MAX}) == tell(model, {0, UINT64_MAX}));
        REQUIRE(map.size() == model.size());
      }
    }
    map.erase({base, UINT64_MAX});
    model.erase({base, UINT64_MAX});
    REQUIRE(tell(map, {0, UINT64_MAX}) == tell(model, {0, UINT64_MAX}));
    map.erase({0, UINT64_MAX});
    CHECK(map.empty());
    CHECK(pool->used() == 0);
    CHECK(pool->held() <= 2 * kMi);
  }
}

TEST_CASE("an extent map is an array of sectors") {
  constexpr uint64_t kSectors = 3 * kRegion / 512;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    const uint64_t base = random.of({0, kNode - kRegion, 4 * kGi - 2 * kRegion});
    ExtentMap<Value> map;
    std::vector<std::optional<Value>> plain(kSectors);
    const uint64_t unit = random.of({1, 8, 8, 8});  // sectors
    for (int step = 0; step < 300; ++step) {
      const uint64_t begin = random.below(kSectors) / unit * unit;
      const uint64_t most = random.below(12) == 0 ? kSectors : 20 * unit;
      const uint64_t end = std::min(kSectors, begin + unit + random.below(most) / unit * unit);
      const Range range{base + begin * 512, base + end * 512};
      switch (random.below(4)) {
        case 0:
          map.erase(range);
          for (uint64_t i = begin; i < end; ++i) plain[i].reset();
          break;
        case 1:
        case 2: {
          const Value value{begin * 512 + random.below(2) * kMi, random.below(2)};
          map.assign(range, value);
          for (uint64_t i = begin; i < end; ++i) plain[i] = value.advanced((i - begin) * 512);
          break;
        }
        case 3:
          map.update(range, [](Value& value) { value.mark = 1 - value.mark; });
          for (uint64_t i = begin; i < end; ++i) {
            if (plain[i]) plain[i]->mark = 1 - plain[i]->mark;
          }
          break;
      }
      std::vector<std::optional<Value>> told(kSectors);
      for (const Told& each : tell(map, {0, UINT64_MAX})) {
        for (uint64_t at = each.begin; at < each.end; at += 512) {
          told[(at - base) / 512] = each.value.advanced(at - each.begin);
        }
      }
      REQUIRE(told == plain);
    }
  }
}

TEST_CASE("long extents take no room, in whatever order they came") {
  auto pool = std::make_shared<Pool>();
  ExtentMap<Value> map(pool);
  map.assign({0, UINT64_MAX}, {512, 1});
  CHECK(pool->used() <= 64);
  map.erase({kGi, kGi + 4096});
  CHECK(map.size() == 2);
  CHECK(pool->used() < 64 * kKi);
  map.assign({kGi, kGi + 4096}, {512 + kGi, 1});
  CHECK(map.size() == 1);
  map.erase({0, UINT64_MAX});
  CHECK(pool->used() == 0);

  constexpr uint64_t kBlocks = 64 * kMi / 4096;
  for (const uint64_t step : {uint64_t{1}, kBlocks - 1, uint64_t{1021}}) {  // onwards, backwards, and all over
    CAPTURE(step);
    for (uint64_t i = 0, at = 0; i < kBlocks; ++i, at = (at + step) % kBlocks) {
      map.assign({at * 4096, (at + 1) * 4096}, Value{at * 4096, 2});
    }
    CHECK(map.size() == 1);
    CHECK(pool->used() <= kKi);
    map.erase({0, UINT64_MAX});
  }
}

TEST_CASE("a region that was odd for a while is packed again") {
  auto pool = std::make_shared<Pool>();
  ExtentMap<Value> map(pool);
  map.assign({0, 4096}, {0, 1});
  const size_t packed = pool->used();
  map.assign({1000, 1001}, {0, 99});
  CHECK(map.size() == 3);
  map.assign({8192, 12288}, {kMi, 1});
  CHECK(pool->used() == packed);  // that is not where it went
  map.erase({0, 4096});
  map.assign({0, 4096}, {0, 1});
  map.update({0, 4096}, [](Value& value) { value.mark = 2; });
  CHECK(pool->used() > packed);
  map.update({8192, 12288}, [](Value& value) { value.mark = 99; });
  CHECK(pool->used() == packed);
  map.update({8192, 12288}, [](Value& value) { value.mark = 1; });
  CHECK(pool->used() > packed);
}

TEST_CASE("what a mapping costs") {
  std::mt19937_64 random(5);
  for (const uint64_t perRegion : {2, 32, 64}) {
    CAPTURE(perRegion);
    auto pool = std::make_shared<Pool>();
    ExtentMap<Forward> map(pool);
    constexpr uint64_t kRegions = 4096;
    for (uint64_t region = 0; region < kRegions; ++region) {
      for (uint64_t i = 0; i < perRegion; ++i) {
        const uint64_t at = region * kRegion + i * (64 / perRegion) * 4096;
        map.assign({at, at + 4096}, {{3, random() % (uint64_t{1} << 28) * 4096}, State::kMapped, false, false});
      }
    }
    REQUIRE(map.size() == kRegions * perRegion);
    // Of the 96 bytes of both directions, or 24 where half of a leaf is used.
    const size_t each = pool->used() / (kRegions * perRegion), goal = perRegion == 2 ? 48 : 12;
    CHECK(each <= goal);
  }
}

TEST_CASE("the values of the address map pack, and come back, or say that they do not") {
  std::mt19937_64 random(9);
  uint64_t bits = 0;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t offset = (random() >> (15 + random() % 40)) / 512 * 512;
    const Forward forward{{static_cast<DeviceKey>(random() % (1 << 14)), offset},
                          static_cast<State>(random() % 3),
                          random() % 2 == 0,
                          random() % 2 == 0};
    const Reverse reverse{static_cast<DiskKey>(random() % (1 << 18)), offset};
    if (forward.pack(&bits)) {
      CHECK((bits >> 58) == 0);
      CHECK(Forward::unpack(bits) == forward);
      CHECK(Forward::unpack(bits + 63 * Forward::kBlockStep) == forward.advanced(63 * 4096));
      REQUIRE(reverse.pack(&bits));
      CHECK((bits >> 58) == 0);
      CHECK(Reverse::unpack(bits) == reverse);
      CHECK(Reverse::unpack(bits + 63 * Reverse::kBlockStep) == reverse.advanced(63 * 4096));
    } else {
      CHECK(offset >= (uint64_t{1} << 49) - kRegion);
      CHECK_FALSE(reverse.pack(&bits));
    }
  }
  CHECK_FALSE(Forward{{0, 100}, State::kMapped}.pack(&bits));
  CHECK_FALSE(Forward{{kNoKey, 0}, State::kMapped}.pack(&bits));
  CHECK_FALSE(Forward{{1 << 14, 0}, State::kMapped}.pack(&bits));
  CHECK_FALSE(Reverse{1 << 18, 0}.pack(&bits));
}
