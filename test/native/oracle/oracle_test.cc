// The address map against the independent truth, at every step of random worlds.
//
// SM_SEED=… begins with another seed, SM_STEPS=… runs so many steps in all, SM_VOLUME=… with one volume alone;
// SM_NIGHTLY=1 runs millions. What a run has to have met
// is checked only of a full one.
#include <doctest/doctest.h>

#include "episodes.h"

using namespace truth;

TEST_CASE("every answer of the map is the oracle's, at every step") {
  const Counts counts = runEpisodes("exact", exactEpisode, stepsToRun(160'000));
  if (!inFull()) return;
  // Only where a block has more than four places or a place more than four owners, as under the log's cleaner.
  CHECK(counts.saidLess * 20 < counts.mappedBlocks);
  CHECK(counts.attaches > 50);
  CHECK(counts.losses > 50);
  CHECK(counts.overlaps > 1000);
  CHECK(counts.mappedBlocks > counts.unmappedBlocks / 4);
}

TEST_CASE("where everything overflows, the map says less and never more") {
  const Counts counts = runEpisodes("bounded", boundedEpisode, stepsToRun(60'000));
  if (!inFull()) return;
  CHECK(counts.unrecorded > 100);
  CHECK(counts.evidenceLost > 100);
  CHECK(counts.taintOverflow > 0);
  CHECK(counts.mappedBlocks > 1000);
}

TEST_CASE("every answer of the map is the oracle's, through the contract") {
  const Counts counts = runEpisodes("contract", contractEpisode, stepsToRun(160'000));
  if (!inFull()) return;
  CHECK(counts.mappedBlocks > counts.unmappedBlocks / 4);
  CHECK(counts.overlaps > 1000);
}

TEST_CASE("no association, however it correlates, ever maps what is not so") {
  const Counts counts = runEpisodes("any", anyEpisode, stepsToRun(160'000));
  if (!inFull()) return;
  CHECK(counts.mappedBlocks > 100'000);
  CHECK(counts.overlaps > 1000);
  CHECK(counts.losses > 10);
}
