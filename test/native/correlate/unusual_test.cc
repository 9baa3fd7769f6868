// Requests as no well-behaved volume issues them, and disks and devices that go away under their requests.
#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "correlate/correlator.h"

namespace {

using namespace sm;

AssociationSpec named(const std::string& name) {
  for (const AssociationSpec& spec : associationRegistry()) {
    if (name == spec.name) return spec;
  }
  FAIL("no association " << name);
  return {};
}

// One disk and one device, watched, in a host in which nothing else is in flight.
struct Rig {
  Rig(const std::string& association, Correlation correlation)
      : correlator(table(), map, named(association), correlation, 64, 64, 1 << 20) {
    REQUIRE(correlator.watchDisk(disk));
    REQUIRE(correlator.watchDevice(device, false));
    correlator.entered(1);
    correlator.settle(1);
    REQUIRE(correlator.learning());
  }
  static const sm_stack* table() {
    static const sm_stack kStack = [] {
      sm_stack stack{};
      stack.stamp = [](const sm_stack*) -> uint64_t { return 1; };
      stack.busy_before = [](const sm_stack*, uint64_t) -> uint64_t { return 0; };
      stack.now = [](const sm_stack*) -> uint64_t { return 1; };
      return stack;
    }();
    return &kStack;
  }
  sm_request request(uint8_t op, uint64_t offset, uint64_t length) {
    sm_request request{};
    request.op = op;
    request.offset = offset;
    request.length = length;
    request.serial = 7;
    return request;
  }
  uint64_t counted() {
    uint64_t sum = 0;
    for (const Tally& tally : map.deviceLedger(device).fates) sum += tally.operations;
    return sum;
  }

  AddressMap map;
  DiskKey disk = map.internDisk({"vm", "vda"});
  DeviceKey device = map.internDevice("d0");
  Correlator correlator;
};

TEST_CASE("a child whose segments do not add up, or that has no range, is counted and not looked at") {
  for (const AssociationSpec& spec : associationRegistry()) {
    if (spec.kernel) continue;
    for (const Correlation correlation : kCorrelations) {
      CAPTURE(std::string(spec.name));
      CAPTURE(std::string(correlationName(correlation)));
      Rig rig(spec.name, correlation);
      std::vector<std::byte> memory(8192);
      const iovec own{memory.data(), 4096};
      sm_request above = rig.request(SM_OP_WRITE, 0, 4096);
      alignas(8) std::byte extension[SM_EXTENSION]{};
      above.extension = extension;
      above.iov = &own;
      above.iov_count = 1;
      const uint64_t word = rig.correlator.submitted(&above, rig.disk);
      uint64_t issued = 0;
      auto issue = [&](uint8_t op, uint64_t offset, uint64_t length, const iovec* iov, uint32_t count) {
        sm_request child = rig.request(op, offset, length);
        child.extension = extension;
        child.iov = iov;
        child.iov_count = count;
        CHECK(rig.correlator.issued(&child, rig.device) == Correlator::kUnseen);
        CHECK(rig.counted() == ++issued);
      };
      const iovec longer[] = {{memory.data(), 4096}, {memory.data() + 4096, 4096}},
                  huge[] = {{memory.data(), SIZE_MAX}};
      const iovec wrapping[] = {{memory.data(), 4096}, {memory.data(), SIZE_MAX - 511}, {memory.data(), 512}};
      for (const uint8_t op : {SM_OP_WRITE, SM_OP_READ}) {
        issue(op, 0, 4096, longer, 2);
        issue(op, 0, 16384, longer, 2);
        issue(op, 0, 4096, huge, 1);
        issue(op, 0, 4096, wrapping, 3);
        issue(op, 0, 4096, nullptr, 0);
        issue(op, 0, 4096, longer, SM_IOV_MAX + 1);
        issue(op, UINT64_MAX - 4095, 8192, longer, 2);
        issue(op, 0, 0, nullptr, 0);
      }
      issue(SM_OP_DISCARD, 0, 0, nullptr, 0);
      issue(SM_OP_WRITE_ZEROES, UINT64_MAX - 511, 512, nullptr, 0);
      rig.correlator.leaveDevice(rig.device);
      rig.correlator.unwatchDevice(rig.device);
      rig.correlator.completed(&above, rig.disk, word);
      CHECK(rig.map.locate(rig.disk, 0, 4096)[0].state == State::kUnknown);
    }
  }
}

TEST_CASE("a request that hangs on a disk that has gone holds nothing up on the others") {
  Rig rig("serial", kAscend);
  const DiskKey other = rig.map.internDisk({"vm", "vdb"});
  REQUIRE(rig.correlator.watchDisk(other));
  rig.correlator.entered(1);
  sm_request hanging = rig.request(SM_OP_FLUSH, 0, 0), above = rig.request(SM_OP_DISCARD, 0, 4096);
  above.serial = 8;
  const uint64_t hung = rig.correlator.submitted(&hanging, rig.disk);
  const uint64_t word = rig.correlator.submitted(&above, other);
  sm_request child = rig.request(SM_OP_DISCARD, 8192, 4096);
  child.serial = 9;  // nobody's
  const uint64_t below = rig.correlator.issued(&child, rig.device);
  REQUIRE(below != Correlator::kUnseen);
  rig.correlator.landed(&child, rig.device, below);
  rig.correlator.completed(&above, other, word);
  CHECK(rig.counted() == 0);  // the request that hangs might still claim it
  rig.correlator.leaveDisk(rig.disk);
  rig.correlator.unwatchDisk(rig.disk);
  CHECK(rig.counted() == 1);
  rig.correlator.completed(&hanging, rig.disk, hung);
}

}  // namespace
