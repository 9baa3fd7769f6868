// Bugs that a test build seeds one at a time, to see that the oracle catches each. In every other build seeded() is the
// constant false, and nothing of this is left. The names are those of the model of the rules.
#pragma once

#if SM_SEEDED_BUGS
#include <atomic>
#endif

namespace sm {

enum class Bug {
  kNone,
  kNoDoubt,         // rule 2: not in doubt from submission
  kSubmitOrder,     // rule 3: submission taken for order
  kMapFailed,       // rule 4: a failed child teaches
  kSumLength,       // rule 6: lengths that add up taken for position
  kNoStale,         // rule 4: an unattributed write does not make stale
  kKeepUnresolved,  // rule 2: a completed write that did not resolve leaves the old place
  kReadModified,    // rule 5: a read that a modification overlapped teaches
  kDiscardMaps,     // rule 4: a discard teaches
  kAttachLearns,    // rule 7: learning at once
  kLostKeeps,       // rule 7: mappings survive the loss of an event
  kDetachKeeps,     // rule 7: mappings survive detach
  kParentFailed,    // rule 4: a failed parent teaches
  kEarlyMap,        // rule 4: a child that has not completed teaches
  kSwappedPiece,    // rule 6: two pieces of a request change places
  kMissedDiscard,   // rule 2: a discard unmaps nothing
  kWrongOwner,      // the place goes to the first disk, whoever wrote
  kCount
};

#if SM_SEEDED_BUGS
inline std::atomic<Bug> seededBug{Bug::kNone};
inline bool seeded(Bug bug) { return seededBug.load(std::memory_order_relaxed) == bug; }
#else
constexpr bool seeded(Bug) { return false; }
#endif

}  // namespace sm
