// The map of a cell against what is true; while no request of a guest is in flight.
#pragma once

#include <vector>

#include "load.h"
#include "stack.h"

namespace conformance {

// Counts in the stack's outcome what was compared and what is wrong, in both directions of the map.
void compareMap(Stack& stack);

// How much of these parts of a disk is mapped.
Share shareOf(const Stack& stack, uint32_t disk, const std::vector<Span>& spans);

}  // namespace conformance
