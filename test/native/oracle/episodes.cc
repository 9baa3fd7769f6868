#include "episodes.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "contract.h"
#include "volumes.h"
#include "volumes/registry.h"

namespace truth {

Counts& Counts::operator+=(const Counts& o) {
  steps += o.steps, requests += o.requests, children += o.children, mappedBlocks += o.mappedBlocks;
  unmappedBlocks += o.unmappedBlocks, comparedBytes += o.comparedBytes, owners += o.owners, attaches += o.attaches;
  losses += o.losses, overlaps += o.overlaps, collisions += o.collisions, saidLess += o.saidLess, events += o.events;
  unrecorded += o.unrecorded, evidenceLost += o.evidenceLost, taintOverflow += o.taintOverflow;
  return *this;
}

std::string Episode::describe() const {
  std::ostringstream out;
  out << "seed " << options.seed << ", volume " << volume << ", depth " << options.depth << ", failing "
      << options.failing << ", wild " << options.wild << ", admin " << options.admin << ", loss " << options.loss
      << (options.stuck ? ", stuck" : "") << (options.sharedDevice ? ", one device shared" : "") << ", capacity "
      << options.capacity << ", observers";
  for (const Observer& each : options.observers) out << " " << each.association << "/" << each.correlation;
  return out.str();
}

namespace {
uint64_t fromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}
}  // namespace

uint64_t stepsToRun(uint64_t fast) { return fromEnvironment("SM_STEPS", std::getenv("SM_NIGHTLY") ? fast * 40 : fast); }
bool inFull() { return !std::getenv("SM_STEPS"); }
uint64_t firstSeed() { return fromEnvironment("SM_SEED", 1); }

Episode exactEpisode(uint64_t seed) {
  std::mt19937_64 random(seed * 0x9e3779b97f4a7c15);
  auto pick = [&](auto... values) {
    const decltype((values + ...)) all[] = {values...};
    return all[random() % sizeof...(values)];
  };
  Episode episode;
  WorldOptions& o = episode.options;
  const auto names = volumeNames();
  const char* only = std::getenv("SM_VOLUME");
  const bool known = only && std::find(names.begin(), names.end(), only) != names.end();
  episode.volume = known ? only : names[seed % names.size()];
  o.seed = seed;
  o.volume = [name = episode.volume](World& world) { return makeVolume(name, world); };
  o.depth = static_cast<size_t>(pick(1, 2, 3, 6));
  o.failing = pick(0.0, 0.0, 0.05);
  o.wild = episode.volume == "promote" ? 0 : pick(0.0, 0.0, 0.1);
  o.admin = pick(0.0, 0.002, 0.006);
  o.stuck = pick(0, 0, 1);
  o.sharedDevice = pick(0, 0, 0, 1);
  o.foreignField = pick(0.0, 0.1);
  static const char* const kFields[] = {"inline", "extended", "pointer", "tag"};
  o.observers = {{"serial", "descend"}, {kFields[random() % 4], "descend"}};
  if (pick(0, 0, 1)) {
    o.loss = pick(0.004, 0.01);
    o.observers.erase(o.observers.begin() + pick(0, 1));
  }
  if (pick(0, 0, 0, 0, 1) && episode.volume != "log" && episode.volume != "dedup") {  // a table that fills up
    o.capacity = 64;
    o.depth = 90;
    o.diskBlocks = 48;
    o.deviceBlocks = 256;
    o.largest = 3;
  }
  return episode;
}

// What a stranger's volume is opened with, besides how it issues.
static VolumeOptions optionsOf(const std::string& name, uint64_t seed) {
  const bool odd = seed & 1;
  if (name == "permuting") return {{"delay", "0"}};  // those need threads: the world delays its children
  if (name == "encrypting") return {{"read", odd ? "place" : "copy"}};
  if (name == "dedup") return {{"zero", odd ? "1" : "0"}};
  if (name == "rmw") return {{"block", odd ? "64K" : "4K"}, {"copy", seed & 2 ? "1" : "0"}};
  if (name == "copying" || name == "anonymizing") return {};
  return {{"ack", odd ? "early" : "late"}};
}

