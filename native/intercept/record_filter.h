// Above: the recording filter. Shows each request of a virtual disk to the correlator, submitted and completed; on the
// disk's home I/O thread.
#pragma once

#include <stratamap/filter.h>

#include "correlate/correlator.h"

namespace sm {

class RecordFilter {
 public:
  RecordFilter(Correlator& correlator, DiskKey key) : correlator_(correlator), key_(key) {}
  // The filter's context is the RecordFilter.
  static const sm_filter_ops* ops();

 private:
  static int submit(void* self, sm_request* request);
  static void completed(sm_request* request, void* context, uint64_t word);

  Correlator& correlator_;
  const DiskKey key_;
};

}  // namespace sm
