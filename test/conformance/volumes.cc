// The volumes of the suite, and what was foretold of each before it was run.
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cell.h"

namespace conformance {

namespace {

constexpr Recall kNone = Recall::kNone, kSome = Recall::kSome, kAll = Recall::kAll;

// Children that are clones, or are not, and carry the parent's own memory.
constexpr Foretold kCloned{kAll, kAll, kAll}, kFresh{kNone, kAll, kAll};
// The payload is copied on the way; it is transformed as well.
constexpr Foretold kCopiedClones{kAll, kNone, kAll}, kCopiedFresh{kNone, kNone, kAll}, kNothing{kNone, kNone, kNone};

VolumeKind shipped(const std::string& type, const std::string& issue, size_t devices, Options format) {
  format.push_back({"issue", issue});
  const Foretold& foretold = issue == "clone" ? kCloned : kFresh;
  return {type + " " + issue, type, devices, std::move(format), foretold, foretold};
}

VolumeKind fixture(const std::string& name, const std::string& file, size_t devices, Options format, Foretold writes,
                   Foretold reads) {
  return {name, SM_FIXTURES "/" + file + ".so", devices, std::move(format), writes, reads, false};
}

}  // namespace

std::vector<VolumeKind> volumeKinds() {
  std::vector<VolumeKind> kinds;
  for (const char* issue : {"clone", "fresh"}) {
    kinds.push_back(shipped("extent", issue, 2, {{"extentSize", "16K"}}));
    kinds.push_back(shipped("stripe", issue, 2, {{"chunkSize", "8K"}}));
  }
  kinds.push_back(fixture("permuting clone", "permuting", 2, {{"issue", "clone"}}, kCloned, kCloned));
  kinds.push_back(fixture("permuting fresh", "permuting", 2, {}, kFresh, kFresh));
  return kinds;
}

const char* nameOf(Medium medium) {
  static constexpr const char* kNames[] = {"uring", "posix", "recording", "loop"};
  return kNames[static_cast<int>(medium)];
}

}  // namespace conformance
