// Proof that the suite sees: seeded bugs that a real stack can show, one at a time. Only in a build with
// SM_SEEDED_BUGS: the program test_conformance_seeded.
#include "correlate/seeded_bugs.h"

#if SM_SEEDED_BUGS
#include <doctest/doctest.h>

#include "cell.h"

using namespace conformance;

TEST_CASE("the suite catches seeded bugs") {
  using sm::Bug;
  // Of the others a stack that works shows nothing, or too seldom: the oracle's worlds show them.
  for (Bug bug : {Bug::kSumLength, Bug::kKeepUnresolved, Bug::kDetachKeeps, Bug::kSwappedPiece, Bug::kMissedDiscard,
                  Bug::kWrongOwner}) {
    sm::seededBug = bug;
    std::string caught;
    uint64_t seed = 0;
    for (const VolumeKind& volume : volumeKinds()) {
      for (const char* association : {"serial", "address"}) {
        for (uint32_t depth : {1u, 32u}) {
          if (!caught.empty()) break;
          const Outcome outcome = run({volume, association, "descend", Medium::kUring, depth, ++seed});
          if (!outcome.complaints.empty()) {
            caught =
                volume.name + ", " + association + ", depth " + std::to_string(depth) + ": " + outcome.complaints[0];
          }
        }
      }
    }
    sm::seededBug = Bug::kNone;
    CHECK_MESSAGE(!caught.empty(), "bug " << static_cast<int>(bug) << " is not seen");
    MESSAGE("bug " << static_cast<int>(bug) << ": " << caught);
  }
}
#endif
