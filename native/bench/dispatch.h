// What it adds to an interposed call that the interposer can be taken out while others are inside.
#pragma once

#include "bench/bench.h"

namespace bench {

Group dispatchGroup(int threads, uint64_t calls);

}  // namespace bench
