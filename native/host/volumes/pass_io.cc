#include "pass_io.h"

#include <algorithm>

namespace sm {

void PassIo::advance(sm_request* request) {
  if (request->op == SM_OP_FLUSH) return advanceFlush(request);
  RequestState& state = stateOf(request);
  uint8_t op = request->op;
  // A discard knows no FUA.
  if (op == SM_OP_DISCARD && (!discards_ || (request->flags & SM_FLAG_FUA))) op = SM_OP_WRITE_ZEROES;
  const uint64_t most = request->iov ? maxTransfer_ : UINT64_MAX;
  while (state.cursor < request->length) {
    if (park(request)) return;
    const uint64_t length = std::min(request->length - state.cursor, most);
    sm_request* child = children_.make(request, op, state.cursor, length);
    if (!child) return starve(request);
    child->offset = request->offset + state.cursor;
    sm_request_push(child, onData, this, reinterpret_cast<uint64_t>(request));
    ++state.pending;
    state.cursor += length;
    sm_device_submit(devices_[0], child);
  }
  issued(request);
}

void PassIo::onData(sm_request* child, void* context, uint64_t parent) {
  auto* io = static_cast<PassIo*>(context);
  const int32_t status = child->status;
  io->children_.put(child);
  io->settle(reinterpret_cast<sm_request*>(parent), status);
}

}  // namespace sm
