#include "disks/virtual_disk.h"

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "disks/filter_chain.h"
#include "engine/fifo.h"

namespace sm {
namespace {

std::atomic<uint32_t> nextDiskId{1};
thread_local uint32_t requestsForDisks = 0;  // of this I/O thread, in use

void releaseHere(sm_request* request) {
  --requestsForDisks;
  IoThread::current()->release(request);
}

const char* nameOf(uint8_t op) {
  switch (op) {
    case SM_OP_READ:
      return "read";
    case SM_OP_WRITE:
      return "write";
    case SM_OP_FLUSH:
      return "flush";
    case SM_OP_DISCARD:
      return "discard";
    case SM_OP_WRITE_ZEROES:
      return "write-zeroes";
  }
  return "operation";
}

bool carriesData(uint8_t op) { return op == SM_OP_READ || op == SM_OP_WRITE; }

// What is wrong with a range, or null.
const char* rangeProblem(const sm_disk& disk, uint64_t diskBytes, uint8_t op, uint64_t offset, uint64_t length) {
  if (op == SM_OP_FLUSH) return offset || length ? "a flush has no range" : nullptr;
  if (op < SM_OP_READ || op > SM_OP_WRITE_ZEROES) return "there is no such operation";
  if (length == 0) return "the length is 0";
  const uint64_t below = disk.block_size - 1;
  if ((offset | length) & below) return "offset and length must be multiples of the block size";
  if (offset > diskBytes || length > diskBytes - offset) return "the range must lie inside the disk";
  if (carriesData(op) && length > kMaxTransfer) return "one request carries at most 1 MiB";
  return nullptr;
}

bool dataAddsUp(const sm_request& request) {
  if (!carriesData(request.op)) return true;
  if (!request.iov || request.iov_count == 0 || request.iov_count > SM_IOV_MAX) return false;
  uint64_t sum = 0;
  for (uint32_t i = 0; i < request.iov_count; ++i) {
    if (request.iov[i].iov_len > kMaxTransfer || (request.iov[i].iov_len > 0 && !request.iov[i].iov_base)) return false;
    sum += request.iov[i].iov_len;
  }
  return sum == request.length;
}

}  // namespace

struct VirtualDisk::State {
  enum class Gate { kOpen, kHeld, kClosed };
  struct Contract {
    sm_disk disk{};
    VirtualDisk* owner = nullptr;
  };

  State(VirtualDisk* owner, IoThread& homeThread, const sm_volume_ops* volumeOps, void* volumeOfDisk,
        void* handleOfDisk, std::string vmName, std::string diskName, uint64_t bytes, uint32_t blockSize)
      : home(homeThread),
        ops(volumeOps),
        volume(volumeOfDisk),
        handle(handleOfDisk),
        vm(std::move(vmName)),
        name(std::move(diskName)),
        chain(homeThread) {
    contract.owner = owner;
    contract.disk = {nextDiskId.fetch_add(1), blockSize, bytes, vm.c_str(), name.c_str()};
    retry.disk = this;
    retry.task.run = [](sm_task* task) {
      State* state = reinterpret_cast<Retry*>(task)->disk;
      state->retryQueued = false;
      state->startWaiting();
    };
  }

  // --- the path of a request
  sm_request* allocate() {
    if (requestsForDisks >= home.requests() / 2) return nullptr;
    sm_request* request = home.allocate();
    if (request) ++requestsForDisks;
    return request;
  }

  void enter(sm_request* request) {
    request->disk = &contract.disk;
    request->device = nullptr;
    if (gate == Gate::kOpen) return go(request);
    if (gate == Gate::kHeld) return held.add(request);
    home.completeLater(request, -ESHUTDOWN);
  }

