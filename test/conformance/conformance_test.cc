// Every association with every correlation that it allows, through every volume, on every kind of device, at queue
// depths 1, 32 and 256: nothing that is mapped may be wrong, and the recall is what volumes.cc foretells.
//
// The fast tier runs each association, correlation and volume once, the devices and depths in turn; SM_NIGHTLY=1 all of
// them. SM_CELLS=n runs every n-th of these alone; SM_ONLY=text those whose name has it. SM_SEED=n gives other seeds,
// and each cell another device and depth. SM_CAPABILITIES=path writes what was found there, and what it costs, for the
// capability table: each once, with uring at depth 32.
//
// Not on the null device: it holds no bytes that a mapping could be held against.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "cell.h"
#include "intercept/probe.h"

using namespace conformance;

namespace {

constexpr uint32_t kDepths[] = {1, 32, 256};

std::string nameOf(const Cell& cell) {
  return cell.volume.name + ", " + cell.association + "/" + cell.correlation + ", " + conformance::nameOf(cell.medium) +
         ", depth " + std::to_string(cell.depth);
}

std::vector<Medium> media() {
  std::vector<Medium> all = {Medium::kUring, Medium::kPosix, Medium::kRecording};
  if (geteuid() == 0 && access("/dev/loop-control", R_OK | W_OK) == 0) {
    all.push_back(Medium::kLoop);
  } else {
    MESSAGE("partly skipped: loop devices need root and /dev/loop-control");
  }
  return all;
}

std::vector<Cell> cells() {
  const std::vector<Medium> all = media();
  const bool nightly = std::getenv("SM_NIGHTLY") != nullptr, table = std::getenv("SM_CAPABILITIES") != nullptr;
  const char* every = std::getenv("SM_CELLS");
  const uint64_t step = every ? std::max(1, std::atoi(every)) : 1;
  std::vector<Cell> out;
  // Other seeds, and in the quick run other media and depths for each.
  const char* turn = std::getenv("SM_SEED");
  const uint64_t first = turn ? std::strtoull(turn, nullptr, 10) : 0;
  uint64_t number = first, seed = first * 10'000, count = 0;
  for (const VolumeKind& volume : volumeKinds()) {
    std::vector<Medium> onto = all;
    if (volume.devices == 0) std::erase(onto, Medium::kRecording);  // a device that no volume opens itself
    for (const sm::AssociationInfo& association : sm::associations()) {
      if (association.kernel) continue;
      for (const std::string& correlation : association.correlations) {
        for (size_t medium = 0; medium < onto.size(); ++medium) {
          for (size_t depth = 0; depth < std::size(kDepths); ++depth) {
            const size_t inTurn = number / onto.size() % std::size(kDepths);
            if (table ? medium != 0 || kDepths[depth] != 32
                      : !nightly && (medium != number % onto.size() || depth != inTurn)) {
              continue;
            }
            ++seed;
            if (count++ % step != 0) continue;
            out.push_back({volume, association.name, correlation, onto[medium], kDepths[depth], seed});
          }
        }
        ++number;
      }
    }
  }
  return out;
}

// One JSON object a line.
void write(std::ofstream& file, const Cell& cell, const Outcome& outcome, double cost) {
  auto share = [](const Share& share, Recall expected) {
    static constexpr const char* kExpected[] = {"none", "some", "whole", "all"};
    return "{\"expected\":\"" + std::string(kExpected[static_cast<int>(expected)]) +
           "\",\"bytes\":" + std::to_string(share.of) + ",\"mapped\":" + std::to_string(share.mapped) +
           ",\"moving\":" + std::to_string(share.moving) + ",\"small\":" + std::to_string(share.small) + "}";
  };
  file << "{\"association\":\"" << cell.association << "\",\"correlation\":\"" << cell.correlation << "\",\"volume\":\""
       << cell.volume.name << "\",\"writes\":" << share(outcome.writes, cell.volume.writes.of(cell.association))
       << ",\"reads\":" << share(outcome.reads, cell.volume.reads.of(cell.association))
       << ",\"compared\":" << outcome.compared << ",\"wrong\":" << outcome.wrong
       << ",\"nsPerRequest\":" << std::lround(cost) << ",\"unmapped\":{";
  const char* comma = "";
  for (const auto& [reason, bytes] : outcome.unmapped) {
    file << comma << "\"" << reason << "\":" << bytes;
    comma = ",";
  }
  file << "}}\n";
}

}  // namespace

TEST_CASE("every association and correlation, through every volume, onto every device") {
  const char* only = std::getenv("SM_ONLY");
  const char* path = std::getenv("SM_CAPABILITIES");
  std::ofstream file;
  if (path) file.open(path);
  uint64_t ran = 0, compared = 0, owners = 0, failures = 0;
  for (const Cell& cell : cells()) {
    const std::string name = nameOf(cell);
    if (only && name.find(only) == std::string::npos) continue;
    const Outcome outcome = run(cell);
    ++ran;
    compared += outcome.compared;
    owners += outcome.owners;
    failures += outcome.failures;
    CHECK_MESSAGE(outcome.wrong == 0, name);
    for (const std::string& complaint : outcome.complaints) FAIL_CHECK(name << ": " << complaint);
    if (!path) continue;
    const double cost = costOf(cell);
    CHECK_MESSAGE(cost >= 0, name);
    write(file, cell, outcome, cost);
  }
  MESSAGE(ran << " cells; " << compared << " bytes of devices compared with what was acknowledged, " << owners
              << " with the signatures in them; " << failures << " requests failed, as devices did");
  CHECK(ran > 0);
  CHECK(compared > 0);
  CHECK(owners > 0);
  CHECK(failures > 0);
}
