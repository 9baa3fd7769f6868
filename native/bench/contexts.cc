// What a request's context costs: bound when it is submitted, found by its child, released when it completes. In slots,
// where the id is ours; in the table, where the key is not; each beside the packages that one would take. And what an
// interposer costs that can be taken out under load.
//
//   bench_contexts [--quick] [--only GROUP] [--json FILE]
//
// So many contexts are in flight; 16 are released, at random, and 16 bound in their place, each of which is found at
// once, as a child that is issued in its parent's submission does.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "bench/bench.h"
#include "bench/context_load.h"
#include "bench/context_peers.h"
#include "bench/dispatch.h"

namespace {

using namespace bench;
using sm::ContextTable;

using ManyTable = InTable<ContextTable::Writers::kMany>;
using OneTable = InTable<ContextTable::Writers::kOne>;

double measure(const Load& load, auto& contexts) {
  switch (load.mode) {
    case Mode::kOne:
      return oneThread(load, contexts);
    case Mode::kTwo:
      return twoThreads(load, contexts);
    case Mode::kHanded:
      return handed(load, contexts);
  }
  return 0;
}

template <class Contexts>
Contender contender(const std::string& name, const Load& load, double times = 0) {
  return {name,
          [load] {
            auto contexts = std::make_unique<Contexts>(load.mode == Mode::kTwo ? 2 * load.inFlight : load.inFlight);
            return std::vector<double>{measure(load, *contexts)};
          },
          {},
          times};
}

// What one takes from a package. `times`: the goal beside tables that several threads may use.
void addPeers(Group* group, const Load& load, double times) {
  auto& all = group->contenders;
#if SM_HAVE_ABSL
  all.push_back(contender<InMap<AbslHash, std::mutex>>("absl::flat_hash_map, std::mutex", load, times));
#endif
#if SM_HAVE_BOOST_FLAT
  all.push_back(contender<InMap<BoostHash, std::mutex>>("boost::unordered_flat_map, std::mutex", load, times));
#endif
#if SM_HAVE_BOOST_CONCURRENT
  all.push_back(contender<InBoost>("boost::concurrent_flat_map", load, times));
#endif
#if SM_HAVE_TBB
  all.push_back(contender<InTbb>("tbb::concurrent_hash_map", load, times));
#endif
#if SM_HAVE_CUCKOO
  all.push_back(contender<InCuckoo>("libcuckoo::cuckoohash_map", load, times));
#endif
  all.push_back(contender<InMap<StdHash, std::mutex>>("std::unordered_map, std::mutex", load, times));
#if SM_HAVE_ABSL
  if (load.mode == Mode::kOne) {
    all.push_back(contender<InMap<AbslHash, NoMutex>>("absl::flat_hash_map, no lock", load));
  }
#endif
}

void skipPeers(Report* report) {
#if !SM_HAVE_ABSL
  report->skip({"absl::flat_hash_map", "apt-get install libabsl-dev"});
#endif
#if !SM_HAVE_BOOST_FLAT
  report->skip({"boost::unordered_flat_map", "apt-get install libboost1.81-dev, or newer"});
#endif
#if !SM_HAVE_BOOST_CONCURRENT
  report->skip({"boost::concurrent_flat_map", "apt-get install libboost1.83-dev, or newer: not in Debian 12"});
#endif
#if !SM_HAVE_BOOST_LOCKFREE
  report->skip({"boost::lockfree's freelist", "apt-get install libboost-dev"});
#endif
#if !SM_HAVE_TBB
  report->skip({"tbb::concurrent_hash_map", "apt-get install libtbb-dev"});
#endif
#if !SM_HAVE_CUCKOO
  report->skip({"libcuckoo::cuckoohash_map", "apt-get install libcuckoo-dev"});
#endif
}

std::string wordsOf(Mode mode) {
  return mode == Mode::kOne ? "one thread" : mode == Mode::kTwo ? "two threads" : "handed to another thread";
}

Group ownIds(const Load& load) {
  const double times = load.mode == Mode::kOne ? 2 : load.mode == Mode::kTwo ? 7 : 2.5;
  Group group{"own ids, " + std::to_string(load.inFlight) + " in flight, " + wordsOf(load.mode), "ns", {"a cycle"}, {}};
  group.contenders.push_back(contender<InSlots>("slots", load));
  addPeers(&group, load, times);
#if SM_HAVE_BOOST_LOCKFREE
  group.contenders.push_back(contender<InBoostFreelist>("boost::lockfree's freelist", load, 1));
#endif
  if (load.mode == Mode::kHanded) group.contenders.push_back(contender<InNothing>("handing over alone", load));
  return group;
}

Group anyKeys(const Load& load) {
  Group group{"any keys, " + std::string(load.keys->name) + ", " + std::to_string(load.inFlight) + " in flight, " +
                  wordsOf(load.mode),
              "ns",
              {"a cycle"},
              {}};
  group.contenders.push_back(contender<ManyTable>("table", load));
  if (load.mode == Mode::kOne) group.contenders.push_back(contender<OneTable>("table, one writer at a time", load));
  addPeers(&group, load, load.mode == Mode::kOne ? 1.5 : 2.5);
  return group;
}

// The worst pattern of keys against the best.
Group patterns(uint32_t inFlight, uint64_t cycles) {
  Group group{"any keys, " + std::to_string(inFlight) + " in flight", "times", {"the worst pattern to the best"}, {}};
  for (const Mode mode : {Mode::kOne, Mode::kTwo}) {
    group.contenders.push_back({wordsOf(mode),
                                [=] {
                                  std::vector<double> each;
                                  for (const Keys& keys : kKeys) {
                                    ManyTable table(2 * inFlight);
                                    each.push_back(measure({mode, inFlight, cycles, &keys}, table));
                                  }
                                  const auto [best, worst] = std::minmax_element(each.begin(), each.end());
                                  return std::vector<double>{*worst / *best};
                                },
                                {2}});
  }
  return group;
}

void tellPages() {
  const sm::ContextSlots slots(1 << 20, 2);
  const ContextTable table(1 << 16);
  for (const auto& [name, pages] :
       {std::pair("slots, 2 x 1048576", &slots.pages()), {"table, 65536", &table.pages()}}) {
    for (size_t at = 0; at < pages->bytes(); at += 4096) static_cast<volatile char*>(pages->data())[at] = 0;
    std::printf("%s: %zu KiB, large pages %s, of which the system backs %zu KiB\n", name, pages->bytes() >> 10,
                pages->askedLarge() ? "asked for" : "not to be had", pages->backedLarge() >> 10);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments("bench_contexts", argc, argv);
  const uint64_t cycles = arguments.quick ? 1 << 16 : 1 << 18;
  Report report("contexts", arguments.quick ? 2 : 7, arguments.only);
  Idler idler;
  tellPages();
  skipPeers(&report);
  for (const Mode mode : {Mode::kOne, Mode::kTwo, Mode::kHanded}) {
    for (const uint32_t inFlight : {64u, 1024u, 8192u, 65536u}) {
      report.run(ownIds({mode, inFlight, cycles, &kKeys[0]}));
    }
  }
  for (const Mode mode : {Mode::kOne, Mode::kTwo}) {
    for (const uint32_t inFlight : {64u, 65536u}) {
      for (const Keys& keys : kKeys) report.run(anyKeys({mode, inFlight, cycles, &keys}));
    }
  }
  for (const uint32_t inFlight : {64u, 65536u}) report.run(patterns(inFlight, cycles));
  for (const int threads : {1, 2}) report.run(dispatchGroup(threads, 10 * cycles));
  return arguments.json.empty() || report.write(arguments.json) ? 0 : 1;
}
