// What interception adds to the path of an I/O: virtual disks on null devices, 4 KiB at depth 32, without and with a
// probe in turn.
//
//   bench_path [--quick] [--only GROUP] [--json FILE]
//   bench_path --count PATTERN/ASSOCIATION --operations N   runs N I/Os once, for tools that count instructions;
//                                                           ASSOCIATION `none` is without a probe
#include <cstdio>
#include <cstdlib>

#include "bench/bench.h"
#include "bench/path_rig.h"

namespace {

using namespace bench;

constexpr uint64_t kTiB = uint64_t{1} << 40, kFill = 64 << 10;

// Rounds count up, so that none repeats another's addresses.
uint64_t nextSeed() {
  static uint64_t seed = 0;
  return ++seed;
}

// The I/O thread's CPU time for each I/O, and what it is more than without a probe in the same round.
Group cpuGroup(PathRig& rig, const std::string& name, const std::string& pattern, uint64_t operations, double goal,
               bool filled) {
  auto base = std::make_shared<double>(0);
  Group group{name + ", " + pattern, "ns", {"CPU per I/O", "added"}, {}};
  group.contenders.push_back({"without probe", [&rig, base, pattern, operations] {
                                *base = rig.run(pattern, operations, nextSeed()).cpu;
                                return std::vector<double>{*base, 0};
                              }});
  const std::vector<std::pair<std::string, ProbeKind>> kinds = {
      {"serial", {}},           {"serial, with events", {"serial", "descend", true}},
      {"tag", {"tag"}},         {"pointer", {"pointer"}},
      {"address", {"address"}}, {"serial, ascend", {"serial", "ascend"}}};
  for (const auto& [title, kind] : kinds) {
    if (!filled && title != "serial") continue;
    group.contenders.push_back({title,
                                [&rig, base, pattern, operations, filled, kind = kind] {
                                  rig.attach(kind);
                                  // What is measured is watching, not learning.
                                  if (filled) rig.fill(kFill);
                                  const double cost = rig.run(pattern, operations, nextSeed()).cpu;
                                  rig.detach();
                                  return std::vector<double>{cost, cost - *base};
                                },
                                {0, goal}});
  }
  return group;
}

double elapsed(PathRig& rig, const std::string& pattern, uint64_t operations, bool probed) {
  if (probed) {
    rig.attach({});
    rig.fill(kFill);
  }
  const double cost = rig.run(pattern, operations, nextSeed()).elapsed;
  rig.detach();
  return cost;
}

Group elapsedGroup(PathRig& one, PathRig& two, const std::string& pattern, uint64_t operations) {
  Group group{"null devices, " + pattern, "ns", {"elapsed per I/O"}, {}};
  for (const bool probed : {false, true}) {
    for (PathRig* rig : {&one, &two}) {
      const std::string title =
          std::string(rig == &one ? "one I/O thread" : "two I/O threads, a disk each") + (probed ? ", with probe" : "");
      group.contenders.push_back({title,
                                  [rig, probed, pattern, operations] {
                                    return std::vector<double>{elapsed(*rig, pattern, operations, probed)};
                                  },
                                  {rig == &two ? 0.0
                                   : probed    ? 200.0
                                               : 100.0}});
    }
  }
  return group;
}

// What a second I/O thread brings, where there are two cores for them: 1.8 times as many I/Os.
Group threadsGroup(PathRig& one, PathRig& two, const std::string& pattern, uint64_t operations) {
  Group group{"null devices, " + pattern, "times", {"two I/O threads to one"}, {}};
  for (const bool probed : {false, true}) {
    group.contenders.push_back({probed ? "with probe" : "without probe",
                                [&one, &two, probed, pattern, operations] {
                                  const double alone = elapsed(one, pattern, operations, probed);
                                  return std::vector<double>{elapsed(two, pattern, operations, probed) / alone};
                                },
                                {1 / 1.8}});
  }
  return group;
}

int count(const std::string& what, uint64_t operations) {
  const size_t slash = what.find('/');
  if (slash == std::string::npos || operations == 0) {
    std::fprintf(stderr, "bench_path: --count takes PATTERN/ASSOCIATION and needs --operations N\n");
    return 2;
  }
  PathOptions options;
  options.uring = false;  // a wait in io_uring stops all threads of a program that valgrind runs
  PathRig rig(options);
  const std::string association = what.substr(slash + 1);
  if (association != "none") rig.attach({association});
  rig.fill(kFill);
  rig.run(what.substr(0, slash), operations, 1);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string counted;
  uint64_t operations = 0;
  const Arguments arguments(
      "bench_path", argc, argv,
      {{"--count", [&](const std::string& value) { counted = value; }},
       {"--operations", [&](const std::string& value) { operations = std::strtoull(value.c_str(), nullptr, 10); }}});
  if (!counted.empty()) return count(counted, operations);

  Report report("path", 7, arguments.only);
  const uint64_t some = arguments.quick ? 200'000 : 2'000'000;
  {
    PathRig small({});
    for (const char* pattern : {"randread", "randwrite"}) {
      report.run(cpuGroup(small, "64 MiB disk", pattern, some, 60, true));
    }
  }
  {
    PathOptions options;
    options.diskBytes = kTiB;
    options.volume = "stripe";
    PathRig large(options);
    report.run(cpuGroup(large, "1 TiB disk", "randwrite", some, 250, false));
  }
  {
    PathRig one({});
    PathOptions options;
    options.threads = 2;
    PathRig two(options);
    for (const char* pattern : {"randread", "randwrite"}) {
      report.run(elapsedGroup(one, two, pattern, some));
      report.run(threadsGroup(one, two, pattern, some / 2));
    }
  }
  return arguments.json.empty() || report.write(arguments.json) ? 0 : 1;
}
