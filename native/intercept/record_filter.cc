#include "intercept/record_filter.h"

namespace sm {

const sm_filter_ops* RecordFilter::ops() {
  // Completion is seen by a frame of its own, which carries the word that the correlator gave.
  static const sm_filter_ops kOps = {SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "record", submit, nullptr};
  return &kOps;
}

int RecordFilter::submit(void* self, sm_request* request) {
  RecordFilter* filter = static_cast<RecordFilter*>(self);
  const uint64_t word = filter->correlator_.submitted(request, filter->key_);
  if (word == Correlator::kUnseen) return SM_FILTER_NEXT;
  if (sm_request_push(request, completed, filter, word) != 0) {
    // No room to see it come back: it counts as ended, and as a lost event.
    filter->correlator_.completed(request, filter->key_, word);
    filter->correlator_.lost();
  }
  return SM_FILTER_NEXT;
}

void RecordFilter::completed(sm_request* request, void* context, uint64_t word) {
  RecordFilter* filter = static_cast<RecordFilter*>(context);
  filter->correlator_.completed(request, filter->key_, word);
  sm_request_pop(request);
}

}  // namespace sm
