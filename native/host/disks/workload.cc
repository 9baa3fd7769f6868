#include "disks/workload.h"

#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>
#include <utility>
#include <vector>

#include "disks/workload_mix.h"
#include "disks/workload_verify.h"
#include "engine/buffer_pool.h"

namespace sm {
namespace {

// xoshiro256++ (Blackman, Vigna: Scrambled Linear Pseudorandom Number Generators, 2019).
class Random {
 public:
  explicit Random(uint64_t seed) {
    for (uint64_t& word : s_) {
      uint64_t z = (seed += 0x9e3779b97f4a7c15);
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
      z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
      word = z ^ (z >> 31);
    }
  }
  uint64_t next() {
    const uint64_t result = rotate(s_[0] + s_[3], 23) + s_[0];
    const uint64_t t = s_[1] << 17;
    s_[2] ^= s_[0];
    s_[3] ^= s_[1];
    s_[1] ^= s_[2];
    s_[0] ^= s_[3];
    s_[2] ^= t;
    s_[3] = rotate(s_[3], 45);
    return result;
  }

 private:
  static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  uint64_t s_[4];
};

}  // namespace

// Thread contract: built and destroyed by the owner, all else on the home I/O thread, but `stops`.
// Invariants: a slot is in flight or in `ready`, never both; a unit that is claimed belongs to the one slot in flight
// that claimed it; pump() is never entered twice, so that I/O that completes at once does not recurse.
struct Workload::State {
  enum class Phase { kLoad, kReadBack, kEnd };

  struct Slot {
    State* owner = nullptr;
    iovec iov{};
    void* pooled = nullptr;  // where the buffer is the pool's
    uint8_t* data = nullptr;
    uint64_t started = 0, unit = 0;
    uint32_t generation = 0;
    uint8_t op = 0;
  };

  struct Work {
    sm_task task{};  // first: found from it
    State* owner = nullptr;
    bool queued = false;
  };

  State(VirtualDisk& diskUnderLoad, const WorkloadOptions& given)
      : disk(diskUnderLoad),
        home(diskUnderLoad.home()),
        options(given),
        units(unitsOf(diskUnderLoad, given)),
        random(given.seed),
        pattern(diskUnderLoad.contract()->vm, diskUnderLoad.contract()->name, runNumber()),
        table(given.verify ? units : 0),
        slots(given.queueDepth) {
    Mix mix;
    mixOf(options, &mix);
    randomly = mix.random;
    readsInOrder = mix.read > 0;
    const double shares[] = {mix.read, mix.discard, mix.zeroes, mix.flush};
    double sum = 0;
    for (int i = 0; i < 4; ++i) upTo[i] = static_cast<uint64_t>((sum += shares[i]) / 100 * 4294967296.0);
    ready.reserve(slots.size());
    for (Slot& slot : slots) {
      slot.owner = this;
      ready.push_back(&slot);
    }
    for (Work* work : {&begin, &again, &retry}) work->owner = this;
    begin.task.run = [](sm_task* task) { reinterpret_cast<Work*>(task)->owner->run(); };
    again.task.run = retry.task.run = [](sm_task* task) {
      Work* work = reinterpret_cast<Work*>(task);
      work->queued = false;
      work->owner->pump();
    };
    memory.reset(static_cast<uint8_t*>(std::aligned_alloc(4096, (options.blockSize * slots.size() + 4095) & ~4095ull)));
    if (!memory) throw std::bad_alloc();
  }

  static uint64_t runNumber() {
    std::random_device device;
    return (uint64_t{device()} << 32) | device();
  }

  // --- begin and end
  void run() {
    disk.pin();
    // Half of the pool stays free for those who cannot go on without; beyond that, buffers are the workload's own.
    const uint64_t needed = std::bit_ceil(options.blockSize) * slots.size();
    const bool fromPool = home.buffers().freeBytes() >= home.buffers().bytes() / 2 + needed;
    for (size_t i = 0; i < slots.size(); ++i) {
      Slot& slot = slots[i];
      uint64_t capacity;
      if (!fromPool || !home.buffers().get(options.blockSize, &slot.pooled, &capacity)) slot.pooled = nullptr;
      slot.data = slot.pooled ? static_cast<uint8_t*>(slot.pooled) : memory.get() + i * options.blockSize;
      slot.iov = {slot.data, options.blockSize};
      for (uint64_t at = 0; at < options.blockSize; at += 8) {
        const uint64_t word = random.next();
        std::memcpy(slot.data + at, &word, 8);
      }
    }
    startedAt = home.now();
    cpuAtStart = home.cpuTime();
    deadline = options.seconds > 0 ? startedAt + static_cast<uint64_t>(options.seconds * 1e9) : UINT64_MAX;
    pump();
  }

