// Failing: what a rule strikes, what of it reaches the device, and what is seen above.
#include "policies/fault.h"

#include <map>
#include <set>

#include "policies/counters.h"
#include "rig.h"

using namespace sm;
using namespace sm::test;

namespace {

FaultRule rule(FaultKind kind, uint32_t ops = Match::kEvery, uint64_t every = 1) {
  FaultRule rule;
  rule.kind = kind;
  rule.match.ops = ops;
  rule.every = every;
  return rule;
}

}  // namespace

TEST_CASE("an error: a write never reaches the device, a read has been read, a flush fails") {
  Rig rig;
  std::vector<char> old(4096, 'o'), data(4096, 'n'), back(4096);
  auto io = [&](uint8_t op, char* bytes) {
    return deviceIo(*rig.host, rig.devices[0], op, 0, bytes, op == SM_OP_FLUSH ? 0 : 4096);
  };
  REQUIRE(io(SM_OP_WRITE, old.data()) == 0);
  Counters below(rig.host->stack());
  rig.add(below);
  FaultRule failing = rule(FaultKind::kError);
  failing.error = ENOSPC;
  Fault fault(rig.host->stack(), 1, {failing});
  rig.add(fault);
  CHECK(io(SM_OP_WRITE, data.data()) == -ENOSPC);
  CHECK(io(SM_OP_WRITE_ZEROES, nullptr) == -ENOSPC);
  CHECK(io(SM_OP_FLUSH, nullptr) == -ENOSPC);
  CHECK(io(SM_OP_READ, back.data()) == -ENOSPC);
  CHECK(back == old);
  CHECK(rig.medium(0, 0, 4096) == old);
  CHECK(below.counters()[SM_OP_READ].operations == 1);
  CHECK(below.counters()[SM_OP_WRITE].operations == 0);
  CHECK(below.counters()[SM_OP_FLUSH].operations == 0);
  CHECK(fault.counters()[0].operations == 4);
  CHECK(fault.counters()[0].bytes == 3 * 4096);
  CHECK(fault.detach(10 * kSecond) == 0);
  CHECK(io(SM_OP_WRITE, data.data()) == 0);
  CHECK(below.detach(10 * kSecond) == 0);
}

TEST_CASE("rules: the first that strikes decides; by operation, range, every so many, and by chance of a seed") {
  Rig rig;
  FaultRule range = rule(FaultKind::kError, Match::bit(SM_OP_WRITE));
  range.match.begin = 4096;
  range.match.end = 8192;
  range.error = ENOSPC;
  FaultRule third = rule(FaultKind::kError, Match::bit(SM_OP_WRITE), 3);
  Fault fault(rig.host->stack(), 1, {range, third});
  rig.add(fault);
  std::vector<char> data(4096, 'n');
  auto write = [&](uint64_t offset) {
    return deviceIo(*rig.host, rig.devices[0], SM_OP_WRITE, offset, data.data(), 4096);
  };
  CHECK(write(4096) == -ENOSPC);
  CHECK(write(0) == 0);
  CHECK(write(8192) == 0);
  CHECK(write(8192) == -EIO);
  CHECK(write(8192) == 0);
  CHECK(fault.counters()[0].matched == 1);
  CHECK(fault.counters()[1].matched == 4);
  CHECK(fault.counters()[1].operations == 1);
  CHECK(fault.detach(10 * kSecond) == 0);

  auto struck = [&](uint64_t seed) {
    FaultRule chance = rule(FaultKind::kError);
    chance.every = 0;
    chance.probability = 0.25;
    Fault fault(rig.host->stack(), seed, {chance});
    rig.add(fault);
    std::vector<bool> failed(400);
    for (size_t i = 0; i < failed.size(); ++i) failed[i] = write(0) != 0;
    CHECK(fault.detach(10 * kSecond) == 0);
    const auto count = static_cast<uint64_t>(std::count(failed.begin(), failed.end(), true));
    CHECK(fault.counters()[0].operations == count);
    CHECK(count > 60);
    CHECK(count < 140);
    return failed;
  };
  const auto first = struck(7);
  CHECK(first == struck(7));
  CHECK(first != struck(8));
}

