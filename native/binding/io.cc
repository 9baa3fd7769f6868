#include "binding/io.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <utility>

#include "binding/addon.h"
#include "binding/environment.h"
#include "binding/errors.h"
#include "binding/job.h"

namespace sm::binding {
namespace {

constexpr uint32_t kSlots = 1024;
constexpr uint32_t kSlabs = 64;        // MiB of memory for data in flight
constexpr uint32_t kPiecesAtOnce = 8;  // of one operation, so that long ones leave room for others

const char* verbOf(uint8_t op) {
  switch (op) {
    case SM_OP_READ:
      return "read";
    case SM_OP_WRITE:
      return "write";
    case SM_OP_FLUSH:
      return "flush";
    case SM_OP_DISCARD:
      return "discard";
    default:
      return "write zeroes to";
  }
}

bool carriesData(uint8_t op) { return op == SM_OP_READ || op == SM_OP_WRITE; }

}  // namespace

struct IoFront::Batch {
  napi_deferred deferred;
  napi_ref views;
  napi_ref errors = nullptr;  // an array; null as long as nothing failed
  uint32_t count, left;       // operations
};

struct IoFront::Operation {
  std::shared_ptr<DiskBox> disk;
  Batch* batch;    // null: it is a promise of its own
  uint32_t index;  // in the batch
  napi_deferred deferred;
  napi_ref views;  // null: no data, or the batch's
  bool several;    // views is an array
  bool waiting;    // in waiting_
  bool aborted;
  bool bufferGone;  // a view was detached or resized
  uint8_t op;
  uint32_t flags, token;
  uint64_t offset, length;
  uint64_t next;      // bytes that have been submitted
  uint32_t inFlight;  // pieces
  int32_t status;
  uint64_t failedAt;  // offset of the first piece that failed
  Operation *before, *after;

