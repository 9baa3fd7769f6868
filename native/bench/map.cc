// The address map, and its structure beside the trees that one would take for it: 10 million mappings of 4 KiB (2
// million where the trees, which take their time, are beside it), at random over 1 TiB, in order, and dense (every
// region half full), in batches of 32.
//
//   bench_map [--quick] [--only GROUP] [--json FILE]
//
// Every round fills an empty map, asks it, and drops it. What is told of memory is what a child process holds after it
// filled one.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>

#include "bench/bench.h"
#include "bench/tree_map.h"
#include "map/address_map.h"

#if SM_HAVE_ABSL
#include <absl/container/btree_map.h>
#endif

namespace {

using namespace sm;

using StdTree = std::map<uint64_t, TreeEntry>;
#if SM_HAVE_ABSL
using AbslTree = absl::btree_map<uint64_t, TreeEntry>;
#endif

constexpr uint64_t kBlock = 4096;
constexpr size_t kBatch = 32, kBatches = 312'500;

// The mappings to make, in turn: blocks of a disk and of a device.
struct Load {
  std::string name;
  std::vector<uint32_t> virt, place;
  size_t size() const { return virt.size(); }
  Range rangeOf(size_t i) const { return {virt[i] * kBlock, (virt[i] + uint64_t{1}) * kBlock}; }
  uint64_t placeOf(size_t i) const { return place[i] * kBlock; }
};

// The i-th of 2^bits numbers in an order that looks random: each step can be undone, so that none comes twice.
uint32_t scattered(uint64_t i, int bits) {
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  for (int round = 0; round < 3; ++round) {
    i = i * 0x9e3779b97f4a7c15ull & mask;
    i ^= i >> (bits / 2);
  }
  return static_cast<uint32_t>(i);
}

// Blocks of the disk are overwritten now and then; each write goes to a place of its own, as those of a log do, or to
// one at random, so that some have several owners, as where blocks are deduplicated. 2^bits blocks.
Load randomLoad(size_t count, int bits, bool sharing) {
  Load load{sharing ? "random, places shared by some" : "random", {}, {}};
  std::mt19937_64 random(1);
  for (size_t i = 0; i < count; ++i) {
    load.virt.push_back(static_cast<uint32_t>(random() >> (64 - bits)));
    load.place.push_back(sharing ? static_cast<uint32_t>(random() >> (64 - bits)) : scattered(i, bits));
  }
  return load;
}

Load sequentialLoad(size_t count) {
  Load load{"sequential", std::vector<uint32_t>(count), std::vector<uint32_t>(count)};
  std::iota(load.virt.begin(), load.virt.end(), 0);
  std::iota(load.place.begin(), load.place.end(), 1000);
  return load;
}

// One of every two blocks of either side, all in random order.
Load denseLoad(size_t count) {
  Load load = sequentialLoad(count);
  load.name = "half full";
  std::mt19937_64 random(2);
  for (auto* side : {&load.virt, &load.place}) {
    for (uint32_t& block : *side) block = 2 * block + random() % 2;
    std::shuffle(side->begin(), side->end(), random);
  }
  return load;
}

// What is asked for: a tenth, at random, side by side, so that it is the map that is waited for and not this.
Load someOf(const Load& load) {
  Load some{load.name, {}, {}};
  std::mt19937_64 random(3);
  for (size_t i = 0; i < kBatch * (load.size() / kBatch / 10); ++i) {
    const size_t k = random() % load.size();
    some.virt.push_back(load.virt[k]);
    some.place.push_back(load.place[k]);
  }
  return some;
}

Forward forwardOf(uint64_t place) { return {{1, place}, State::kMapped}; }

// One direction, over some tree or the extent map, alone or in batches.
template <class Tree>
struct OverTree {
  TreeMap<Tree> map;
  void fill(const Load& load) {
    for (size_t i = 0; i < load.size(); ++i) {
      uint64_t bits = 0;
      forwardOf(load.placeOf(i)).pack(&bits);
      map.assign(load.rangeOf(i), bits);
    }
  }
  uint64_t ask(const Load& asked) const {
    uint64_t found = 0, bits = 0;
    for (size_t i = 0; i < asked.size(); ++i) found += map.covers(asked.rangeOf(i), &bits);
    return found;
  }
};

template <size_t kAhead>
struct OverExtents {
  ExtentMap<Forward> map;
  void fetch(const Load& load, size_t from) const {
    if (kAhead == 1) return;
    const Region<Forward>* regions[kAhead];
    for (size_t k = 0; k < kAhead; ++k) regions[k] = map.prefetch(load.rangeOf(from + k).begin);
    for (size_t k = 0; k < kAhead; ++k) {
      if (regions[k]) regions[k]->prefetch(load.rangeOf(from + k).begin);
    }
  }
  void fill(const Load& load) {
    for (size_t from = 0; from < load.size(); from += kAhead) {
      fetch(load, from);
      for (size_t i = from; i < from + kAhead; ++i) map.assign(load.rangeOf(i), forwardOf(load.placeOf(i)));
    }
  }
  uint64_t ask(const Load& asked) const {
    uint64_t found = 0;
    Forward value;
    for (size_t from = 0; from < asked.size(); from += kAhead) {
      fetch(asked, from);
      for (size_t k = 0; k < kAhead; ++k) found += map.covers(asked.rangeOf(from + k), &value);
    }
    return found;
  }
};

// The whole map, both directions.
struct Whole {
  AddressMap map;
  DiskKey disk = map.internDisk({"vm", "disk"});
  DeviceKey device = map.internDevice("device");

