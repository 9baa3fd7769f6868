// Every association with every correlation that it allows, through every volume, on every kind of device, at queue
// depths 1, 32 and 256: nothing that is mapped may be wrong, and the recall is what volumes.cc foretells.
//
// The fast tier runs each association, correlation and volume once, the devices and depths in turn; SM_NIGHTLY=1 all of
// them. SM_ONLY=text runs the cells alone whose name has it. SM_CAPABILITIES=path writes what was found there.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "cell.h"
#include "intercept/probe.h"

using namespace conformance;

namespace {

constexpr uint32_t kDepths[] = {1, 32, 256};

std::string nameOf(const Cell& cell) {
  return cell.volume.name + ", " + cell.association + "/" + cell.correlation + ", " +
         conformance::nameOf(cell.medium) + ", depth " + std::to_string(cell.depth);
}

std::vector<Medium> media() {
  std::vector<Medium> all = {Medium::kUring, Medium::kPosix, Medium::kRecording};
  if (geteuid() == 0 && access("/dev/loop-control", R_OK | W_OK) == 0) {
    all.push_back(Medium::kLoop);
  } else {
    MESSAGE("skipped on loop devices: they need root and /dev/loop-control");
  }
  return all;
}

std::vector<Cell> cells() {
  const std::vector<Medium> onto = media();
  const bool all = std::getenv("SM_NIGHTLY") != nullptr;
  std::vector<Cell> out;
  uint64_t number = 0;
  for (const VolumeKind& volume : volumeKinds()) {
    if (volume.type.ends_with(".so") && access(volume.type.c_str(), R_OK) != 0) {
      MESSAGE("skipped for volume " << volume.name << ": " << volume.type << " is not built");
      continue;
    }
    for (const sm::AssociationInfo& association : sm::associations()) {
      for (const std::string& correlation : association.correlations) {
        for (size_t medium = 0; medium < onto.size(); ++medium) {
          for (size_t depth = 0; depth < std::size(kDepths); ++depth) {
            if (!all && (medium != number % onto.size() || depth != number / onto.size() % std::size(kDepths))) continue;
            out.push_back({volume, association.name, correlation, onto[medium], kDepths[depth], out.size() + 1});
          }
        }
        ++number;
      }
    }
  }
  return out;
}

// A line of the table: tab-separated, the reasons as name=bytes.
void write(std::ofstream& file, const Cell& cell, const Outcome& outcome) {
  auto share = [](const Share& share) { return std::to_string(share.mapped) + "/" + std::to_string(share.of); };
  file << cell.association << '\t' << cell.correlation << '\t' << cell.volume.name << '\t'
       << conformance::nameOf(cell.medium) << '\t' << cell.depth << '\t' << share(outcome.writes) << '\t'
       << share(outcome.reads) << '\t' << outcome.compared << '\t' << outcome.wrong;
  for (const auto& [reason, bytes] : outcome.unmapped) file << '\t' << reason << '=' << bytes;
  file << '\n';
}

}  // namespace

TEST_CASE("every association and correlation, through every volume, onto every device") {
  const char* only = std::getenv("SM_ONLY");
  const char* path = std::getenv("SM_CAPABILITIES");
  std::ofstream file;
  if (path) file.open(path);
  uint64_t ran = 0, compared = 0, owners = 0;
  for (const Cell& cell : cells()) {
    const std::string name = nameOf(cell);
    if (only && name.find(only) == std::string::npos) continue;
    const Outcome outcome = run(cell);
    ++ran;
    compared += outcome.compared;
    owners += outcome.owners;
    CHECK_MESSAGE(outcome.wrong == 0, name);
    for (const std::string& complaint : outcome.complaints) FAIL_CHECK(name << ": " << complaint);
    if (path) write(file, cell, outcome);
  }
  MESSAGE(ran << " cells; " << compared << " bytes of devices compared with what was acknowledged, " << owners
              << " with the signatures in them");
  CHECK(ran > 0);
  CHECK(compared > 0);
  CHECK(owners > 0);
}
