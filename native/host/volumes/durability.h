// Whether a volume can still say of anything that it is durable. After a failed flush the kernel may have dropped what
// it could not write, and says so once: the next flush returns 0. So the first failure counts for every flush, FUA
// write and commit from then on, until the volume is opened again and shows what is there.
//
// A FUA write that fails says so itself and changes nothing here: whatever fails one disk's write, a policy for
// example, must not take the flushes of all others with it.
//
// Thread contract: from any thread.
#pragma once

#include <stratamap/services.h>

#include <atomic>
#include <cstring>

#include "report.h"

namespace sm {

class Durability {
 public:
  // 0, or the error that has ended it.
  int32_t failure() const { return failure_.load(std::memory_order_acquire); }
  void lose(int32_t status) {
    int32_t none = 0;
    failure_.compare_exchange_strong(none, status, std::memory_order_acq_rel);
  }
  // failure(), for the user.
  int32_t check(sm_error* error) const {
    const int32_t status = failure();
    if (status == 0) return 0;
    return report(error, status,
                  "the volume could not make its data durable before (%s): what was written since the last flush that "
                  "succeeded may be lost; close the volume, open it again and check what is there",
                  strerror(-status));
  }

 private:
  std::atomic<int32_t> failure_{0};
};

// What waits for durability: its success depends on it.
inline bool mustBeDurable(const sm_request* request) {
  return request->op == SM_OP_FLUSH || ((request->flags & SM_FLAG_FUA) && sm_op_modifies(request->op));
}

}  // namespace sm
