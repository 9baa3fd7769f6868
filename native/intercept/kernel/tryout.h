// Whether this machine's kernel can be observed, tried out: a block is read with a tag, by direct I/O, from a loop
// device on a loop device on a file in memory, and has to be told of on both with that tag.
//
// Thread contract: any thread; blocks for some 50 ms. Leaves nothing behind.
#pragma once

#include <string>

namespace sm {

// 0, -ENOSYS (tags reach the uppermost device alone) or another negative errno; `why` then says in one sentence what is
// missing, and what to do.
int tryKernel(std::string* why);

}  // namespace sm
