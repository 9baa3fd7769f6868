// What the kernel's block layer tells, told to a correlator piece by piece: sequences that once gave a wrong mapping.
#include "correlate/observed.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <vector>

#include "correlate/correlator.h"
#include "correlate/hint.h"

namespace {

using namespace sm;

constexpr uint64_t kBlock = 4096;

// Two disks on one device.
struct Stack {
  static const sm_stack* table() {
    static sm_stack stack{};
    stack.now = [](const sm_stack*) -> uint64_t { return 1'000'000'000'000; };
    stack.stamp = [](const sm_stack*) -> uint64_t { return 1; };
    stack.busy_before = [](const sm_stack*, uint64_t) -> uint64_t { return 0; };
    return &stack;
  }
  static const AssociationSpec& hint() {
    const auto all = associationRegistry();
    return *std::find_if(all.begin(), all.end(), [](const AssociationSpec& spec) { return spec.kernel; });
  }
  struct Guest {
    sm_request request{};
    iovec iov{};
    uint64_t word = 0;
    DiskKey disk = 0;
  };

  explicit Stack(bool adaptive = false) : correlator(table(), map, hint(), kDescend, 64, 64, 1 << 20) {
    device = map.internDevice("/dev/a");
    REQUIRE(correlator.watchDevice(device, false));
    correlator.observeDevice(device, 0);
    for (size_t i = 0; i < disks.size(); ++i) {
      disks[i] = map.internDisk({"vm", std::to_string(i)});
      REQUIRE(correlator.watchDisk(disks[i]));
      correlator.followDisk(disks[i], {device}, 1);
    }
    std::vector<uint16_t> tags;
    for (uint16_t number = 8; number < 16; ++number) tags.push_back(HintAssociation::tagOf(number, 4));
    correlator.hints()->give(tags);
    if (adaptive) correlator.tagWhatIsUnknown(2'000'000'000'000);
    correlator.entered(1);
    correlator.settle(1);
    std::lock_guard lock(map.mutex());
    correlator.quiet(device, 1);
  }

  Guest* submit(uint8_t op, size_t disk, uint64_t first, uint64_t blocks) {
    Guest& guest = guests[next++ % guests.size()];
    guest = {};
    guest.disk = disks[disk];
    guest.request.op = op;
    guest.request.offset = first * kBlock;
    guest.request.length = blocks * kBlock;
    guest.iov = {memory.data() + (&guest - guests.data()) * 8 * kBlock, blocks * kBlock};
    guest.request.iov = &guest.iov;
    guest.request.iov_count = 1;
    guest.word = correlator.submitted(&guest.request, guest.disk);
    return &guest;
  }
  void complete(Guest* guest) { correlator.completed(&guest->request, guest->disk, guest->word); }
  void tell(BlockIo::Kind kind, uint8_t op, uint16_t priority, uint64_t first, uint64_t blocks) {
    BlockIo io;
    io.kind = kind;
    io.op = op;
    io.ioprio = priority;
    io.device = device;
    io.phys = {first * kBlock, (first + blocks) * kBlock};
    io.time = ++time;
    std::lock_guard lock(map.mutex());
    correlator.happened(io);
  }
  void io(Guest* guest, uint64_t first, uint64_t blocks) {
    tell(BlockIo::kStart, guest->request.op, guest->request.ioprio, first, blocks);
    tell(BlockIo::kIssue, guest->request.op, guest->request.ioprio, first, blocks);
  }
  void whole(uint8_t op, size_t disk, uint64_t first, uint64_t blocks, uint64_t place) {
    Guest* const guest = submit(op, disk, first, blocks);
    io(guest, place, blocks);
    complete(guest);
  }
  State state(size_t disk, uint64_t block) const { return map.locate(disks[disk], block * kBlock, kBlock)[0].state; }

  AddressMap map;
  Correlator correlator;
  DeviceKey device;
  std::array<DiskKey, 2> disks;
  std::array<Guest, 8> guests;
  std::vector<std::byte> memory = std::vector<std::byte>(8 * 8 * kBlock);
  size_t next = 0;
  uint64_t time = 1'000'000'000'000;
};

}  // namespace

TEST_CASE("a read of a hole does not take what a stranger merges beside it for its own") {
  Stack stack;
  auto* const guest = stack.submit(SM_OP_READ, 0, 0, 2);  // a block at 10, and a hole
  stack.io(guest, 10, 1);
  stack.tell(BlockIo::kStart, SM_OP_READ, 0x4004, 9, 2);  // a stranger reads 9 and 10, and then 11
  stack.tell(BlockIo::kBackMerge, SM_OP_READ, 0x4004, 11, 1);
  stack.complete(guest);
  CHECK(stack.state(0, 0) != State::kMapped);
  CHECK(stack.state(0, 1) != State::kMapped);
}

TEST_CASE("a read of a hole that is begun again does not take its first piece for two") {
  Stack stack;
  auto* const guest = stack.submit(SM_OP_READ, 0, 0, 2);  // a block at 10, and a hole
  stack.io(guest, 10, 1);
  stack.io(guest, 10, 1);
  stack.complete(guest);
  CHECK(stack.state(0, 0) != State::kMapped);
  CHECK(stack.state(0, 1) != State::kMapped);
}

TEST_CASE("a write that is known leaves no other owner of its place mapped") {
  Stack stack(true);
  stack.whole(SM_OP_WRITE, 0, 0, 1, 10);
  stack.whole(SM_OP_READ, 1, 0, 1, 10);  // the files have the block in common, and then no more
  REQUIRE(stack.state(0, 0) == State::kMapped);
  REQUIRE(stack.state(1, 0) == State::kMapped);
  stack.whole(SM_OP_WRITE, 0, 0, 1, 10);
  CHECK(stack.state(0, 0) == State::kMapped);
  CHECK(stack.state(1, 0) != State::kMapped);
}

TEST_CASE("what overlaps below with a write that is known teaches nothing, whichever began first") {
  for (const bool knownFirst : {false, true}) {
    for (const uint8_t op : {SM_OP_READ, SM_OP_WRITE}) {
      CAPTURE(knownFirst);
      CAPTURE(op);
      Stack stack(true);
      stack.whole(SM_OP_WRITE, 0, 0, 1, 10);
      auto* const known = stack.submit(SM_OP_WRITE, 0, 0, 1);
      REQUIRE(known->request.ioprio == stack.correlator.hints()->knownPriority());
      auto* const tagged = stack.submit(op, 1, 0, 1);
      stack.io(knownFirst ? known : tagged, 10, 1);
      stack.io(knownFirst ? tagged : known, 10, 1);
      stack.complete(tagged);
      CHECK(stack.state(1, 0) != State::kMapped);
      stack.complete(known);
      CHECK(stack.state(1, 0) != State::kMapped);
      if (op == SM_OP_WRITE) CHECK(stack.state(0, 0) != State::kMapped);
    }
  }
}

TEST_CASE("a sample says nothing after records were lost") {
  Stack stack;
  Sample sample;
  {
    std::lock_guard lock(stack.map.mutex());
    REQUIRE_FALSE(stack.correlator.takeSample(&sample));
  }
  stack.whole(SM_OP_WRITE, 0, 0, 1, 10);
  std::lock_guard lock(stack.map.mutex());
  REQUIRE(stack.correlator.takeSample(&sample));
  stack.correlator.lostLocked();
  CHECK_FALSE(stack.correlator.holdsStill(sample));
}