  bool failed() const { return aborted || bufferGone || status < 0; }
  bool more() const { return next < length && !aborted && !bufferGone && status == 0; }
};

struct IoFront::Slot : DiskIo, Letter {
  IoFront* front = nullptr;
  Operation* operation = nullptr;
  std::byte* block = nullptr;
};

IoFront::IoFront(Environment& environment) : environment_(environment) {}

IoFront::~IoFront() = default;

void IoFront::Fifo::add(Operation* operation) {
  operation->waiting = true;
  operation->before = last;
  operation->after = nullptr;
  (last ? last->after : first) = operation;
  last = operation;
}

void IoFront::Fifo::remove(Operation* operation) {
  operation->waiting = false;
  (operation->before ? operation->before->after : first) = operation->after;
  (operation->after ? operation->after->before : last) = operation->before;
}

IoFront::Operation* IoFront::take() {
  if (!arena_) {
    arena_ = std::make_unique<BufferArena>(kSlabs);
    slots_ = std::make_unique<Slot[]>(kSlots);
    for (uint32_t i = 0; i < kSlots; ++i) freeSlots_.push_back(&slots_[i]);
  }
  if (freeOperations_.empty()) {
    operations_.push_back(std::make_unique<Operation>());
    return operations_.back().get();
  }
  Operation* operation = freeOperations_.back();
  freeOperations_.pop_back();
  return operation;
}

napi_value IoFront::start(napi_env env, const Request& request) {
  napi_value promise;
  Operation* operation = take();
  *operation = {.disk = request.disk,
                .op = request.op,
                .flags = request.flags,
                .token = request.token,
                .offset = request.offset,
                .length = request.length};
  NAPI_THROW_IF_FAILED(env, napi_create_promise(env, &operation->deferred, &promise), nullptr);
  if (carriesData(request.op)) {
    napi_is_array(env, request.views, &operation->several);
    NAPI_THROW_IF_FAILED(env, napi_create_reference(env, request.views, 1, &operation->views), nullptr);
  }
  if (operation->token) tokens_.emplace(operation->token, operation);
  admit(operation);
  pump();
  return promise;
}

void IoFront::admit(Operation* operation) {
  operation->disk->begin();
  environment_.mailbox.hold();
  waiting_.add(operation);
}

napi_value IoFront::startBatch(napi_env env, const std::shared_ptr<DiskBox>& disk, const double* words, uint32_t count,
                               napi_value views) {
  napi_value promise;
  auto batch = std::make_unique<Batch>(Batch{.count = count, .left = count});
  NAPI_THROW_IF_FAILED(env, napi_create_promise(env, &batch->deferred, &promise), nullptr);
  NAPI_THROW_IF_FAILED(env, napi_create_reference(env, views, 1, &batch->views), nullptr);
  for (uint32_t i = 0; i < count; ++i, words += 3) {
    const auto what = static_cast<uint32_t>(words[0]);
    Operation* operation = take();
    *operation = {.disk = disk,
                  .batch = batch.get(),
                  .index = i,
                  .op = static_cast<uint8_t>(what & 0xff),
                  .flags = what >> 8,
                  .offset = static_cast<uint64_t>(words[1]),
                  .length = static_cast<uint64_t>(words[2])};
    admit(operation);
  }
  batch.release();  // the last of its operations ends it
  pump();
  return promise;
}

// Submits pieces in the order of the queue, as far as slots and memory reach.
void IoFront::pump() {
  while (Operation* operation = waiting_.first) {
    if (!submitPiece(operation)) return;
    if (!operation->more() || operation->inFlight == kPiecesAtOnce) waiting_.remove(operation);
    if (operation->inFlight == 0) settle(operation);  // it could not be begun
  }
}

// False: nothing free. The operation waits on.
bool IoFront::submitPiece(Operation* operation) {
  if (!operation->disk->volume->host->open()) {  // the process or the worker is ending
    operation->status = -ESHUTDOWN;
    operation->failedAt = operation->offset + operation->next;
    return true;
  }
  const bool data = carriesData(operation->op);
  const uint64_t length = data ? std::min(operation->length - operation->next, kMaxTransfer) : operation->length;
  if (freeSlots_.empty()) return false;
  std::byte* block = nullptr;
  if (data && !(block = static_cast<std::byte*>(arena_->get(length)))) return false;
  if (operation->op == SM_OP_WRITE && !copyData(operation, false, operation->next, block, length)) {
    arena_->put(block);
    operation->bufferGone = true;
    return true;
  }
  Slot* slot = freeSlots_.back();
  freeSlots_.pop_back();
  slot->front = this;
  slot->operation = operation;
  slot->block = block;
  slot->op = operation->op;
  slot->flags = operation->flags;
  slot->offset = operation->offset + operation->next;
  slot->length = length;
  slot->iov[0] = {block, length};
  slot->iovCount = data ? 1 : 0;
  slot->done = [](DiskIo* io) {
    Slot* slot = static_cast<Slot*>(io);
    slot->front->environment_.mailbox.send(slot);
  };
  slot->deliver = [](Letter* letter) {
    Slot* slot = static_cast<Slot*>(letter);
    slot->front->completed(slot);
  };
  operation->next += length;
  ++operation->inFlight;
  operation->disk->disk->submit(slot);
  return true;
}

void IoFront::completed(Slot* slot) {
  Operation* operation = slot->operation;
  if (slot->status < 0) {
    if (operation->status == 0 || slot->offset < operation->failedAt) {
      operation->status = slot->status;
      operation->failedAt = slot->offset;
    }
  } else if (operation->op == SM_OP_READ && operation->status == 0 && !operation->aborted && !operation->bufferGone) {
    if (!copyData(operation, true, slot->offset - operation->offset, slot->block, slot->length)) {
      operation->bufferGone = true;
    }
  }
  if (slot->block) arena_->put(slot->block);
  freeSlots_.push_back(slot);
  --operation->inFlight;
  if (operation->more()) {
    if (!operation->waiting) waiting_.add(operation);
  } else {
    if (operation->waiting) waiting_.remove(operation);
    if (operation->inFlight == 0) settle(operation);
  }
  pump();
}

// Between a block and the bytes [from, from + length) of the operation's views. False: they are not what they were.
bool IoFront::copyData(Operation* operation, bool toViews, uint64_t from, std::byte* data, uint64_t length) {
  const napi_env env = environment_.env;
  napi_value views;
  uint32_t count = 1;
  const napi_ref holder = operation->batch ? operation->batch->views : operation->views;
  if (napi_get_reference_value(env, holder, &views) != napi_ok) return false;
  if (operation->batch && napi_get_element(env, views, operation->index, &views) != napi_ok) return false;
  if (operation->several && napi_get_array_length(env, views, &count) != napi_ok) return false;
  uint64_t sum = 0;
  for (uint32_t i = 0; i < count; ++i) {
    napi_value view = views;
    void* bytes = nullptr;
    size_t size = 0;
    if (operation->several && napi_get_element(env, views, i, &view) != napi_ok) return false;
    if (napi_get_typedarray_info(env, view, nullptr, &size, &bytes, nullptr, nullptr) != napi_ok) return false;
    const uint64_t first = std::max(from, sum), last = std::min(from + length, sum + size);
    if (first < last) {
      std::byte* const outside = static_cast<std::byte*>(bytes) + (first - sum);
      std::byte* const inside = data + (first - from);
      if (toViews) {
        std::memcpy(outside, inside, last - first);
      } else {
        std::memcpy(inside, outside, last - first);
      }
    }
    sum += size;
  }
  return sum == operation->length;
}

void IoFront::abort(uint32_t token) {
  auto found = tokens_.find(token);
  if (found == tokens_.end()) return;
  Operation* operation = found->second;
  operation->aborted = true;
  if (operation->waiting) waiting_.remove(operation);
  if (operation->inFlight == 0) settle(operation);
}

// The environment may be ending: then calls into JavaScript fail, and nobody is left to be told.
void IoFront::settle(Operation* operation) {
  const Napi::Env env = environment_.env;
  try {
    if (operation->batch) {
      settleBatch(operation);
    } else if (operation->failed()) {
      napi_reject_deferred(env, operation->deferred, failureOf(operation));
    } else {
      napi_value value = env.Undefined();
      if (operation->op == SM_OP_READ) napi_get_reference_value(env, operation->views, &value);
      napi_resolve_deferred(env, operation->deferred, value);
    }
  } catch (const Napi::Error&) {
  }
  if (operation->views) napi_delete_reference(env, operation->views);
  if (operation->token) tokens_.erase(operation->token);
  std::shared_ptr<DiskBox> disk = std::move(operation->disk);
  freeOperations_.push_back(operation);
  environment_.mailbox.letGo();
  disk->end();
}

void IoFront::settleBatch(Operation* operation) {
  const Napi::Env env = environment_.env;
  Batch* batch = operation->batch;
  --batch->left;
  if (!operation->failed() && batch->left > 0) return;
  napi_value errors = env.Undefined();
  if (batch->errors) {
    napi_get_reference_value(env, batch->errors, &errors);
  } else if (operation->failed() && napi_create_array_with_length(env, batch->count, &errors) == napi_ok) {
    napi_create_reference(env, errors, 1, &batch->errors);
  }
  if (operation->failed()) napi_set_element(env, errors, operation->index, failureOf(operation));
  if (batch->left > 0) return;
  napi_resolve_deferred(env, batch->deferred, errors);
  napi_delete_reference(env, batch->views);
  if (batch->errors) napi_delete_reference(env, batch->errors);
  delete batch;
}

napi_value IoFront::failureOf(Operation* operation) {
  const Napi::Env env = environment_.env;
  if (operation->aborted) return abortError(env);
  const DiskBox& disk = *operation->disk;
  Failure failure{.layer = "disk", .vm = disk.vm, .disk = disk.name};
  const std::string where = disk.vm + "/" + disk.name;
  const std::string what = std::string("cannot ") + verbOf(operation->op) + " " + where + " at offset " +
                           std::to_string(operation->offset) + ", " + std::to_string(operation->length) + " bytes: ";
  if (operation->bufferGone) {
    failure.error = EINVAL;
    failure.code = "ERR_STRATAMAP_BUFFER";
    failure.offset = int64_t(operation->offset);
    failure.message = what +
                      "its buffer was detached or changed size while the operation was under way; keep buffers as they "
                      "are until the promise settles";
    return toError(env, failure);
  }
  failure.error = -operation->status;
  failure.offset = operation->op == SM_OP_FLUSH ? -1 : int64_t(operation->failedAt);
  if (failure.error == ESHUTDOWN) {
    failure.code = "ERR_STRATAMAP_CLOSED";
    failure.message = what + "the disk is closed";
    return toError(env, failure);
  }
  failure.code = errnoName(failure.error);
  failure.message = what + failure.code + ", " + std::strerror(failure.error);
  if (operation->failedAt != operation->offset) {
    failure.message += ", found at offset " + std::to_string(operation->failedAt);
  }
  if (failure.error == ENOSPC) {
    failure.message += ". The volume has no free space for it: discard what is not needed, or delete a disk";
  }
  return toError(env, failure);
}

namespace {

// diskIo(disk, op, offset, length, flags, views, token): promise. Raw Node-API: this is called for every I/O.
napi_value diskIo(napi_env env, napi_callback_info info) {
  try {
    napi_value arguments[7];
    size_t count = 7;
    uint32_t op = 0, flags = 0, token = 0;
    int64_t offset = 0, length = 0;
    if (napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr) != napi_ok || count != 7 ||
        napi_get_value_uint32(env, arguments[1], &op) != napi_ok ||
        napi_get_value_int64(env, arguments[2], &offset) != napi_ok ||
        napi_get_value_int64(env, arguments[3], &length) != napi_ok ||
        napi_get_value_uint32(env, arguments[4], &flags) != napi_ok ||
        napi_get_value_uint32(env, arguments[6], &token) != napi_ok) {
      throw Napi::TypeError::New(env, "diskIo: wrong arguments");
    }
    const std::shared_ptr<DiskBox>& disk = unwrap<DiskBox>(env, arguments[0]);
    if (!disk->usable()) return rejected(env, closedFailure("disk", "disk " + disk->vm + "/" + disk->name));
    return Environment::of(env).io.start(
        env, {disk, uint8_t(op), flags, uint64_t(offset), uint64_t(length), arguments[5], token});
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  } catch (const std::exception& error) {
    napi_throw_error(env, "ENOMEM", error.what());
  }
  return nullptr;
}

// diskBatch(disk, words, views): promise, as startBatch says.
napi_value diskBatch(napi_env env, napi_callback_info info) {
  try {
    napi_value arguments[3];
    size_t count = 3, length = 0;
    napi_typedarray_type type;
    void* words = nullptr;
    if (napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr) != napi_ok || count != 3 ||
        napi_get_typedarray_info(env, arguments[1], &type, &length, &words, nullptr, nullptr) != napi_ok ||
        type != napi_float64_array || length == 0 || length % 3 != 0) {
      throw Napi::TypeError::New(env, "diskBatch: wrong arguments");
    }
    const std::shared_ptr<DiskBox>& disk = unwrap<DiskBox>(env, arguments[0]);
    if (!disk->usable()) return rejected(env, closedFailure("disk", "disk " + disk->vm + "/" + disk->name));
    return Environment::of(env).io.startBatch(env, disk, static_cast<const double*>(words),
                                              static_cast<uint32_t>(length / 3), arguments[2]);
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  } catch (const std::exception& error) {
    napi_throw_error(env, "ENOMEM", error.what());
  }
  return nullptr;
}

void abortIo(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).io.abort(info[0].As<Napi::Number>().Uint32Value());
}

}  // namespace

void addIo(Napi::Object exports) {
  napi_value function;
  const napi_env env = exports.Env();
  NAPI_THROW_IF_FAILED_VOID(env, napi_create_function(env, "diskIo", NAPI_AUTO_LENGTH, diskIo, nullptr, &function));
  exports.Set("diskIo", function);
  NAPI_THROW_IF_FAILED_VOID(env,
                            napi_create_function(env, "diskBatch", NAPI_AUTO_LENGTH, diskBatch, nullptr, &function));
  exports.Set("diskBatch", function);
  addFunction<abortIo>(exports, "abortIo");
}

}  // namespace sm::binding