Episode contractEpisode(uint64_t seed) {
  Episode episode = exactEpisode(seed);
  WorldOptions& o = episode.options;
  static constexpr const char* kNames[] = {"extent",    "log",         "stripe",      "permuting",
                                           "copying",   "anonymizing", "encrypting",  "deferring",
                                           "mirroring", "dedup",       "journalling", "rmw"};
  const char* only = std::getenv("SM_VOLUME");
  const auto wanted = std::find_if(std::begin(kNames), std::end(kNames),
                                   [&](const char* name) { return only && std::string(name) == only; });
  episode.volume = wanted != std::end(kNames) ? *wanted : kNames[(seed + seed / std::size(kNames)) % std::size(kNames)];
  const bool shipped = episode.volume == "extent" || episode.volume == "log" || episode.volume == "stripe";
  const uint64_t round = seed / std::size(kNames);
  const char* issue = round % 4 == 0 ? "fresh" : "clone";
  o.volume = [name = episode.volume, issue, seed, round](World& world) {
    const std::string seedText = std::to_string(seed);
    if (name == "extent") {
      return makeContractVolume(world, &sm::extentOps, {{"extentSize", "4K"}, {"seed", seedText}}, {{"issue", issue}});
    }
    if (name == "log") {
      static constexpr const char* kClean[] = {"0", "50", "200"};
      return makeContractVolume(world, &sm::logOps,
                                {{"segmentSize", "16K"}, {"seed", seedText}, {"clean", kClean[seed / 2 % 3]}},
                                {{"issue", issue}});
    }
    if (name == "stripe") {
      return makeContractVolume(world, &sm::stripeOps, {{"chunkSize", "4K"}}, {{"issue", issue}});
    }
    VolumeOptions format, open = optionsOf(name, round / 4 + round);
    if (name == "permuting" || name == "encrypting") format.emplace_back("seed", seedText);
    open.emplace_back("issue", issue);
    return makeContractVolume(world, fixtureVolume(name), format, open);
  };
  o.capacity = 256;
  o.depth = 1 + seed % 7;
  o.diskBlocks = 64;
  o.largest = 20;
  o.deviceBlocks = episode.volume == "permuting" ? 3 * 2048 : shipped ? 1400 : 2048;
  o.loss = 0;  // what leaves no room for a frame is a volume of ours
  return episode;
}

Episode boundedEpisode(uint64_t seed) {
  Episode episode = exactEpisode(seed);
  WorldOptions& o = episode.options;
  o.exact = false;
  o.capacity = o.slots = 64;
  o.shadowBytes = 4096;
  o.depth = 100;
  o.diskBlocks = 96;
  o.deviceBlocks = 1024;
  o.largest = 20;
  o.spiky = seed % 2 == 0;
  if (o.spiky) o.largest = 28;
  o.loss = 0;
  return episode;
}

// Every association with every correlation that it allows, in turn; four observers at a time, which must not get in
// each other's way.
Episode anyEpisode(uint64_t seed) {
  std::vector<Observer> all;
  for (const sm::AssociationInfo& info : sm::associations()) {
    if (info.kernel) continue;
    for (const std::string& correlation : info.correlations) all.push_back({info.name, correlation});
  }
  Episode episode = seed % 4 == 0 ? boundedEpisode(seed) : seed % 4 == 1 ? contractEpisode(seed) : exactEpisode(seed);
  WorldOptions& o = episode.options;
  o.exact = false;
  if (o.loss == 0) {
    // No two that put their carrier into the same field.
    const Observer first = all[seed % all.size()];
    o.observers = {first};
    for (uint64_t i = 1; i < all.size() && o.observers.size() < 4; ++i) {
      const Observer& next = all[(seed + i * 4) % all.size()];
      if (std::none_of(o.observers.begin(), o.observers.end(),
                       [&](const Observer& each) { return each.association == next.association; })) {
        o.observers.push_back(next);
      }
    }
  } else {
    o.observers = {all[seed % all.size()]};
  }
  return episode;
}

std::string runEpisode(const Episode& episode, uint64_t steps, Counts* counts) {
  World world(episode.options);
  for (auto& watch : world.watches()) world.attach(*watch);
  std::string difference;
  for (uint64_t i = 0; world.counts().steps < steps && i < 100 * steps && world.step(); ++i) {
  }
  if (world.difference().empty()) world.drain();
  for (auto& watch : world.watches()) {
    if (watch->probe && world.difference().empty()) world.detach(*watch);
  }
  *counts += world.counts();
  if (!world.difference().empty()) {
    difference = "step " + std::to_string(world.counts().steps) + ": " + world.difference();
  }
  return difference;
}

Counts runEpisodes(const char* kind, const std::function<Episode(uint64_t seed)>& make, uint64_t steps) {
  Counts counts;
  uint64_t seed = firstSeed();
  for (; counts.steps < steps; ++seed) {
    const Episode episode = make(seed);
    const std::string difference = runEpisode(episode, std::min<uint64_t>(kEpisodeSteps, steps), &counts);
    if (!difference.empty()) {
      FAIL_CHECK(kind << ": " << episode.describe() << ": " << difference << "\nagain: SM_SEED=" << seed
                      << " SM_STEPS=" << kEpisodeSteps);
      break;
    }
  }
  std::cout << kind << ": seeds " << firstSeed() << " to " << seed - 1 << ", " << counts.steps << " steps, "
            << counts.requests << " requests, " << counts.children << " children, " << counts.mappedBlocks
            << " mapped blocks and " << counts.comparedBytes << " bytes compared, " << counts.owners << " owners, "
            << counts.overlaps << " overlaps, " << counts.attaches << " attaches, " << counts.losses << " losses, "
            << counts.events << " events, said less " << counts.saidLess << " times, " << counts.unrecorded
            << " unrecorded, " << counts.evidenceLost << " without evidence, " << counts.taintOverflow
            << " overflowed\n";
  return counts;
}

}  // namespace truth