  void fill(const Load& load) {
    Mapping batch[kBatch];
    for (size_t from = 0; from < load.size(); from += kBatch) {
      for (size_t k = 0; k < kBatch; ++k) {
        batch[k] = {disk, load.rangeOf(from + k), {device, load.placeOf(from + k)}, State::kMapped};
      }
      std::lock_guard lock(map.mutex());
      map.replace(batch);
    }
  }
  uint64_t locate(const Load& asked) const {
    uint64_t found = 0;
    Mapping batch[kBatch];
    for (size_t from = 0; from < asked.size(); from += kBatch) {
      for (size_t k = 0; k < kBatch; ++k) batch[k] = {disk, asked.rangeOf(from + k)};
      std::lock_guard lock(map.mutex());
      map.locateEach(batch);
      for (const Mapping& each : batch) found += each.state == State::kMapped;
    }
    return found;
  }
  uint64_t owners(const Load& asked) const {
    uint64_t found = 0;
    Mapping batch[kBatch];
    for (size_t from = 0; from < asked.size(); from += kBatch) {
      for (size_t k = 0; k < kBatch; ++k) {
        batch[k] = {kNoKey, {0, kBlock}, {device, asked.placeOf(from + k)}};
      }
      std::lock_guard lock(map.mutex());
      map.ownersEach(batch);
      for (const Mapping& each : batch) found += each.state == State::kMapped;
    }
    return found;
  }
};

template <class F>
double nsEach(size_t count, F&& f) {
  const double from = bench::threadNs();
  f();
  return (bench::threadNs() - from) / static_cast<double>(count);
}

// Nearly all that is asked for is there; a map that finds less is not measured but broken.
void mustFind(uint64_t found, size_t asked) {
  if (found * 10 >= asked * 8) return;
  std::fprintf(stderr, "only %llu of %zu mappings were found\n", static_cast<unsigned long long>(found), asked);
  std::exit(1);
}

template <class Map>
bench::Contender oneDirection(const std::string& name, const Load& load, const Load& asked) {
  return {name, [&load, &asked] {
            auto map = std::make_unique<Map>();
            uint64_t found = 0;
            const double fill = nsEach(load.size(), [&] { map->fill(load); });
            const double ask = nsEach(asked.size(), [&] { found = map->ask(asked); });
            mustFind(found, asked.size());
            return std::vector<double>{fill, ask};
          }};
}

bench::Contender bothDirections(const Load& load, const Load& asked, std::vector<double> goals) {
  return {load.name,
          [&load, &asked] {
            auto whole = std::make_unique<Whole>();
            uint64_t found = 0;
            const double fill = nsEach(load.size(), [&] { whole->fill(load); });
            const double locate = nsEach(asked.size(), [&] { found = whole->locate(asked); });
            mustFind(found, asked.size());
            const double owners = nsEach(asked.size(), [&] { found = whole->owners(asked); });
            mustFind(found, asked.size());
            return std::vector<double>{fill, locate, owners};
          },
          std::move(goals)};
}

template <class Map>
bench::Contender memory(const std::string& name, const Load& load, double goal) {
  return {name,
          [&load] {
            const double bytes = bench::bytesAfter([&] {
              auto* map = new Map;
              map->fill(load);
            });
            return std::vector<double>{bytes / static_cast<double>(load.size())};
          },
          {goal}};
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Arguments arguments("bench_map", argc, argv);
  const bool quick = arguments.quick;
  const size_t count = kBatch * (quick ? kBatches / 10 : kBatches);
  const int bits = quick ? 25 : 28;
  const Load atRandom = randomLoad(count, bits, false), few = randomLoad(count / 5, bits, false),
             sharing = randomLoad(count, bits, true), inOrder = sequentialLoad(kBatch * kBatches),
             dense = denseLoad(count);
  const Load askedAtRandom = someOf(atRandom), askedSharing = someOf(sharing), askedFew = someOf(few),
             askedInOrder = someOf(inOrder), askedDense = someOf(dense);

  bench::Idler idler;
  bench::Report report("map", 7, arguments.only);
  bench::Group one{"one direction, random, a fifth of them", "ns", {"update", "lookup"}, {}};
  bench::Group bytes{"memory, one direction, random, a fifth of them", "bytes a mapping", {"after all"}, {}};
  one.contenders.push_back(oneDirection<OverExtents<kBatch>>("extent map, in batches", few, askedFew));
  one.contenders.push_back(oneDirection<OverExtents<1>>("extent map, one by one", few, askedFew));
  one.contenders.push_back(oneDirection<OverTree<StdTree>>("std::map", few, askedFew));
  bytes.contenders.push_back(memory<OverExtents<kBatch>>("extent map", few, 0));
  bytes.contenders.push_back(memory<OverTree<StdTree>>("std::map", few, 0));
#if SM_HAVE_ABSL
  one.contenders.push_back(oneDirection<OverTree<AbslTree>>("absl::btree_map", few, askedFew));
  bytes.contenders.push_back(memory<OverTree<AbslTree>>("absl::btree_map", few, 0));
#else
  report.skip({"absl::btree_map", "apt-get install libabsl-dev"});
#endif

  const bench::Group both{
      "address map, both directions",
      "ns",
      {"update", "locate", "owners"},
      {bothDirections(atRandom, askedAtRandom, {200, 150, 150}), bothDirections(sharing, askedSharing, {200, 150, 150}),
       bothDirections(inOrder, askedInOrder, {15}), bothDirections(dense, askedDense, {200, 150, 150})}};
  const bench::Group whole{"memory, address map, both directions",
                           "bytes a mapping",
                           {"after all"},
                           {memory<Whole>(atRandom.name, atRandom, 96), memory<Whole>(inOrder.name, inOrder, 0.1),
                            memory<Whole>(dense.name, dense, 24)}};
  // Memory first, while the heap is empty: a child of a process with much of it free would find room there.
  report.run(whole);
  report.run(bytes);
  report.run(both);
  report.run(one);
  return arguments.json.empty() || report.write(arguments.json) ? 0 : 1;
}