TEST_CASE("a short request: its first blocks reach the device, or were read, and no more") {
  Rig rig;
  Counters below(rig.host->stack());
  rig.add(below);
  Fault fault(rig.host->stack(), 3, {rule(FaultKind::kShort)});
  const std::vector<char> old(16 * 512, 'o');
  std::set<uint64_t> lengths;
  for (int i = 0; i < 40; ++i) {
    std::vector<char> data = old;
    REQUIRE(deviceIo(*rig.host, rig.devices[0], SM_OP_WRITE, 0, data.data(), data.size()) == 0);
    rig.add(fault);
    const bool read = i % 2;
    std::fill(data.begin(), data.end(), 'n');
    const uint64_t before = below.counters()[read ? SM_OP_READ : SM_OP_WRITE].bytes;
    CHECK(deviceIo(*rig.host, rig.devices[0], read ? SM_OP_READ : SM_OP_WRITE, 0, data.data(), data.size()) == -EIO);
    const uint64_t length = below.counters()[read ? SM_OP_READ : SM_OP_WRITE].bytes - before;
    CHECK(length >= 512);
    CHECK(length < data.size());
    lengths.insert(length);
    const std::vector<char> there = read ? data : rig.medium(0, 0, old.size());
    CHECK(std::all_of(there.begin(), there.begin() + static_cast<ptrdiff_t>(length),
                      [&](char c) { return c == (read ? 'o' : 'n'); }));
    CHECK(std::all_of(there.begin() + static_cast<ptrdiff_t>(length), there.end(),
                      [&](char c) { return c == (read ? 'n' : 'o'); }));
    CHECK(fault.detach(10 * kSecond) == 0);
  }
  CHECK(lengths.size() > 5);
  CHECK(below.detach(10 * kSecond) == 0);
}

TEST_CASE(
    "a torn write: each block is the old or the new one, never all are new; more at once than there is room for") {
  Rig rig;
  Fault fault(rig.host->stack(), 3, {rule(FaultKind::kTorn)});
  constexpr uint64_t kEach = 64 * 512, kCount = 200;
  std::vector<char> data(kEach * kCount, 'o');
  for (uint64_t at = 0; at < data.size(); at += kMiB) {
    REQUIRE(deviceIo(*rig.host, rig.devices[0], SM_OP_WRITE, at, data.data() + at, std::min(kMiB, data.size() - at)) ==
            0);
  }
  rig.add(fault);
  std::fill(data.begin(), data.end(), 'n');
  std::vector<std::unique_ptr<DeviceIo>> ios;
  for (uint64_t i = 0; i < kCount; ++i) {
    ios.push_back(
        std::make_unique<DeviceIo>(*rig.host, rig.devices[0], SM_OP_WRITE, i * kEach, data.data() + i * kEach, kEach));
  }
  for (auto& io : ios) CHECK(io->done.get() == -EIO);
  const std::vector<char> there = rig.medium(0, 0, data.size());
  uint64_t fresh = 0, torn = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    uint64_t blocks = 0;
    bool whole = true;
    for (uint64_t at = i * kEach; at < (i + 1) * kEach; at += 512) {
      blocks += there[at] == 'n';
      for (uint64_t k = at; k < at + 512; ++k) whole &= there[k] == there[at];
    }
    CHECK(whole);
    CHECK(blocks < 64);
    torn += blocks > 0;
    fresh += blocks;
  }
  CHECK(torn > kCount / 8);
  CHECK(fresh > torn);
  // A read is not torn.
  CHECK(deviceIo(*rig.host, rig.devices[0], SM_OP_READ, 0, data.data(), kEach) == 0);
  CHECK(fault.counters()[0].operations == kCount);
  CHECK(fault.detach(10 * kSecond) == 0);
}

TEST_CASE("something of every torn write reaches the device: of two blocks, one") {
  Rig rig;
  Fault fault(rig.host->stack(), 3, {rule(FaultKind::kTorn)});
  rig.add(fault);
  int firsts = 0;
  for (uint64_t i = 0; i < 60; ++i) {
    std::vector<char> data(1024, 'n');
    CHECK(deviceIo(*rig.host, rig.devices[0], SM_OP_WRITE, i * 1024, data.data(), data.size()) == -EIO);
    const std::vector<char> there = rig.medium(0, i * 1024, 1024);
    CHECK((there[0] == 'n') != (there[512] == 'n'));
    firsts += there[0] == 'n';
  }
  CHECK(firsts > 10);
  CHECK(firsts < 50);
  CHECK(fault.detach(10 * kSecond) == 0);
}

