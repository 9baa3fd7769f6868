#include "stripe_io.h"

#include <algorithm>

namespace sm {

void StripeIo::advance(sm_request* request) {
  if (request->op == SM_OP_FLUSH) return advanceFlush(request);
  RequestState& state = stateOf(request);
  const uint64_t firstRow = static_cast<const StripeDisk*>(state.disk)->firstRow;
  const uint8_t op = request->op == SM_OP_DISCARD ? uint8_t{SM_OP_WRITE_ZEROES} : request->op;
  while (state.cursor < request->length) {
    if (park(request)) return;
    const StripeLayout::Place place = layout_.find(firstRow, request->offset + state.cursor);
    const uint64_t length = std::min({place.span, request->length - state.cursor, maxTransfer_});
    sm_request* child = children_.make(request, op, state.cursor, length);
    if (!child) return starve(request);
    child->offset = place.offset;
    sm_request_push(child, onData, this, reinterpret_cast<uint64_t>(request));
    ++state.pending;
    state.cursor += length;
    sm_device_submit(devices_[place.device], child);
  }
  issued(request);
}

void StripeIo::onData(sm_request* child, void* context, uint64_t parent) {
  auto* io = static_cast<StripeIo*>(context);
  const int32_t status = child->status;
  io->children_.put(child);
  io->settle(reinterpret_cast<sm_request*>(parent), status);
}

}  // namespace sm
