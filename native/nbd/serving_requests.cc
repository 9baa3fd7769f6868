#include <algorithm>
#include <utility>

#include "nbd/serving.h"

namespace sm::nbd {

namespace {

Count countOf(Command command) {
  switch (command) {
    case Command::kWrite:
      return Count::kWrites;
    case Command::kFlush:
      return Count::kFlushes;
    case Command::kTrim:
      return Count::kTrims;
    case Command::kCache:
      return Count::kCaches;
    case Command::kWriteZeroes:
      return Count::kWriteZeroes;
    case Command::kBlockStatus:
      return Count::kBlockStatuses;
    default:
      return Count::kReads;
  }
}

bool carriesData(uint8_t op) { return op == SM_OP_READ || op == SM_OP_WRITE; }

}  // namespace

Serving::Serving(const Setup& setup, const Agreement& agreement)
    : thread_(setup.thread),
      transport_(setup.transport),
      export_(setup.target),
      buffers_(setup.buffers),
      counts_(setup.counts),
      ended_(setup.ended),
      facts_(setup.target.facts()),
      contexts_(agreement.contexts),
      requests_(setup.requests),
      stall_(setup.stall),
      slots_(new Slot[setup.requests]),
      heads_(new uint8_t[setup.requests * kHeadRoom]),
      outParts_(new iovec[2 * setup.requests + 1]) {
  session_ = {.bytes = agreement.bytes,
              .minimumBlock = agreement.minimumBlock,
              .flags = agreement.flags,
              .structured = agreement.structured,
              .fastZeroes = facts_.fastZeroes,
              .contexts = static_cast<uint32_t>(contexts_.size())};
  for (uint32_t i = requests_; i-- > 0;) {
    slots_[i].owner = this;
    slots_[i].next = std::exchange(free_, &slots_[i]);
  }
  retry_.owner = gather_.owner = waiter_.owner = timer_.owner = this;
  retry_.run = [](sm_task* task) {
    Serving* self = static_cast<Task*>(task)->owner;
    self->retry_.queued = false;
    self->starved_.drain([self](Slot* slot) { self->issue(slot); });
    self->endIfIdle();
  };
  gather_.run = [](sm_task* task) {
    Serving* self = static_cast<Task*>(task)->owner;
    self->gather_.queued = false;
    self->gather();
    self->endIfIdle();
  };
  waiter_.retry = [](Buffers::Waiter* waiter) { static_cast<Waiter*>(waiter)->owner->process(); };
  timer_.run = [](sm_timer* timer) { static_cast<Timer*>(timer)->owner->tick(); };
}

Serving::~Serving() = default;

void Serving::begin(std::unique_ptr<uint8_t[]> input, size_t from, size_t size, std::string answer) {
  input_ = std::move(input);
  begin_ = from;
  end_ = from + size;
  answer_ = std::move(answer);
  thread_.timerStart(&timer_, stall_ / 4);
  gather_.queued = true;
  thread_.atEndOfPass(&gather_);
  process();
}

void Serving::serve(Slot* slot) {
  const Request& request = slot->request;
  switch (request.command) {
    case Command::kRead:
      slot->op = SM_OP_READ;
      return issue(slot);
    case Command::kWrite:
      slot->op = SM_OP_WRITE;
      return issue(slot);
    case Command::kFlush:
      slot->op = SM_OP_FLUSH;
      return issue(slot);
    case Command::kTrim:
      slot->op = SM_OP_DISCARD;
      return issue(slot);
    case Command::kWriteZeroes:
      slot->op = facts_.discardZeroes && !(request.flags & kNoHole) ? SM_OP_DISCARD : SM_OP_WRITE_ZEROES;
      return issue(slot);
    case Command::kBlockStatus:
      return describe(slot);
    default:  // kCache: there is no cache to warm on this side of the export
      return answer(slot, Error::kNone);
  }
}

// Sends the export what is to be done next for the request.
void Serving::issue(Slot* slot) {
  sm_request* request = !starved_.empty() ? nullptr : export_.allocate();
  if (!request) {
    starved_.add(slot);
    if (!std::exchange(retry_.queued, true)) thread_.wait(&retry_);
    return;
  }
  request->op = slot->op;
  if (slot->op != SM_OP_FLUSH) {
    const bool durable = (slot->request.flags & kFua) && (slot->op == SM_OP_WRITE || slot->op == SM_OP_WRITE_ZEROES);
    request->flags = durable ? SM_FLAG_FUA : 0;
    request->offset = slot->request.offset + slot->done;
    request->length = slot->request.length;
  }
  if (carriesData(slot->op)) {
    request->length = std::min(slot->request.length - slot->done, facts_.maxTransfer);
    slot->piece = {slot->data + slot->done, request->length};
    request->iov = &slot->piece;
    request->iov_count = 1;
  }
  sm_request_push(
      request,
      [](sm_request* request, void* context, uint64_t) {
        Slot* slot = static_cast<Slot*>(context);
        const int32_t status = request->status;
        slot->owner->export_.release(request);
        slot->owner->completed(slot, status);
      },
      slot, 0);
  export_.submit(request);
}

void Serving::completed(Slot* slot, int32_t status) {
  if (status) return answer(slot, errorOf(status));
  if (carriesData(slot->op)) {
    slot->done += static_cast<uint32_t>(slot->piece.iov_len);
    if (slot->done < slot->request.length) return issue(slot);
  }
  if (slot->op == SM_OP_DISCARD && (slot->request.flags & kFua)) {  // a discard knows no FUA
    slot->op = SM_OP_FLUSH;
    return issue(slot);
  }
  if (slot->op == SM_OP_READ) slot->reply = slot->request.length;
  answer(slot, Error::kNone);
}

void Serving::describe(Slot* slot) {
  const Request& request = slot->request;
  Extent extents[(kStatusBytes - blockStatusBytes(0)) / 8];
  const size_t room = request.flags & kReqOne ? 1 : std::size(extents);
  for (uint32_t id = 0; id < contexts_.size(); ++id) {
    MetaContext& context = *export_.contexts()[contexts_[id]];
    const size_t found = context.extents(request.offset, request.length, {extents, room});
    slot->reply +=
        blockStatusReply(slot->data + slot->reply, request.cookie, id, {extents, found}, id + 1 == contexts_.size());
  }
  answer(slot, Error::kNone);
}

void Serving::answer(Slot* slot, Error error) {
  --inFlight_;
  slot->error = error;
  count(*slot);
  if (dead_) {
    release(slot);
    return endIfIdle();
  }
  ready_.add(slot);
  // Until the end of the pass, so that one send takes all that becomes ready in it.
  if (!sendInFlight_ && !std::exchange(gather_.queued, true)) thread_.atEndOfPass(&gather_);
}

void Serving::count(const Slot& slot) {
  const Request& request = slot.request;
  if (request.command <= Command::kBlockStatus) counts_.add(countOf(request.command), 1);
  if (slot.error != Error::kNone) {
    counts_.add(Count::kErrors, 1);
  } else if (request.command == Command::kRead) {
    counts_.add(Count::kBytesRead, request.length);
  } else if (request.command == Command::kWrite) {
    counts_.add(Count::kBytesWritten, request.length);
  }
}

void Serving::release(Slot* slot) {
  if (slot->data) buffers_.put(slot->data);
  held_ -= slot->bytes;
  slot->next = std::exchange(free_, slot);
}

}  // namespace sm::nbd