  void go(sm_request* request) {
    if (rangeProblem(contract.disk, contract.disk.bytes, request->op, request->offset, request->length) ||
        !dataAddsUp(*request) || request->frame_count >= SM_FRAMES) {
      return home.completeLater(request, -EINVAL);
    }
    FilterChain::Snapshot* snapshot = chain.take();
    sm_request_push(request, &State::left, this, reinterpret_cast<uint64_t>(snapshot));
    // One writer: a plain addition, seen by others as a whole.
    inFlight.store(inFlight.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (FilterChain::walk(snapshot, request)) ops->submit(volume, handle, request);
  }

  static void left(sm_request* request, void* context, uint64_t word) {
    State* state = static_cast<State*>(context);
    state->chain.giveBack(reinterpret_cast<FilterChain::Snapshot*>(word));
    // The disk cannot go before this request is counted out, which is after its issuer has seen it.
    sm_request_pop(request);
    state->inFlight.store(state->inFlight.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    state->signalIfIdle();
  }

  // --- DiskIo
  void admit(DiskIo* io) {
    if (gate == Gate::kClosed) {
      io->status = -ESHUTDOWN;
      return io->done(io);
    }
    waiting.add(&io->task);
    if (waiting.first() == &io->task) startWaiting();
  }

  // Starts what waits, in the order it came, as far as requests reach.
  void startWaiting() {
    ++pins;  // so that the last one does not make the disk idle while this goes on
    while (waiting.first() && gate != Gate::kHeld && !retryQueued) {
      sm_request* request = allocate();
      if (!request) {
        retryQueued = true;
        home.wait(&retry.task);
        break;
      }
      DiskIo* io = reinterpret_cast<DiskIo*>(waiting.take());
      request->op = io->op;
      request->ioprio = io->ioprio;
      request->flags = io->flags;
      request->offset = io->offset;
      request->length = io->length;
      if (io->iovCount) request->iov = io->iov;
      request->iov_count = io->iovCount;
      request->disk = &contract.disk;
      sm_request_push(
          request,
          [](sm_request* request, void* context, uint64_t) {
            DiskIo* io = static_cast<DiskIo*>(context);
            io->status = request->status;
            releaseHere(request);  // not by the disk, which may be closed where the request was refused
            io->done(io);
          },
          io, 0);
      go(request);
    }
    --pins;
    signalIfIdle();
  }

  // --- stopping
  bool idle() const {
    if (inFlight.load(std::memory_order_relaxed)) return false;
    return gate == Gate::kHeld || (!waiting.first() && !retryQueued && !pins);
  }

  void signalIfIdle() {
    if (!idleWanted || !idle()) return;
    idleWanted = false;
    std::lock_guard<std::mutex> lock(idleMutex);
    idleSeen = true;
    idleChanged.notify_all();
  }

  void quiesce(Gate next) {
    struct Call {
      State* state;
      Gate next;
    } call{this, next};
    idleSeen = false;
    home.call(
        [](void* context) {
          auto* call = static_cast<Call*>(context);
          call->state->gate = call->next;
          call->state->idleWanted = true;
          call->state->signalIfIdle();
        },
        &call);
    std::unique_lock<std::mutex> lock(idleMutex);
    idleChanged.wait(lock, [this] { return idleSeen; });
  }

  struct Retry {
    sm_task task{};  // first: found from it
    State* disk = nullptr;
  };

  Contract contract;
  IoThread& home;
  const sm_volume_ops* const ops;
  void* const volume;
  void* const handle;
  const std::string vm, name;
  FilterChain chain;
  std::atomic<uint64_t> inFlight{0};  // written on the home thread alone

  // On the home thread.
  Gate gate = Gate::kOpen;
  Fifo<sm_request> held;  // entered while the gate was held
  Fifo<sm_task> waiting;  // DiskIos that have no request yet
  Retry retry;
  bool retryQueued = false;
  uint32_t pins = 0;
  bool idleWanted = false;

  std::mutex idleMutex;
  std::condition_variable idleChanged;
  bool idleSeen = false;
};

VirtualDisk::VirtualDisk(IoThread& home, const sm_volume_ops* ops, void* volume, void* handle, std::string vm,
                         std::string name, uint64_t bytes, uint32_t blockSize)
    : state_(
          std::make_unique<State>(this, home, ops, volume, handle, std::move(vm), std::move(name), bytes, blockSize)) {}

VirtualDisk::~VirtualDisk() = default;

sm_disk* VirtualDisk::contract() { return &state_->contract.disk; }

VirtualDisk* VirtualDisk::fromContract(sm_disk* disk) {
  return reinterpret_cast<State::Contract*>(disk)->owner;  // its first member
}

IoThread& VirtualDisk::home() { return state_->home; }

uint64_t VirtualDisk::bytes() const { return __atomic_load_n(&state_->contract.disk.bytes, __ATOMIC_RELAXED); }

uint64_t VirtualDisk::inFlight() const { return state_->inFlight.load(std::memory_order_relaxed); }

Failure VirtualDisk::check(uint8_t op, uint64_t offset, uint64_t length) const {
  const uint64_t size = bytes();
  const char* problem = rangeProblem(state_->contract.disk, size, op, offset, length);
  if (!problem) return {};
  Failure failure;
  failure.error = EINVAL;
  failure.code = "ERR_OUT_OF_RANGE";
  failure.layer = "disk";
  failure.vm = state_->vm;
  failure.disk = state_->name;
  failure.offset = offset <= INT64_MAX ? static_cast<int64_t>(offset) : -1;
  failure.message = "cannot " + std::string(nameOf(op)) + " " + std::to_string(length) + " bytes at offset " +
                    std::to_string(offset) + " of disk " + state_->vm + "/" + state_->name + " (" +
                    std::to_string(size) + " bytes, blocks of " + std::to_string(state_->contract.disk.block_size) +
                    "): " + problem;
  return failure;
}

void VirtualDisk::submit(DiskIo* io) {
  io->disk = this;
  io->task.run = [](sm_task* task) {
    DiskIo* io = reinterpret_cast<DiskIo*>(task);  // its first member
    io->disk->state_->admit(io);
  };
  state_->home.post(&io->task);
}

sm_request* VirtualDisk::allocate() { return state_->allocate(); }

void VirtualDisk::release(sm_request* request) { releaseHere(request); }

void VirtualDisk::enter(sm_request* request) { state_->enter(request); }

void VirtualDisk::resume(sm_request* request) {
  if (FilterChain::walkOn(request)) state_->ops->submit(state_->volume, state_->handle, request);
}

void VirtualDisk::pin() { ++state_->pins; }

void VirtualDisk::unpin() {
  --state_->pins;
  state_->signalIfIdle();
}

void VirtualDisk::quiesce(Quiesce why) {
  state_->quiesce(why == Quiesce::kClose ? State::Gate::kClosed : State::Gate::kHeld);
}

void VirtualDisk::proceed(uint64_t bytes) {
  struct Call {
    State* state;
    uint64_t bytes;
  } call{state_.get(), bytes};
  state_->home.call(
      [](void* context) {
        auto* call = static_cast<Call*>(context);
        State& state = *call->state;
        __atomic_store_n(&state.contract.disk.bytes, call->bytes, __ATOMIC_RELAXED);
        state.gate = State::Gate::kOpen;
        // Only what is held now: a completion may issue more, which then goes straight on.
        while (state.held.first()) state.go(state.held.take());
        state.startWaiting();
      },
      &call);
}

int VirtualDisk::attachFilter(const sm_filter_ops* ops, void* context) { return state_->chain.attach(ops, context); }

int VirtualDisk::detachFilter(void* context, uint64_t timeoutNs) { return state_->chain.detach(context, timeoutNs); }

}  // namespace sm
