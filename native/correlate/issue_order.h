// In which order a loop driver got what was issued to it, where several threads issued at once. A thread tells of an
// issue shortly before the driver has it, so that two threads may be told of in the wrong order. What became of the
// requests on the device beneath shows it: the driver takes them one after the other, each as a whole.
//
// Thread contract: none.
#pragma once

#include <vector>

#include "correlate/observed.h"

namespace sm {

// Brings `issues`, in the order in which they were told, into the order in which the driver had them. `starts`: what
// was started beneath, in the order of time; both have the same length in all. Where more than one order can have been,
// issues whose place is not the same in all of them become one that begins at Observed::kNowhere, as long as they were
// together. False: no order can have been, or it is not worth finding out.
bool orderIssues(std::vector<Observed::Step>* issues, const std::vector<Observed::Step>& starts);

}  // namespace sm
