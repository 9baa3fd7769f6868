#include "log_io.h"

#include <algorithm>
#include <bit>
#include <cerrno>

namespace sm {

LogIo::LogIo(const sm_services* services, sm_device* const* devices, uint32_t deviceCount, Issue issue, uint64_t clean,
             const LogLayout& layout, LogMap& map, LogJournal& journal, Durability& durability)
    : Flow(services, devices, deviceCount, issue, durability),
      map_(map),
      segments_(map.segments()),
      journal_(journal),
      blockSize_(layout.blockSize),
      blockShift_(static_cast<uint32_t>(std::countr_zero(layout.blockSize))),
      usable_(layout.usable()),
      mostTransfer_(static_cast<uint32_t>(std::max<uint64_t>(1, maxTransfer_ >> blockShift_))),
      enough_(kReserve + std::max(3u, segments_.size() / 16)),
      clean_(static_cast<int64_t>(clean)),
      commit_(services, devices_, maxTransfer_, journal, durability, *this),
      cleaner_(services, blockSize_, maxTransfer_, map, *this),
      writes_(kWrites) {
  for (Write& write : writes_) {
    write.next = unusedWrites_;
    unusedWrites_ = &write;
  }
}

void LogIo::advance(sm_request* request) {
  RequestState& state = stateOf(request);
  if (request->op == SM_OP_FLUSH) {
    if (state.cursor == 0 && (journal_.dirty() || commit_.running())) return commit_.join(request);
    return advanceFlush(request);
  }
  if (request->op == SM_OP_WRITE) return advanceWrite(request);
  LogDisk& disk = diskOf(request);
  for (uint32_t budget = kBudget; state.cursor < request->length; --budget) {
    if (budget == 0) return yield(request);
    if (request->op == SM_OP_READ) {
      if (park(request) || !stepRead(request, disk)) return;
    } else {
      map_.set(disk, static_cast<uint32_t>((request->offset + state.cursor) >> blockShift_), 0);
      state.cursor += blockSize_;
    }
  }
  issued(request);
}

bool LogIo::stepRead(sm_request* request, LogDisk& disk) {
  RequestState& state = stateOf(request);
  const auto block = static_cast<uint32_t>((request->offset + state.cursor) >> blockShift_);
  const uint32_t place = disk.place(block);
  uint32_t most = static_cast<uint32_t>((request->length - state.cursor) >> blockShift_);
  if (place) most = std::min({most, mostTransfer_, segments_.span(place - 1)});
  uint32_t count = 1;
  while (count < most && disk.place(block + count) == (place ? place + count : 0)) ++count;
  const uint64_t length = uint64_t{count} << blockShift_;
  if (!place) {
    fillZeroes(request->iov, state.cursor, length);
    state.cursor += length;
    return true;
  }
  sm_request* child = children_.make(request, SM_OP_READ, state.cursor, length);
  if (!child) {
    starve(request);
    return false;
  }
  child->offset = segments_.offsetOf(place - 1);
  Segment& segment = segments_.of(place - 1);
  sm_request_push(child, onRead, &segment, reinterpret_cast<uint64_t>(request));
  ++segment.readers;
  ++state.pending;
  state.cursor += length;
  sm_device_submit(segments_.deviceOf(place - 1), child);
  return true;
}

void LogIo::onRead(sm_request* child, void* context, uint64_t word) {
  auto* request = reinterpret_cast<sm_request*>(word);
  LogIo& io = *static_cast<LogTarget*>(stateOf(request).disk)->disk->io;
  const int32_t status = child->status;
  io.children_.put(child);
  const bool freed = io.segments_.dropReader(*static_cast<Segment*>(context));
  io.settle(request, status);
  if (freed) io.cleanerChanged();
}

void LogIo::advanceWrite(sm_request* request) {
  RequestState& state = stateOf(request);
  if (!admitted(request) && state.cursor < request->length && !admit(request)) return;
  while (state.cursor < request->length) {
    if (park(request) || !issueWrite(request, *static_cast<Write*>(state.disk))) return;
  }
  issued(request);
}

// Whether the write may begin now; otherwise it waits, or has failed.
bool LogIo::admit(sm_request* request) {
  LogDisk& disk = diskOf(request);
  if (!unusedWrites_) {
    writeWaiters_.push(request);
    return false;
  }
  const auto first = static_cast<uint32_t>(request->offset >> blockShift_);
  const auto count = static_cast<uint32_t>(request->length >> blockShift_);
  uint32_t holes = 0;
  for (uint32_t i = 0; i < count; ++i) holes += disk.place(first + i) == 0;
  if (holes && map_.live() + promised_ + holes > usable_) {
    refuse(request, -ENOSPC);
    issued(request);
    return false;
  }
  const uint64_t plenty = segments_.free() > kReserve ? segments_.free() - kReserve : 0;
  const uint64_t room = plenty * segments_.blocks() + head_.room(segments_);
  if (!spaceWaiters_.empty() || room < unused_ + count) {
    spaceWaiters_.push(request);
    pump();
    return false;
  }
  Write* write = unusedWrites_;
  unusedWrites_ = write->next;
  *write = {{&disk}, nullptr, 0, 0, holes, count};
  stateOf(request).disk = static_cast<LogTarget*>(write);
  promised_ += holes;
  unused_ += count;
  ++inFlight_;
  return true;
}

// Nothing more of the request is issued.
void LogIo::refuse(sm_request* request, int32_t status) {
  RequestState& state = stateOf(request);
  if (!state.status) state.status = status;
  state.cursor = request->length;
}

bool LogIo::issueWrite(sm_request* request, Write& write) {
  RequestState& state = stateOf(request);
  if (!head_.room(segments_)) head_ = {segments_.take(), 0};  // there is one: `unused_` was seen to
  const uint32_t count = std::min({write.unused, head_.room(segments_), mostTransfer_});
  const uint64_t length = uint64_t{count} << blockShift_;
  sm_request* child = children_.make(request, SM_OP_WRITE, state.cursor, length);
  if (!child) {
    starve(request);
    return false;
  }
  const uint32_t segment = head_.segment, place = segments_.firstOf(segment) + head_.used;
  addRun(write, place, count);
  head_.take(segments_, count);
  write.unused -= count;
  unused_ -= count;
  child->offset = segments_.offsetOf(place);
  sm_request_push(child, onWritten, this, reinterpret_cast<uint64_t>(request));
  ++state.pending;
  state.cursor += length;
  sm_device_submit(segments_.deviceOf(place), child);
  return true;
}

void LogIo::addRun(Write& write, uint32_t place, uint32_t count) {
  if (write.first) {
    LogMap::Note& last = map_.run(write.last);
    if (write.last + last.count == place && segments_.indexOf(write.last) == segments_.indexOf(place)) {
      last.count += count;
      return;
    }
    last.next = place + 1;
  } else {
    write.first = place + 1;
  }
  write.last = place;
  map_.run(place).count = count;
  map_.run(place).next = 0;
  segments_.addWriter(place);
}

void LogIo::onWritten(sm_request* child, void* context, uint64_t parent) {
  auto* io = static_cast<LogIo*>(context);
  const int32_t status = child->status;
  io->children_.put(child);
  io->settle(reinterpret_cast<sm_request*>(parent), status);
}

void LogIo::finish(sm_request* request) {
  const bool modifies = sm_op_modifies(request->op);
  if (request->op == SM_OP_WRITE && admitted(request)) endWrite(request);
  const int32_t status = stateOf(request).status;
  const bool notDurable = journal_.dirty() || commit_.running();
  if (status == 0 && modifies && mustBeDurable(request) && notDurable) commit_.join(request);
  else complete(request, status);
  if (modifies) pump();
}

// Whether there is still room for what the write makes live: blocks that it was to overwrite may have been discarded
// since it was let in, and others have filled the room.
bool LogIo::stillFits(const sm_request* request, const Write& write) const {
  const uint64_t live = map_.live() + promised_ - write.holes;
  const auto first = static_cast<uint32_t>(request->offset >> blockShift_);
  const auto count = static_cast<uint32_t>(request->length >> blockShift_);
  if (live + count <= usable_) return true;
  uint32_t holes = 0;
  for (uint32_t i = 0; i < count; ++i) holes += write.disk->place(first + i) == 0;
  return holes <= write.holes || live + holes <= usable_;
}

// Puts what was written into the map, or gives it up.
void LogIo::endWrite(sm_request* request) {
  RequestState& state = stateOf(request);
  Write& write = *static_cast<Write*>(state.disk);
  LogDisk& disk = *write.disk;
  auto block = static_cast<uint32_t>(request->offset >> blockShift_);
  if (state.status == 0 && !stillFits(request, write)) state.status = -ENOSPC;
  for (uint32_t at = write.first; at != 0;) {
    const uint32_t place = at - 1;
    const LogMap::Note run = map_.run(place);
    if (state.status == 0)
      for (uint32_t i = 0; i < run.count; ++i) map_.set(disk, block + i, place + i + 1);
    segments_.dropWriter(place);
    block += run.count;
    at = run.next;
  }
  promised_ -= write.holes;
  unused_ -= write.unused;
  sinceLook_ += request->length >> blockShift_;
  if (state.status == 0) debt_ += clean_ * static_cast<int64_t>(request->length >> blockShift_);
  --inFlight_;
  state.disk = &disk;
  write.next = unusedWrites_;
  unusedWrites_ = &write;
  goOnLater(writeWaiters_);
}

void LogIo::drainOwn() {
  if (commitWaits_) {
    commitWaits_ = false;
    commit_.resume();
  }
  if (cleanerWaits_ && !paused()) {
    cleanerWaits_ = false;
    cleaner_.resume();
  }
}

// Sees to it that whoever waits for space, or soon would, waits for something that will come.
void LogIo::pump() {
  again_ = true;
  if (pumping_) return;
  pumping_ = true;
  while (again_) {
    again_ = false;
    while (lookForSpace()) failWaiter();
  }
  pumping_ = false;
  drain();
}

// Returns whether a write waits for space that nothing can make.
bool LogIo::lookForSpace() {
  const bool waiting = !spaceWaiters_.empty();
  const bool little = segments_.free() + segments_.coming() < enough_;
  debt_ -= 100 * static_cast<int64_t>(cleaner_.moved() - lastMoved_);
  lastMoved_ = cleaner_.moved();
  if (clean_ == 0) debt_ = 0;
  if (cleaner_.idle() && !cleaner_.held()) {
    // To look for a segment takes a while: not again before a segment's worth has been written.
    const bool look = little && sinceLook_ >= segments_.blocks();
    if (look) sinceLook_ = 0;
    if (waiting) cleaner_.start(CleanFor::kWaiting);
    else if (look && cleaner_.start(CleanFor::kSpace)) sinceLook_ = segments_.blocks();
    else if (debt_ > 0) cleaner_.start(CleanFor::kTest);
  }
  const bool pressing = segments_.free() <= kReserve + 1 || segments_.freeing() >= enough_;
  const bool due = waiting || (segments_.free() < enough_ && pressing && !commitFailed_);
  if (segments_.freeing() && due && !commit_.running()) commit_.ask();
  return !spaceWaiters_.empty() && cleaner_.idle() && !cleaner_.held() && !segments_.coming() && inFlight_ == 0;
}

void LogIo::failWaiter() {
  const int32_t failure = cleaner_.takeFailure();
  sm_request* request = spaceWaiters_.pop();
  refuse(request, failure ? failure : -ENOSPC);
  goOnLater(request);
  goOnLater(spaceWaiters_);  // a smaller one may find room
  drain();
}

void LogIo::failWaiters(int32_t status) {
  while (sm_request* request = spaceWaiters_.pop()) {
    refuse(request, status);
    goOnLater(request);
  }
}

void LogIo::commitStarved() {
  commitWaits_ = true;
  starve();
}

void LogIo::commitEnded(int32_t status, RequestQueue& waiters) {
  commitFailed_ = status != 0;
  if (status) failWaiters(status);  // no segment comes free
  goOnLater(spaceWaiters_);
  while (sm_request* request = waiters.pop()) complete(request, status);
  pump();
}

void LogIo::cleanerStarved() {
  cleanerWaits_ = true;
  starve();
}

void LogIo::cleanerChanged() {
  goOnLater(spaceWaiters_);
  drain();
  pump();
}

// What was promised to writes stays there.
bool LogIo::cleanerMayTake(bool urgent) const {
  const uint64_t free = segments_.free();
  if (free == 0 || (free - 1) * segments_.blocks() + head_.room(segments_) < unused_) return false;
  return urgent || free > kReserve + 1;
}

}  // namespace sm
