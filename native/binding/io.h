// The I/O of JavaScript on virtual disks: promises above, DiskIos below.
//
// An operation is one promise. It travels in pieces of at most kMaxTransfer, each in a preallocated slot with a block
// of our own memory: data to write is copied in when the piece is submitted, data read is copied out when the piece has
// completed, so that what JavaScript does to its buffers in between, or whether it still has them, touches no I/O.
// Without a free slot or block an operation waits, first come first served; it never fails for want of them.
// The operations of a batch share one promise, and one array of views.
//
// Thread contract: the JavaScript thread, but for a slot's `done`, which posts it to the mailbox. Invariants: a slot's
// block is free only when its I/O has ended; a promise settles only when no piece of its operation is in flight; while
// an operation has not settled, it holds the mailbox and counts as pending on its disk.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "binding/buffer_arena.h"
#include "binding/handles.h"
#include "binding/mailbox.h"
#include "binding/node_api.h"
#include "disks/virtual_disk.h"

namespace sm::binding {

class Environment;

class IoFront {
 public:
  explicit IoFront(Environment& environment);
  ~IoFront();

  struct Request {
    std::shared_ptr<DiskBox> disk;
    uint8_t op;
    uint32_t flags;
    uint64_t offset, length;
    napi_value views;  // a Uint8Array, an array of them, or null
    uint32_t token;    // for abort; 0: none
  };
  // The promise. The caller has checked the range.
  napi_value start(napi_env env, const Request& request);
  // One promise for all of them: of undefined, or an array in which those that failed have their error. `words`: three
  // for each operation: op and, in the bits from 8 on, flags; offset; length. `views`: an array, with a Uint8Array for
  // each operation that carries data.
  napi_value startBatch(napi_env env, const std::shared_ptr<DiskBox>& disk, const double* words, uint32_t count,
                        napi_value views);
  // Not yet begun: gives up at once. Begun: starts no more pieces, and rejects when those in flight have ended.
  void abort(uint32_t token);

 private:
  struct Batch;
  struct Operation;
  struct Slot;
  struct Fifo {
    Operation *first = nullptr, *last = nullptr;
    void add(Operation*);
    void remove(Operation*);
  };

  Operation* take();
  void admit(Operation* operation);
  void pump();
  bool submitPiece(Operation* operation);
  void completed(Slot* slot);
  void settle(Operation* operation);
  void settleBatch(Operation* operation);
  bool copyData(Operation* operation, bool toViews, uint64_t from, std::byte* data, uint64_t length);
  napi_value failureOf(Operation* operation);

  Environment& environment_;
  std::unique_ptr<BufferArena> arena_;  // made for the first operation, as the slots are
  std::unique_ptr<Slot[]> slots_;
  std::vector<Slot*> freeSlots_;
  std::vector<std::unique_ptr<Operation>> operations_;
  std::vector<Operation*> freeOperations_;
  Fifo waiting_;  // operations with a piece to submit
  std::unordered_map<uint32_t, Operation*> tokens_;
};

}  // namespace sm::binding
