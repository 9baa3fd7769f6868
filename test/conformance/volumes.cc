// The volumes of the suite, and what was foretold of each before it was run.
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cell.h"
#include "stack.h"

namespace conformance {

namespace {

constexpr Recall kNone = Recall::kNone, kSome = Recall::kSome, kWhole = Recall::kWhole, kAll = Recall::kAll;

// Children that are clones, or are not, and carry the parent's own memory.
constexpr Foretold kCloned{kAll, kAll, kAll}, kFresh{kNone, kAll, kAll};
// The payload is copied on the way; it is transformed as well.
constexpr Foretold kCopiedClones{kAll, kNone, kAll}, kCopiedFresh{kNone, kNone, kAll}, kNothing{kNone, kNone, kNone};

VolumeKind shipped(const std::string& type, const std::string& issue, Options format) {
  format.push_back({"issue", issue});
  const Foretold& foretold = issue == "clone" ? kCloned : kFresh;
  VolumeKind kind{type + " " + issue, type, 2, std::move(format), foretold, foretold};
  kind.placesAll = type == "stripe";
  return kind;
}

// A device for each disk. It is not formatted, and so takes its option when it is opened.
VolumeKind asItIs(const std::string& issue) {
  const Foretold& foretold = issue == "clone" ? kCloned : kFresh;
  VolumeKind kind{"nbd " + issue, "nbd", kDisks, {}, foretold, foretold};
  kind.open = {{"issue", issue}};
  kind.placesAll = true;
  return kind;
}

// A file for each disk, in a directory.
VolumeKind inDirectory(const std::string& issue) {
  VolumeKind kind = asItIs(issue);
  kind.name = "kernel " + issue;
  kind.type = "kernel";
  kind.devices = 0;
  return kind;
}

VolumeKind fixture(const std::string& name, const std::string& file, Options format, Foretold writes, Foretold reads) {
  return {name, SM_FIXTURES "/" + file + ".so", 2, std::move(format), writes, reads};
}

VolumeKind placing(VolumeKind kind, size_t places = 1) {
  kind.placesAll = true;
  kind.places = places;
  return kind;
}

VolumeKind between(double least, double most, VolumeKind kind) {
  kind.least = least;
  kind.most = most;
  return kind;
}

}  // namespace

VolumeKind cleaningLog() {
  // Where it was written there is no knowing, until it is read.
  constexpr Foretold kMoved{kSome, kSome, kSome};
  return {"log, cleaning", "log", 2, {{"segmentSize", "64K"}, {"clean", "50"}}, kMoved, kCloned, 0.25};
}

std::vector<VolumeKind> volumeKinds() {
  std::vector<VolumeKind> kinds;
  for (const char* issue : {"clone", "fresh"}) {
    kinds.push_back(shipped("extent", issue, {{"extentSize", "16K"}}));
    kinds.push_back(shipped("stripe", issue, {{"chunkSize", "8K"}}));
    kinds.push_back(shipped("log", issue, {{"segmentSize", "64K"}}));
  }
  kinds.push_back(cleaningLog());
  kinds.push_back(placing(fixture("permuting clone", "permuting", {{"issue", "clone"}}, kCloned, kCloned)));
  kinds.push_back(placing(fixture("permuting fresh", "permuting", {}, kFresh, kFresh)));
  kinds.push_back(fixture("copying", "copying", {}, kCopiedClones, kCopiedClones));
  kinds.push_back(fixture("anonymizing", "anonymizing", {}, kCopiedFresh, kCopiedFresh));
  kinds.push_back(fixture("encrypting", "encrypting", {}, kNothing, kNothing));
  kinds.push_back(placing(fixture("deferring", "deferring", {}, kCloned, kCloned)));
  // The parent has gone when its child is issued; but what there is no room to keep is written through.
  constexpr Foretold kRoom{kSome, kSome, kSome};
  kinds.push_back(between(0, 0.9, fixture("deferring, early", "deferring", {{"ack", "early"}}, kRoom, kCloned)));
  kinds.push_back(placing(fixture("mirroring", "mirroring", {}, kCloned, kCloned), 2));
  // One leg is written in time.
  kinds.push_back(fixture("mirroring, early", "mirroring", {{"ack", "early"}}, kCloned, kCloned));
  // What is smaller than a unit, or than a block, is written from a copy of all of it.
  constexpr Foretold kPadded{kAll, kWhole, kAll};
  kinds.push_back(fixture("dedup", "dedup", {}, kPadded, kCloned));
  kinds.push_back(placing(fixture("rmw", "rmw", {}, kCloned, kCloned)));
  kinds.push_back(placing(fixture("rmw, copied", "rmw", {{"copy", "1"}}, kPadded, kCloned)));
  kinds.push_back(placing(fixture("journalling", "journalling", {}, kCloned, kCloned)));
  // In time it is written to the journal alone, a ring.
  kinds.push_back(between(0.03, 0.9, fixture("journalling, early", "journalling", {{"ack", "early"}}, kRoom, kCloned)));
  for (const char* issue : {"clone", "fresh"}) kinds.push_back(asItIs(issue));
  for (const char* issue : {"clone", "fresh"}) kinds.push_back(inDirectory(issue));
  return kinds;
}

const char* nameOf(Medium medium) {
  static constexpr const char* kNames[] = {"uring", "posix", "recording", "loop"};
  return kNames[static_cast<int>(medium)];
}

}  // namespace conformance
