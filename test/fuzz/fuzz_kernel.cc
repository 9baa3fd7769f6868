// What the kernel tells: records of its block layer, its mount table; and a block layer that tells a
// correlator anything at all, in any order.
#include <array>
#include <string>
#include <vector>

#include "correlate/correlator.h"
#include "correlate/hint.h"
#include "fuzz/fuzz.h"
#include "intercept/kernel/block_chain.h"
#include "intercept/kernel/block_events.bpf.h"
#include "intercept/kernel/block_events.h"

using namespace sm;

namespace {

void readTexts(FuzzedDataProvider& input) {
  MountEntry entry;
  parseMountEntry(input.ConsumeRandomLengthString(), &entry);
  sm_block_event event{};
  input.ConsumeData(&event, sizeof event);
  const BlockIo io = BlockEvents::decode(event);
  SM_MUST(io.phys.begin <= io.phys.end && (io.phys.empty() || io.phys.length() == event.bytes));
}

void tell(FuzzedDataProvider& input) {
  static sm_stack stack{};
  stack.now = [](const sm_stack*) -> uint64_t { return 1'000'000'000'000; };
  stack.stamp = [](const sm_stack*) -> uint64_t { return 1; };
  stack.busy_before = [](const sm_stack*, uint64_t) -> uint64_t { return 0; };
  AddressMap map;
  const AssociationSpec* hint = nullptr;
  for (const AssociationSpec& spec : associationRegistry()) {
    if (spec.kernel) hint = &spec;
  }
  Correlator correlator(&stack, map, *hint, kDescend, 64, 64, 1 << 20);
  const DiskKey disk = map.internDisk({"vm", "vda"});
  const std::vector<DeviceKey> devices = {map.internDevice("/dev/a"), map.internDevice("/dev/b")};
  SM_MUST(correlator.watchDisk(disk));
  for (const DeviceKey device : devices) {
    SM_MUST(correlator.watchDevice(device, false));
    correlator.observeDevice(device, 0);
  }
  static sm_expected_word words[SM_EXPECTED_SLOTS];
  std::fill(std::begin(words), std::end(words), 0);
  if (input.ConsumeBool()) correlator.expectThrough(words);
  correlator.followDisk(disk, devices, input.ConsumeIntegralInRange<size_t>(0, 2));
  std::vector<uint16_t> tags;
  for (uint16_t hints = 8; hints < 16; ++hints) tags.push_back(HintAssociation::tagOf(hints, 4));
  correlator.hints()->give(tags);
  if (input.ConsumeBool()) correlator.tagWhatIsUnknown(2'000'000'000'000);
  correlator.entered(1);
  correlator.settle(1);
  {
    std::lock_guard lock(map.mutex());
    for (const DeviceKey device : devices) correlator.quiet(device, 1);
  }
  struct Above {
    sm_request request{};
    iovec iov{};
    uint64_t word = 0;
    bool live = false;
  };
  std::array<Above, 8> above;
  std::vector<std::byte> memory(8 << 16);
  auto finish = [&](Above& each, int32_t status) {
    if (!each.live) return;
    each.request.status = status;
    correlator.completed(&each.request, disk, each.word);
    SM_MUST(each.request.ioprio == 0);
    each.live = false;
  };
  uint64_t time = 10;
  while (input.remaining_bytes() > 0) {
    const size_t i = input.ConsumeIntegralInRange<size_t>(0, 7);
    Above& each = above[i];
    const auto what = input.ConsumeIntegralInRange<int>(0, 10);
    if (what < 2) {
      if (each.live) continue;
      each.request = {};
      each.request.op = static_cast<uint8_t>(input.ConsumeIntegralInRange<int>(1, 5));
      each.request.offset = 512ull * input.ConsumeIntegralInRange<uint64_t>(0, 63);
      each.request.length = each.request.op == SM_OP_FLUSH ? 0 : 512ull * input.ConsumeIntegralInRange<uint64_t>(1, 32);
      each.iov = {memory.data() + (i << 16), each.request.length};
      if (each.request.op <= SM_OP_WRITE) each.request.iov = &each.iov, each.request.iov_count = 1;
      each.word = correlator.submitted(&each.request, disk);
      each.live = each.word != Correlator::kUnseen;
    } else if (what < 4) {
      finish(each, input.ConsumeBool() ? 0 : -5);
    } else if (what == 10) {  // the kernel sees something begin that was expected
      sm_expected_word& word = words[input.ConsumeIntegralInRange<size_t>(0, SM_EXPECTED_SLOTS - 1)];
      if (word != 0) word |= SM_EXPECTED_BEGUN;
    } else {
      std::lock_guard lock(map.mutex());
      BlockIo io;
      io.kind = static_cast<BlockIo::Kind>(input.ConsumeIntegralInRange(0, 4));
      io.op = static_cast<uint8_t>(input.ConsumeIntegralInRange(1, 5));
      io.ioprio = input.ConsumeBool()
                      ? each.request.ioprio
                      : HintAssociation::priorityOf(tags[input.ConsumeIntegralInRange<size_t>(0, tags.size() - 1)]);
      io.device = devices[input.ConsumeIntegralInRange<size_t>(0, 1)];
      const uint64_t sector = input.ConsumeIntegralInRange<uint64_t>(0, 127);
      io.phys = {512 * sector, 512 * (sector + input.ConsumeIntegralInRange<uint64_t>(0, 32))};
      io.time = time += input.ConsumeIntegralInRange<uint64_t>(0, 1 << 25);
      if (what == 9) {
        correlator.quiet(io.device, io.time);
      } else {
        correlator.happened(io);
      }
    }
  }
  for (Above& each : above) finish(each, 0);
  map.extents(disk, 0, SIZE_MAX);
  correlator.leaveDisk(disk);
  correlator.unwatchDisk(disk);
  for (const DeviceKey device : devices) {
    correlator.leaveDevice(device);
    correlator.unwatchDevice(device);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  if (input.ConsumeBool()) {
    readTexts(input);
  } else {
    tell(input);
  }
  return 0;
}
