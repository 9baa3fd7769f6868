// Proof that the oracle sees: each seeded bug, one at a time, until a difference shows. Only in a build with
// SM_SEEDED_BUGS: the program test_seeded. In every other, nothing of them is left.
#include "correlate/seeded_bugs.h"

#if !SM_SEEDED_BUGS
static_assert(!sm::seeded(sm::Bug::kNoDoubt), "decided by the compiler: what it guards is gone");
#else
#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>

#include "episodes.h"

using namespace truth;

namespace {

constexpr uint64_t kPatience = 400'000;  // steps in which a bug has to be caught

constexpr const char* kNames[] = {"none",           "no doubt",      "submission order", "map failed",
                                  "sum of lengths", "no stale",      "keep unresolved",  "read modified",
                                  "discard maps",   "attach learns", "lost keeps",       "detach keeps",
                                  "parent failed",  "early map",     "swapped piece",    "missed discard",
                                  "wrong owner"};
static_assert(std::size(kNames) == static_cast<size_t>(sm::Bug::kCount));

struct Caught {
  uint64_t steps = 0;
  std::string how, volume;  // empty: not caught
};

Caught hunt(sm::Bug bug, bool onlyWrong) {
  sm::seededBug = bug;
  Caught caught;
  Counts counts;
  for (uint64_t seed = firstSeed(); counts.steps < kPatience && caught.how.empty(); ++seed) {
    Episode episode = exactEpisode(seed);
    episode.options.onlyWrong = onlyWrong;
    caught.how = runEpisode(episode, kEpisodeSteps, &counts);
    caught.volume = episode.volume;
  }
  sm::seededBug = sm::Bug::kNone;
  caught.steps = counts.steps;
  return caught;
}

// "step 1340: serial: disk block 1:2: state: told …" says how it was seen: by the word before the last but one colon.
std::string kindOf(const std::string& how) {
  for (const char* kind : {"bytes:", "owner:", "state:", "place:", "moving:", "shared:", "ledger:", "event:"}) {
    if (how.find(kind) != std::string::npos) return std::string(kind, std::strlen(kind) - 1);
  }
  return how;
}

}  // namespace

TEST_CASE("the oracle catches every seeded bug") {
  CHECK(hunt(sm::Bug::kNone, false).how.empty());
  std::printf("%-16s %9s %-8s %-8s | by bytes and owners alone\n", "bug", "steps", "seen by", "volume");
  for (int i = 1; i < static_cast<int>(sm::Bug::kCount); ++i) {
    const Caught caught = hunt(static_cast<sm::Bug>(i), false);
    const Caught wrong = hunt(static_cast<sm::Bug>(i), true);
    CHECK_MESSAGE(!caught.how.empty(), kNames[i] << " survived " << caught.steps << " steps");
    std::printf("%-16s %9lu %-8s %-8s | %lu %s %s\n", kNames[i], caught.steps, kindOf(caught.how).c_str(),
                caught.volume.c_str(), wrong.steps, wrong.how.empty() ? "not seen" : kindOf(wrong.how).c_str(),
                wrong.how.empty() ? "" : wrong.volume.c_str());
    std::fflush(stdout);
  }
}
#endif