TEST_CASE("where everything fails, a load ends all the same, and not on the stack of its own submissions") {
  Rig rig(1, 2);
  rig.open("stripe", 1);
  Fault fault(rig.host->stack(), 1, {rule(FaultKind::kError)});
  rig.add(fault);
  WorkloadOptions options;
  options.pattern = "randwrite";
  options.operations = 200'000;
  const WorkloadResult result = runWorkload(*rig.disks[0], options);
  CHECK(result.operations == 200'000);
  CHECK(result.errors == 200'000);
  CHECK(fault.detach(10 * kSecond) == 0);
}

TEST_CASE("a request without room for a frame goes through unseen, and fails where it can") {
  Rig rig;
  Counters counters(rig.host->stack());
  Fault fault(rig.host->stack(), 1, {rule(FaultKind::kError, Match::bit(SM_OP_READ))});
  rig.add(counters);
  IoThread& thread = *rig.host->threads()[0];
  std::promise<int32_t> ended;
  std::vector<char> data(512);
  iovec iov{data.data(), 512};
  auto read = [&] {
    ended = {};
    onThread(thread, [&] {
      sm_request* request = thread.allocate();
      request->op = SM_OP_READ;
      request->length = 512;
      request->iov = &iov;
      request->iov_count = 1;
      sm_request_push(
          request,
          [](sm_request* request, void* context, uint64_t) {
            const int32_t status = request->status;
            IoThread::current()->release(request);
            static_cast<std::promise<int32_t>*>(context)->set_value(status);
          },
          &ended, 0);
      while (sm_request_push(
                 request, [](sm_request* request, void*, uint64_t) { sm_request_pop(request); }, nullptr, 0) == 0) {
      }
      sm_device_submit(rig.devices[0], request);
    });
    return ended.get_future().get();
  };
  CHECK(read() == 0);
  CHECK(counters.counters()[SM_OP_READ].operations == 1);
  CHECK(counters.counters()[SM_OP_READ].unseen == 1);
  rig.add(fault);
  CHECK(read() == -EIO);
  CHECK(counters.counters()[SM_OP_READ].operations == 1);  // failed without having been read
  CHECK(fault.detach(10 * kSecond) == 0);
  CHECK(counters.detach(10 * kSecond) == 0);
}

namespace {

// Remembers which guests' requests have a child that failed, as the volume above sees it.
struct Failures : Interposer {
  std::mutex mutex;
  std::set<uint64_t> marks;  // 0: a request that no guest asked for
  std::atomic<uint64_t> inFlight{0};

  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    ++inFlight;
    if (sm_request_push(request, done, this, 0) != 0) std::abort();
    next->submit(next, device, request);
  }
  static void done(sm_request* request, void* context, uint64_t) {
    auto* self = static_cast<Failures*>(context);
    if (request->status != 0) {
      std::lock_guard lock(self->mutex);
      self->marks.insert(request->spare[Mark::kField]);
    }
    --self->inFlight;
    sm_request_pop(request);
  }
  uint64_t inside() const override { return inFlight; }
};

// Remembers which guests' requests failed; those whose success depends on what others wrote apart.
struct GuestFailures {
  std::set<uint64_t> marks, durable;
  uint64_t requests = 0;
  static const sm_filter_ops* ops() {
    static const sm_filter_ops table{
        SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "failures", nullptr, [](void* self, sm_request* request) {
          auto* failures = static_cast<GuestFailures*>(self);
          ++failures->requests;
          if (request->status == 0) return;
          const bool durable = request->op == SM_OP_FLUSH || (request->flags & SM_FLAG_FUA) != 0;
          (durable ? failures->durable : failures->marks).insert(request->spare[Mark::kField]);
        }};
    return &table;
  }
};

constexpr uint32_t kData = Match::kEvery & ~Match::bit(SM_OP_FLUSH);

void fivePercent(const std::string& type, FaultKind kind, bool faultBelowProbe, uint32_t ops = kData) {
  CAPTURE(type);
  CAPTURE(static_cast<int>(kind));
  CAPTURE(faultBelowProbe);
  Rig rig(1, 2);
  rig.open(type, 1);
  const sm_stack* stack = rig.host->stack();
  // Top first: failures, then [probe, count, fault] or [fault, probe, count].
  FaultRule five = rule(kind, ops);
  five.every = 0;
  five.probability = 0.05;
  Fault fault(stack, 11, {five});
  Counters below(stack);
  if (faultBelowProbe) {
    rig.add(below);
  } else {
    rig.add(below);
    rig.attach();
    rig.add(fault);
  }
  if (faultBelowProbe) {
    rig.attach();
    rig.add(fault, 2);
  }
  std::vector<std::unique_ptr<Interposer>> tops;
  for (size_t i = 0; i < rig.devices.size(); ++i) tops.push_back(std::make_unique<Failures>());
  rig.put(tops);
  Mark mark{.number = 1, .each = true};
  GuestFailures guest;
  sm_disk* disk = rig.disks[0]->contract();
  REQUIRE(stack->filter_attach(stack, disk, GuestFailures::ops(), &guest) == 0);
  REQUIRE(stack->filter_attach(stack, disk, Mark::ops(), &mark) == 0);

  const WorkloadResult result = runWorkload(*rig.disks[0], verifyingLoad(32, 2500));
  CHECK(result.mismatches == 0);
  CHECK(result.errors > 60);

  std::set<uint64_t> struck;
  for (auto& top : tops) struck.merge(static_cast<Failures&>(*top).marks);
  const bool volumesOwn = struck.erase(0) != 0;
  CHECK(struck.size() > 60);
  for (uint64_t each : struck) CHECK(guest.marks.count(each) + guest.durable.count(each) == 1);
  for (uint64_t each : guest.marks) CHECK_MESSAGE((volumesOwn || struck.count(each) == 1), each);
  // The volume's own handling: once a flush or its metadata has failed, so does all that is to be durable.
  if (volumesOwn || ops != kData) {
    rig.closesWell = false;
  } else {
    CHECK(guest.durable.size() + guest.marks.size() == struck.size());
  }
  if (type == "stripe") CHECK_FALSE(volumesOwn);

  rig.take(tops);
  REQUIRE(fault.detach(10 * kSecond) == 0);
  CHECK(fault.counters()[0].operations >= struck.size());
  // Rule 8, before anything else is read.
  std::array<OpCounters, Counters::kOps> seen = below.counters();
  uint64_t operations = 0, bytes = 0, ledger = 0, ledgerBytes = 0, control = 0;
  for (const OpCounters& each : seen) {
    operations += each.operations;
    bytes += each.bytes;
    CHECK(each.succeeded + each.failed == each.operations);
    CHECK(each.unseen == 0);
  }
  for (DeviceKey key = 0; key < rig.map->deviceCount(); ++key) {
    const DeviceLedger& fates = rig.map->deviceLedger(key);
    for (const Tally& tally : fates.fates) {
      ledger += tally.operations;
      ledgerBytes += tally.bytes;
    }
    control += fates.fates[static_cast<size_t>(Fate::kControl)].operations;
  }
  CHECK(ledger == operations);
  CHECK(ledgerBytes == bytes);
  CHECK(control == seen[SM_OP_FLUSH].operations);
  CHECK(rig.verifyMap() > 0);
  CHECK(stack->filter_detach(stack, disk, &mark, 10 * kSecond) == 0);
  CHECK(stack->filter_detach(stack, disk, &guest, 10 * kSecond) == 0);
  REQUIRE(rig.probe->detach(10 * kSecond) == 0);
  rig.probe.reset();
  CHECK(below.detach(10 * kSecond) == 0);
}

}  // namespace

TEST_CASE("one in twenty fails: guests see those errors, the map claims what is so, the ledger adds up") {
  for (const char* type : {"stripe", "extent", "log"}) {
    for (FaultKind kind : {FaultKind::kError, FaultKind::kShort, FaultKind::kTorn}) {
      for (bool faultBelowProbe : {true, false}) fivePercent(type, kind, faultBelowProbe);
    }
    fivePercent(type, FaultKind::kError, true, Match::kEvery);
  }
}