  void endLoad() {
    result.elapsedNs = home.now() - startedAt;
    result.cpuNs = home.cpuTime() - cpuAtStart;
    phase = options.verify && stops.load(std::memory_order_relaxed) < 2 && !closing ? Phase::kReadBack : Phase::kEnd;
  }

  void end() {
    for (Slot& slot : slots) {
      if (slot.pooled) home.buffers().put(slot.pooled);
    }
    // `done` may destroy the workload.
    VirtualDisk& lastDisk = disk;
    const auto lastResult = std::make_unique<WorkloadResult>(std::move(result));
    const auto lastDone = std::move(done);
    lastDone(*lastResult);
    lastDisk.unpin();
  }

  // --- the loop
  bool phaseOver() const {
    const uint32_t stopped = stops.load(std::memory_order_relaxed);
    if (closing || stopped > 1) return true;
    if (phase == Phase::kReadBack) return nextUnit >= units;
    return stopped || (options.operations && issued >= options.operations) || home.now() >= deadline;
  }

  void pump() {
    if (pumping) return;
    pumping = true;
    // At most a queue's depth in one go: where I/O completes at once, the thread's loop has its turn all the same.
    for (size_t left = slots.size(); !ready.empty(); --left) {
      if (phaseOver()) {
        if (ready.size() < slots.size() || again.queued || retry.queued) break;
        if (phase == Phase::kLoad) {
          endLoad();
          nextUnit = 0;
        } else {
          phase = Phase::kEnd;
        }
        if (phase == Phase::kEnd) return end();
        continue;
      }
      if (left == 0) {
        if (!again.queued) {
          again.queued = true;
          home.post(&again.task);
        }
        break;
      }
      if (!issue()) break;
    }
    pumping = false;
  }

  // Issues one I/O on a ready slot. False: not now; a completion or a task leads here again.
  bool issue() {
    sm_request* request = disk.allocate();
    if (!request) {
      if (!retry.queued) {
        retry.queued = true;
        home.wait(&retry.task);
      }
      return false;
    }
    Slot& slot = *ready.back();
    if (!(phase == Phase::kLoad ? choose(slot) : chooseReadBack(slot))) {
      disk.release(request);
      return phase == Phase::kReadBack;
    }
    ready.pop_back();
    request->op = slot.op;
    if (slot.op != SM_OP_FLUSH) {
      request->offset = offsetOf(slot.unit);
      request->length = options.blockSize;
    }
    if (slot.op == SM_OP_READ || slot.op == SM_OP_WRITE) {
      request->iov = &slot.iov;
      request->iov_count = 1;
    }
    slot.started = home.now();
    sm_request_push(request, &State::completed, &slot, 0);
    disk.enter(request);
    return true;
  }

  uint64_t offsetOf(uint64_t unit) const { return options.offset + unit * options.blockSize; }

  bool choose(Slot& slot) {
    if (randomly) {
      const uint64_t bits = random.next();
      const uint64_t share = bits & 0xffffffff;
      slot.op = share < upTo[0]   ? SM_OP_READ
                : share < upTo[1] ? SM_OP_DISCARD
                : share < upTo[2] ? SM_OP_WRITE_ZEROES
                : share < upTo[3] ? SM_OP_FLUSH
                                  : SM_OP_WRITE;
      slot.unit = static_cast<uint64_t>((static_cast<unsigned __int128>(random.next()) * units) >> 64);
    } else {
      slot.op = readsInOrder ? SM_OP_READ : SM_OP_WRITE;
      slot.unit = nextUnit;
      nextUnit = nextUnit + 1 == units ? 0 : nextUnit + 1;
    }
    if (options.verify && slot.op != SM_OP_FLUSH) {
      if (!table.claim(slot.unit, &slot.unit)) return false;
      slot.generation = table[slot.unit];
      if (slot.op == SM_OP_WRITE) {
        slot.generation = nextGeneration++;
        pattern.fill(slot.data, offsetOf(slot.unit), options.blockSize, slot.generation);
      } else if (slot.op != SM_OP_READ) {
        slot.generation = VerifyTable::kZeroes;
      }
    }
    ++issued;
    return true;
  }

