// Many worlds, one after the other.
#pragma once

#include <functional>
#include <string>

#include "world.h"

namespace truth {

struct Episode {
  WorldOptions options;
  std::string volume;
  std::string describe() const;
};

// From the environment, or what is given.
uint64_t stepsToRun(uint64_t fast);
bool inFull();  // nobody asked for another number of steps
uint64_t firstSeed();

// The n-th world of a kind. In an exact one nothing overflows, and every answer must be the oracle's.
Episode exactEpisode(uint64_t seed);
// The same through the contract: the shipped volumes and the fixtures, whose memory and devices are larger.
Episode contractEpisode(uint64_t seed);
// One in which everything overflows: contexts, evidence, room for copies, parts in doubt. The observers may say less,
// and nothing else.
Episode boundedEpisode(uint64_t seed);
Episode anyEpisode(uint64_t seed);

constexpr uint64_t kEpisodeSteps = 2000;

// Runs one world to its end. Returns the difference, or nothing.
std::string runEpisode(const Episode& episode, uint64_t steps, Counts* counts);

// Runs worlds until so many steps are done; the first difference fails the test and says how to have it again.
Counts runEpisodes(const char* kind, const std::function<Episode(uint64_t seed)>& make, uint64_t steps);

}  // namespace truth
