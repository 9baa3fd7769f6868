// The correlator against a model of the kernel's own stack (kernel_model.h): after everything that guests see
// completed, what is mapped is compared with what stands there. SM_NIGHTLY=1 for more seeds; SM_SEED for one.
#include "native/intercept/kernel_model.h"

#include <doctest/doctest.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "correlate/correlator.h"
#include "correlate/hint.h"

namespace {

using namespace sm;
using namespace sm::test;

constexpr uint64_t kUnclear = UINT64_MAX;  // a token: nobody can say what stands there
constexpr size_t kGuests = 6, kMost = 6;   // requests in flight; blocks of one

class Run {
 public:
  Run(uint64_t seed, const Hazards& may, bool adaptive, uint16_t tags)
      : model(seed, may), correlator(stackOf(), map, hint(), kDescend, 64, 64, 1 << 20) {
    running = this;
    for (const char* name : {"a", "b"}) disks.push_back(map.internDisk({"vm", name}));
    for (const char* name : {"/dev/upper", "/dev/lower"}) devices.push_back(map.internDevice(name));
    for (const DeviceKey device : devices) {
      REQUIRE(correlator.watchDevice(device, false));
      correlator.observeDevice(device, 0);
    }
    for (const DiskKey disk : disks) {
      REQUIRE(correlator.watchDisk(disk));
      correlator.followDisk(disk, devices, kLevels);
    }
    std::vector<uint16_t> given;
    for (uint16_t each = 8; each < 10 + tags; ++each) given.push_back(HintAssociation::tagOf(each, 4));
    correlator.hints()->give(given);
    model.knownPriority = correlator.hints()->knownPriority();
    for (size_t level = 0; level < devices.size(); ++level) model.devices[level] = devices[level];
    if (model.chance(75)) correlator.expectThrough(model.words);  // else each start is told
    if (adaptive) correlator.tagWhatIsUnknown(20'000 * KernelModel::kTick);
    correlator.entered(++stamp);
    correlator.settle(++stamp);
    std::lock_guard lock(map.mutex());
    map.feedFrom([](void* self, bool) { static_cast<Run*>(self)->drain(false); }, this);
    for (const DeviceKey device : devices) correlator.quiet(device, model.time());
  }
  ~Run() {
    map.feedFrom(nullptr, nullptr);
    running = nullptr;
  }

  void go(uint64_t steps) {
    for (uint64_t i = 0; i < steps && wrong.empty(); ++i) {
      if (model.chance(10)) submit(model.pick(kGuests), 0, UINT64_MAX);
      if (model.chance(4)) model.disturb();
      if (model.chance(3)) quiet();
      step();
    }
    while (wrong.empty() && busy()) step();
    // At last all is read, twice, and nobody disturbs.
    for (uint64_t i = 0; i < 2 * disks.size() * KernelModel::kImage && wrong.empty(); ++i) {
      quiet();
      submit(0, SM_OP_READ, i);
      while (wrong.empty() && busy()) step();
    }
    check();
  }

  std::string wrong;  // the first thing that is
  uint64_t mapped[kLevels]{}, allocated = 0, checked = 0;
  ObservedCounters counters() const { return correlator.observedCounters(); }

 private:
  struct Guest {
    sm_request request{};
    iovec iov{};
    std::array<std::byte, kMost * kBlock> bytes;
    uint64_t word = 0, serial = 0, first = 0;
    size_t disk = 0;
    std::vector<uint64_t> tokens;
    std::vector<bool> overlapped;
    bool live = false, ended = false;
  };

  static const AssociationSpec& hint() {
    for (const AssociationSpec& spec : associationRegistry())
      if (spec.kernel) return spec;
    std::abort();
  }
  static const sm_stack* stackOf() {
    static sm_stack stack{};
    stack.now = [](const sm_stack*) -> uint64_t { return running->model.time(); };
    stack.stamp = [](const sm_stack*) -> uint64_t { return ++running->stamp; };
    stack.busy_before = [](const sm_stack*, uint64_t before) -> uint64_t {
      uint64_t count = 0;
      for (const Guest& guest : running->guests) count += guest.live && guest.serial < before;
      return count;
    };
    return &stack;
  }

  bool busy() const {
    return !model.idle() || std::any_of(guests.begin(), guests.end(), [](const Guest& each) { return each.live; });
  }

  void step() {
    // A record is there before what it tells of is done; until then it may be late.
    if (model.chance(50)) drain(true);
    drainBeforeStep();
    model.step();
    Guest& guest = guests[model.pick(kGuests)];
    if (!guest.live) return;
    if (guest.request.op == SM_OP_DISCARD && !guest.ended)
      guest.ended = model.punch(0, guest.disk, guest.first, guest.tokens.size());
    if (guest.ended) complete(&guest);
  }

  void drainBeforeStep() {
    if (held) drain(true);
  }

  void drain(bool locks) {
    std::unique_lock<BiasedLock> lock(map.mutex(), std::defer_lock);
    if (locks) lock.lock();
    bool lost = false;
    std::vector<std::pair<int, BlockIo>> now;
    now.swap(model.told);
    held = false;
    if (!locks && now.size() > 1 && model.chance(20)) {  // one is late
      const size_t late = now.size() - 1 - model.pick(std::min<size_t>(now.size(), 3));
      model.told.push_back(now[late]);
      now.erase(now.begin() + static_cast<ptrdiff_t>(late));
      held = true;
    }
    for (auto& [level, io] : now) {
      if (model.pick(4000) == 0) {
        lost = true;
        continue;
      }
      io.device = devices[static_cast<size_t>(level)];
      correlator.happened(io);
    }
    if (lost) correlator.lostLocked();
  }

  void quiet() {
    drain(true);
    std::lock_guard lock(map.mutex());
    for (int level = 0; level < kLevels; ++level)
      if (model.chance(50)) correlator.quiet(devices[static_cast<size_t>(level)], model.quietBefore(level));
  }

  void submit(size_t number, uint8_t op, uint64_t block) {
    Guest& guest = guests[number];
    if (guest.live) return;
    uint64_t blocks = 1 + model.pick(kMost);
    if (op == 0) {
      const uint64_t what = model.pick(20);
      op = what < 9 ? SM_OP_WRITE : what < 18 ? SM_OP_READ : SM_OP_DISCARD;
      guest.disk = model.pick(disks.size());
      guest.first = model.pick(KernelModel::kImage - blocks + 1);
    } else {
      blocks = 1;
      guest.disk = block / KernelModel::kImage % disks.size();
      guest.first = block % KernelModel::kImage;
    }
    guest.live = true;
    guest.ended = false;
    guest.serial = ++stamp;
    guest.tokens.assign(blocks, 0);
    guest.overlapped.assign(blocks, false);
    guest.request = {};
    guest.request.op = op;
    guest.request.offset = guest.first * kBlock;
    guest.request.length = blocks * kBlock;
    if (op != SM_OP_DISCARD) {
      guest.iov = {guest.bytes.data(), blocks * kBlock};
      guest.request.iov = &guest.iov;
      guest.request.iov_count = 1;
      if (model.chance(3)) guest.request.ioprio = 2 << 13 | 2;  // its own
    }
    const uint16_t own = guest.request.ioprio;
    for (Guest& other : guests) overlap(&guest, &other);
    for (uint64_t i = 0; i < blocks && op == SM_OP_WRITE; ++i) {
      guest.tokens[i] = model.newToken();
      std::memcpy(guest.bytes.data() + i * kBlock, &guest.tokens[i], sizeof(uint64_t));
    }
    guest.word = correlator.submitted(&guest.request, disks[guest.disk]);
    if (own != 0) CHECK(guest.request.ioprio == own);
    if (op == SM_OP_DISCARD) return;
    auto dio = std::make_unique<Dio>();
    dio->op = op;
    dio->file = guest.disk;
    dio->first = guest.first;
    dio->priority = guest.request.ioprio;
    dio->tokens = guest.tokens;
    dio->finished = [&guest, raw = dio.get()] {
      guest.tokens = raw->tokens;
      guest.ended = true;
    };
    model.begin(std::move(dio));
  }

  void overlap(Guest* one, Guest* other) {
    if (!other->live || one == other || one->disk != other->disk) return;
    const bool modifies = sm_op_modifies(one->request.op) || sm_op_modifies(other->request.op);
    for (size_t i = 0; modifies && i < one->tokens.size(); ++i) {
      const uint64_t at = one->first + i;
      if (at < other->first || at >= other->first + other->tokens.size()) continue;
      // A read is no obstacle to what a modification acknowledges.
      if (sm_op_modifies(one->request.op)) other->overlapped[at - other->first] = true;
      if (sm_op_modifies(other->request.op)) one->overlapped[i] = true;
    }
  }

  void complete(Guest* guest) {
    const bool reads = guest->request.op == SM_OP_READ;
    guest->request.status = model.chance(3) ? -5 : 0;
    for (size_t i = 0; reads && i < guest->tokens.size(); ++i)
      std::memcpy(guest->bytes.data() + i * kBlock, &guest->tokens[i], sizeof(uint64_t));
    for (size_t i = 0; i < guest->tokens.size(); ++i) {
      uint64_t& now = acknowledged[guest->disk][guest->first + i];
      const bool clear = guest->request.status == 0 && !guest->overlapped[i];
      if (clear) now = guest->tokens[i];
      if (!clear && !reads) now = kUnclear;
    }
    const uint16_t own = guest->request.ioprio == (2 << 13 | 2) ? guest->request.ioprio : 0;
    correlator.completed(&guest->request, disks[guest->disk], guest->word);
    CHECK(guest->request.ioprio == own);
    guest->live = false;
    check();
  }

  void check() {
    mapped[0] = mapped[1] = 0;
    for (size_t disk = 0; disk < disks.size(); ++disk) {
      for (const VirtualExtent& extent : map.extents(disks[disk], 0, SIZE_MAX)) {
        if (extent.state != State::kMapped) continue;
        for (const Place& place : extent.places) {
          const int level = place.device == devices[0] ? 0 : 1;
          mapped[level] += extent.length / kBlock;
          for (uint64_t at = 0; at < extent.length; at += kBlock) {
            const uint64_t block = (extent.diskOffset + at) / kBlock, there = (place.offset + at) / kBlock;
            ++checked;
            if (model.at(level, there) == acknowledged[disk][block]) continue;
            wrong = "block " + std::to_string(block) + " of disk " + std::to_string(disk) + " is not at " +
                    std::to_string(there) + " of level " + std::to_string(level);
          }
        }
      }
    }
  }

  static inline Run* running = nullptr;
  KernelModel model;
  AddressMap map;
  Correlator correlator;
  std::vector<DiskKey> disks;
  std::vector<DeviceKey> devices;
  std::array<Guest, kGuests> guests;
  std::array<std::array<uint64_t, KernelModel::kImage>, 2> acknowledged = [] {
    std::array<std::array<uint64_t, KernelModel::kImage>, 2> all;
    for (auto& disk : all) disk.fill(kUnclear);
    return all;
  }();
  uint64_t stamp = 1;
  bool held = false;
};

// Seeds, and what of the disks was mapped in the end.
void tryAll(const Hazards& may) {
  const char* const one = std::getenv("SM_SEED");
  const uint64_t first = one ? std::strtoull(one, nullptr, 10) : 1;
  const uint64_t seeds = one ? 1 : std::getenv("SM_NIGHTLY") ? 3000 : 60;
  for (const bool adaptive : {false, true}) {
    for (const uint16_t tags : {uint16_t{3}, uint16_t{16}}) {
      uint64_t upper = 0, lower = 0, checked = 0, wrong = 0;
      ObservedCounters sum;
      for (uint64_t seed = first; seed < first + seeds; ++seed) {
        Run run(seed, may, adaptive, tags);
        run.go(3000);
        CAPTURE(seed);
        CAPTURE(adaptive);
        CAPTURE(tags);
        CHECK_MESSAGE(run.wrong.empty(), run.wrong);
        wrong += !run.wrong.empty();
        upper += run.mapped[0];
        lower += run.mapped[1];
        checked += run.checked;
        sum.composed += run.counters().composed;
        sum.predicted += run.counters().predicted;
        sum.astray += run.counters().astray;
        if (wrong > 2) break;
      }
      MESSAGE(std::string(adaptive ? "adaptive, " : "always, ")
              << tags << " tags: " << seeds << " seeds, " << wrong << " wrong, " << checked
              << " blocks compared; composed " << sum.composed << ", predicted " << sum.predicted << ", astray "
              << sum.astray << "; mapped at the end " << upper / seeds << " and " << lower / seeds << " of "
              << 2 * KernelModel::kImage);
      CHECK(sum.composed > 0);
      CHECK((sum.predicted > 0) == adaptive);
    }
  }
}

}  // namespace

TEST_CASE("a model of the kernel's stack: nothing that is mapped is wrong") {
  SUBCASE("without retries and shared blocks") { tryAll({.retries = false, .shares = false}); }
  SUBCASE("with retries") { tryAll({.shares = false}); }
  SUBCASE("with shared blocks") { tryAll({.retries = false}); }
  SUBCASE("with all") { tryAll({}); }
}