  // The next unit whose content is known; false: there is none.
  bool chooseReadBack(Slot& slot) {
    while (nextUnit < units && table[nextUnit] == VerifyTable::kUnknown) ++nextUnit;
    if (nextUnit == units) return false;
    slot.unit = nextUnit++;
    slot.op = SM_OP_READ;
    slot.generation = table[slot.unit];
    return true;
  }

  static void completed(sm_request* request, void* context, uint64_t) {
    Slot& slot = *static_cast<Slot*>(context);
    State& state = *slot.owner;
    const int32_t status = request->status;
    state.disk.release(request);
    state.account(slot, status);
    state.ready.push_back(&slot);
    state.pump();
  }

  void account(Slot& slot, int32_t status) {
    if (status == -ESHUTDOWN) closing = true;
    if (status && result.errors++ == 0) {
      result.firstError = status;
      result.firstErrorOffset = slot.op == SM_OP_FLUSH ? 0 : offsetOf(slot.unit);
    }
    if (phase == Phase::kReadBack) {
      if (!status) compare(slot);
      return;
    }
    ++result.operations;
    result.latency.add(home.now() - slot.started);
    switch (slot.op) {
      case SM_OP_READ:
        ++result.reads;
        break;
      case SM_OP_WRITE:
        ++result.writes;
        break;
      case SM_OP_DISCARD:
        ++result.discards;
        break;
      case SM_OP_WRITE_ZEROES:
        ++result.zeroes;
        break;
      default:
        ++result.flushes;
        return;
    }
    if (!status) result.bytes += options.blockSize;
    if (!options.verify) return;
    if (slot.op != SM_OP_READ) {
      table[slot.unit] = status ? VerifyTable::kUnknown : slot.generation;
    } else if (!status && slot.generation != VerifyTable::kUnknown) {
      compare(slot);
    }
    table.release(slot.unit);
  }

  void compare(const Slot& slot) {
    const uint64_t offset = offsetOf(slot.unit);
    const uint64_t generation = slot.generation == VerifyTable::kZeroes ? 0 : slot.generation;
    uint64_t first = 0;
    const uint64_t differing = pattern.compare(slot.data, offset, options.blockSize, generation, &first);
    if (phase == Phase::kReadBack) result.verifiedBytes += options.blockSize;
    if (differing && result.mismatches == 0) {
      result.firstMismatch =
          "disk " + std::string(disk.contract()->vm) + "/" + disk.contract()->name + ", offset " +
          std::to_string(first) + ": found " + VerifyPattern::describe(slot.data + (first - offset)) + "; expected " +
          pattern.expected(first, generation) + (phase == Phase::kReadBack ? " (reading back)" : " (under load)");
    }
    result.mismatches += differing;
  }

  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };

  VirtualDisk& disk;
  IoThread& home;
  const WorkloadOptions options;
  const uint64_t units;
  bool randomly = false, readsInOrder = false;
  uint64_t upTo[4];  // read, discard, zeroes, flush: where their shares end, of 2^32
  Random random;
  VerifyPattern pattern;
  VerifyTable table;
  std::vector<Slot> slots;
  std::vector<Slot*> ready;
  std::unique_ptr<uint8_t, Free> memory;
  Work begin, again, retry;  // the start; the loop had its turn; a request has been given back

  Phase phase = Phase::kLoad;
  bool pumping = false, closing = false;
  uint64_t issued = 0, nextUnit = 0, startedAt = 0, cpuAtStart = 0, deadline = 0;
  uint32_t nextGeneration = VerifyTable::kFirstGeneration;
  std::atomic<uint32_t> stops{0};
  WorkloadResult result;
  std::function<void(const WorkloadResult&)> done;
};

Workload::Workload(VirtualDisk& disk, const WorkloadOptions& options)
    : state_(std::make_unique<State>(disk, options)) {}

Workload::~Workload() = default;

void Workload::start(std::function<void(const WorkloadResult&)> done) {
  state_->done = std::move(done);
  state_->home.post(&state_->begin.task);
}

void Workload::stop() { state_->stops.fetch_add(1, std::memory_order_relaxed); }

}  // namespace sm
