// Proof that the suite sees: seeded bugs that a real stack can show, one at a time. Only in a build with
// SM_SEEDED_BUGS: the program test_conformance_seeded.
#include "correlate/seeded_bugs.h"

#if SM_SEEDED_BUGS
#include <doctest/doctest.h>

#include "cell.h"

using namespace conformance;

namespace {
Cell cellOf(const VolumeKind& volume) { return {volume, "serial", "descend", Medium::kUring, 32, 1}; }
}  // namespace

TEST_CASE("the suite catches seeded bugs") {
  using sm::Bug;
  for (const VolumeKind& volume : volumeKinds()) {
    const Outcome outcome = run(cellOf(volume));
    REQUIRE_MESSAGE(outcome.complaints.empty(), volume.name << ", without a bug: " << outcome.complaints[0]);
  }
  // Of the others a stack that works shows nothing, or too seldom: the oracle's worlds show them.
  for (Bug bug : {Bug::kSumLength, Bug::kKeepUnresolved, Bug::kDetachKeeps, Bug::kSwappedPiece, Bug::kMissedDiscard,
                  Bug::kWrongOwner, Bug::kParentFailed, Bug::kSubmitOrder}) {
    sm::seededBug = bug;
    std::string caught;
    for (const VolumeKind& volume : volumeKinds()) {
      if (!caught.empty()) break;
      const Outcome outcome = run(cellOf(volume));
      if (!outcome.complaints.empty()) caught = volume.name + ": " + outcome.complaints[0];
    }
    sm::seededBug = Bug::kNone;
    CHECK_MESSAGE(!caught.empty(), "bug " << static_cast<int>(bug) << " is not seen");
    MESSAGE("bug " << static_cast<int>(bug) << ": " << caught);
  }
}
#endif
