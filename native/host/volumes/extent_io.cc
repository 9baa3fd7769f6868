#include "extent_io.h"

#include <algorithm>
#include <cerrno>

namespace sm {
ExtentIo::ExtentIo(const sm_services* services, sm_device* const* devices, uint32_t deviceCount, Issue issue,
                   uint64_t extentBytes, ExtentTable& table, Durability& durability)
    : Flow(services, devices, deviceCount, issue, durability),
      table_(table),
      extentBytes_(extentBytes),
      shift_(static_cast<uint32_t>(std::countr_zero(extentBytes))),
      commit_(services, devices_, maxTransfer_, table, durability, *this),
      allocations_(kAllocations) {
  for (Allocation& allocation : allocations_) {
    allocation.next = unused_;
    unused_ = &allocation;
  }
}

void ExtentIo::advance(sm_request* request) {
  RequestState& state = stateOf(request);
  if (request->op == SM_OP_FLUSH) {
    if (state.cursor == 0 && (table_.dirty() || commit_.running())) return commit_.join(request);
    return advanceFlush(request);
  }
  ExtentDisk& disk = *static_cast<ExtentDisk*>(state.disk);
  for (uint32_t budget = kBudget; state.cursor < request->length; --budget) {
    if (budget == 0) return yield(request);
    if (park(request) || !step(request, state, disk)) return;
  }
  issued(request);
}

bool ExtentIo::step(sm_request* request, RequestState& state, ExtentDisk& disk) {
  const uint64_t at = request->offset + state.cursor;
  const uint64_t within = at & (extentBytes_ - 1);
  const Place place{static_cast<uint32_t>(at >> shift_), within,
                    std::min(extentBytes_ - within, request->length - state.cursor)};
  const uint32_t cell = disk.cells[place.index];
  if (cell == 0) return overHole(request, state, disk, place);
  if (!(cell & kBusyCell)) return overExtent(request, state, disk, place, table_[cell - 1]);
  Allocation& allocation = allocations_[cell & ~kBusyCell];
  if (allocation.parent == request) return intoAllocation(request, state, place, allocation);
  allocation.waiters.push(request);
  return false;
}

bool ExtentIo::overHole(sm_request* request, RequestState& state, ExtentDisk& disk, const Place& place) {
  if (request->op == SM_OP_WRITE) return allocate(request, state, disk, place);
  if (request->op == SM_OP_READ) fillZeroes(request->iov, state.cursor, place.span);
  // The hole itself may not be durable yet.
  if (mustBeDurable(request) && (table_.dirty() || commit_.running())) state.pending |= kCommitFirst;
  state.cursor += place.span;
  return true;
}

bool ExtentIo::overExtent(sm_request* request, RequestState& state, ExtentDisk& disk, const Place& place,
                          Extent& extent) {
  uint8_t op = request->op;
  uint64_t length = std::min(place.span, maxTransfer_);
  sm_device* device = table_.deviceOf(extent);
  bool giveUp = false;
  if (op == SM_OP_DISCARD) {
    const uint64_t start = static_cast<uint64_t>(place.index) << shift_;
    const uint64_t end = std::min(start + extentBytes_, disk.bytes);
    const bool whole = request->offset <= start && request->offset + request->length >= end;
    const bool passOn = device->flags & SM_DEVICE_DISCARD;
    if (!whole) op = SM_OP_WRITE_ZEROES;
    if (whole && !passOn) length = place.span;
    giveUp = whole && length == place.span;
    if (giveUp && !passOn) {
      disk.cells[place.index] = 0;
      table_.giveUp(extent);
      state.cursor += length;
      return true;
    }
  }
  sm_request* child = children_.make(request, op, state.cursor, length);
  if (!child) {
    starve(request);
    return false;
  }
  child->offset = table_.offsetOf(extent) + place.within;
  if (giveUp) {
    disk.cells[place.index] = 0;
    table_.giveUp(extent);
  } else if (mustBeDurable(request) && extent.state != ExtentState::kDurable) {
    state.pending |= kCommitFirst;
  }
  sm_request_push(child, onData, &extent, reinterpret_cast<uint64_t>(request));
  table_.addUser(extent);
  ++state.pending;
  state.cursor += length;
  sm_device_submit(device, child);
  return true;
}

void ExtentIo::onData(sm_request* child, void* context, uint64_t word) {
  auto* request = reinterpret_cast<sm_request*>(word);
  ExtentIo& io = *static_cast<ExtentDisk*>(stateOf(request).disk)->io;
  const int32_t status = child->status;
  io.children_.put(child);
  if (io.table_.dropUser(*static_cast<Extent*>(context))) io.spaceFreed();
  io.settle(request, status);
}

bool ExtentIo::allocate(sm_request* request, RequestState& state, ExtentDisk& disk, const Place& place) {
  Allocation* allocation = unused_;
  if (!allocation) {
    allocationWaiters_.push(request);
    return false;
  }
  Extent* extent = table_.take();
  if (!extent && !table_.comingFree()) {
    if (!state.status) state.status = -ENOSPC;
    state.cursor += place.span;
    return true;
  }
  if (!extent) {
    spaceWaiters_.push(request);
    if (table_.comingByCommit()) commit_.ask();
    return false;
  }
  unused_ = allocation->next;
  *allocation = {nullptr, request,    &disk, extent, place.index, 1, place.within, place.within + place.span,
                 0,       place.span, 0,     {}};
  disk.cells[place.index] = kBusyCell | static_cast<uint32_t>(allocation - allocations_.data());
  ++state.pending;
  issueZeroes(*allocation);
  return true;  // the next step finds it
}

bool ExtentIo::intoAllocation(sm_request* request, RequestState& state, const Place& place, Allocation& allocation) {
  const uint64_t length = std::min(place.span, maxTransfer_);
  sm_request* child = children_.make(request, SM_OP_WRITE, state.cursor, length);
  if (!child) {
    starve(request);
    return false;
  }
  child->offset = table_.offsetOf(*allocation.extent) + place.within;
  sm_request_push(child, onFirstData, &allocation, length);
  state.cursor += length;
  sm_device_submit(table_.deviceOf(*allocation.extent), child);
  return true;
}

void ExtentIo::onFirstData(sm_request* child, void* context, uint64_t length) {
  auto& allocation = *static_cast<Allocation*>(context);
  ExtentIo& io = *allocation.disk->io;
  if (child->status && !allocation.status) allocation.status = child->status;
  io.children_.put(child);
  allocation.dataLeft -= length;
  if (!allocation.dataLeft && !allocation.zeroes) io.finishAllocation(allocation);
}

void ExtentIo::issueZeroes(Allocation& allocation) {
  while (true) {
    if (allocation.zeroAt == allocation.from) allocation.zeroAt = allocation.to;
    if (allocation.zeroAt == extentBytes_) break;
    const uint64_t end = allocation.zeroAt < allocation.from ? allocation.from : extentBytes_;
    const uint64_t length = std::min(end - allocation.zeroAt, maxTransfer_);
    sm_request* child = services_->fresh(services_);
    if (!child) {  // keeps its count, so that it does not finish
      allocation.next = starved_;
      starved_ = &allocation;
      return starve();
    }
    child->op = SM_OP_WRITE_ZEROES;
    child->offset = table_.offsetOf(*allocation.extent) + allocation.zeroAt;
    child->length = length;
    sm_request_push(child, onZeroes, &allocation, 0);
    ++allocation.zeroes;
    allocation.zeroAt += length;
    sm_device_submit(table_.deviceOf(*allocation.extent), child);
  }
  if (--allocation.zeroes == 0 && !allocation.dataLeft) finishAllocation(allocation);
}

void ExtentIo::onZeroes(sm_request* child, void* context, uint64_t) {
  auto& allocation = *static_cast<Allocation*>(context);
  ExtentIo& io = *allocation.disk->io;
  if (child->status && !allocation.status) allocation.status = child->status;
  io.children_.put(child);
  if (--allocation.zeroes == 0 && !allocation.dataLeft) io.finishAllocation(allocation);
}

void ExtentIo::finishAllocation(Allocation& allocation) {
  sm_request* parent = allocation.parent;
  const int32_t status = allocation.status;
  ExtentDisk& disk = *allocation.disk;
  if (status == 0) {
    disk.cells[allocation.index] = table_.numberOf(*allocation.extent) + 1;
    table_.publish(*allocation.extent, disk.id, allocation.index);
    if (mustBeDurable(parent)) stateOf(parent).pending |= kCommitFirst;
  } else {
    disk.cells[allocation.index] = 0;
    table_.giveBack(*allocation.extent);
    goOnLater(spaceWaiters_);
  }
  goOnLater(allocation.waiters);
  goOnLater(allocationWaiters_);
  allocation.next = unused_;
  unused_ = &allocation;
  settle(parent, status);
  drain();
}

void ExtentIo::finish(sm_request* request) {
  const RequestState& state = stateOf(request);
  if ((state.pending & kCommitFirst) && state.status == 0) return commit_.join(request);
  complete(request, state.status);
}

void ExtentIo::drainOwn() {
  if (commitWaits_) {
    commitWaits_ = false;
    commit_.resume();
  }
  while (starved_ && !paused()) {
    Allocation& allocation = *starved_;
    starved_ = allocation.next;
    issueZeroes(allocation);
  }
}

void ExtentIo::spaceFreed() {
  goOnLater(spaceWaiters_);
  drain();
}

void ExtentIo::commitStarved() {
  commitWaits_ = true;
  starve();
}

void ExtentIo::commitEnded(int32_t status, RequestQueue& waiters) {
  if (status) {  // no extent comes free: the pieces that wait for one fail
    while (sm_request* request = spaceWaiters_.pop()) {
      RequestState& state = stateOf(request);
      const uint64_t within = (request->offset + state.cursor) & (extentBytes_ - 1);
      if (!state.status) state.status = status;
      state.cursor += std::min(extentBytes_ - within, request->length - state.cursor);
      goOnLater(request);
    }
  }
  goOnLater(spaceWaiters_);
  while (sm_request* request = waiters.pop()) complete(request, status);
  drain();
}

void ExtentIo::clear(ExtentDisk& disk, uint32_t from, uint32_t to) {
  for (uint32_t i = from; i < to; ++i) {
    if (disk.cells[i]) table_.giveUp(table_[disk.cells[i] - 1]);
    disk.cells[i] = 0;
  }
}

}  // namespace sm
