// Arbitrary requests against the checks that stand before every driver and every volume, compared with the rules said
// once more, in arithmetic that cannot overflow.
#include <stratamap/device.h>

#include <algorithm>
#include <atomic>
#include <memory>

#include "devices/check.h"
#include "disks/virtual_disk.h"
#include "fuzz/fuzz.h"

using namespace sm;

namespace {

using Wide = unsigned __int128;

struct Target {
  uint64_t bytes;
  uint32_t blockSize;
  uint64_t maxTransfer;
};

bool carriesData(uint8_t op) { return op == SM_OP_READ || op == SM_OP_WRITE; }

// --- the rules
bool rangeHolds(const sm_request& request, const Target& target) {
  return request.offset % target.blockSize == 0 && request.length % target.blockSize == 0 &&
         Wide{request.offset} + request.length <= target.bytes;
}

bool dataHolds(const sm_request& request, const Target& target) {
  if (request.iov_count > SM_IOV_MAX || request.length > target.maxTransfer) return false;
  if (!request.iov) return request.length == 0 && request.iov_count == 0;
  Wide sum = 0;
  for (uint32_t i = 0; i < request.iov_count; ++i) {
    if (!request.iov[i].iov_base && request.iov[i].iov_len) return false;
    sum += request.iov[i].iov_len;
  }
  return sum == request.length;
}

// --- a length that is likely to mean something: a block more or less, or the other side of an overflow
uint64_t takeNumber(FuzzedDataProvider& input, uint64_t near, uint32_t blockSize) {
  const uint64_t small = input.ConsumeIntegral<uint8_t>();
  switch (input.ConsumeIntegralInRange(0, 5)) {
    case 0:
      return small * blockSize;
    case 1:
      return near - small * blockSize;
    case 2:
      return 0 - small * blockSize;
    case 3:
      return near + small;
    case 4:
      return (uint64_t{1} << 63) + small * blockSize;
    default:
      return input.ConsumeIntegral<uint64_t>();
  }
}

struct Input {
  sm_request request{};
  std::unique_ptr<iovec[]> iov;  // as long as it may be looked at
  uint32_t deviceFlags;
  Target target;
};

Input take(FuzzedDataProvider& input) {
  Input out;
  out.deviceFlags = input.ConsumeIntegral<uint8_t>() & (SM_DEVICE_READ_ONLY | SM_DEVICE_SHARED | SM_DEVICE_DISCARD);
  out.target.blockSize = 512u << input.ConsumeIntegralInRange(0, 3);
  out.target.bytes = takeNumber(input, 1 << 20, out.target.blockSize);
  out.target.maxTransfer = kDeviceMaxTransfer;
  sm_request& request = out.request;
  request.op = input.ConsumeBool() ? input.ConsumeIntegralInRange<uint8_t>(SM_OP_READ, SM_OP_WRITE_ZEROES)
                                   : input.ConsumeIntegral<uint8_t>();
  request.flags = input.ConsumeIntegral<uint32_t>();
  request.offset = takeNumber(input, out.target.bytes, out.target.blockSize);
  request.length = takeNumber(input, out.target.bytes - request.offset, out.target.blockSize);
  request.iov_count = input.ConsumeBool() ? input.ConsumeIntegralInRange<uint32_t>(0, SM_IOV_MAX + 1)
                                          : input.ConsumeIntegral<uint32_t>();
  if (input.ConsumeIntegral<uint8_t>() == 0) return out;
  const uint32_t count = std::min<uint32_t>(request.iov_count, SM_IOV_MAX);
  out.iov = std::make_unique<iovec[]>(count);
  request.iov = out.iov.get();
  uint64_t left = request.length;
  static char somewhere;
  for (uint32_t i = 0; i < count; ++i) {
    // Mostly such that the sum is right, where it may have gone round.
    const bool last = i + 1 == count && input.ConsumeIntegral<uint8_t>() != 0;
    const uint64_t length = last ? left : takeNumber(input, left, 1);
    out.iov[i] = {input.ConsumeIntegral<uint8_t>() ? &somewhere : nullptr, length};
    left -= length;
  }
  return out;
}

// --- before a driver
void checkDevice(const Input& input) {
  const sm_request& request = input.request;
  const sm_device device{.flags = input.deviceFlags,
                         .name = "d",
                         .bytes = input.target.bytes,
                         .block_size = input.target.blockSize,
                         .max_transfer = static_cast<uint32_t>(input.target.maxTransfer)};
  int32_t status = 1;
  const bool ended = endsEarly(device, request, &status);
  const bool known = request.op >= SM_OP_READ && request.op <= SM_OP_WRITE_ZEROES;
  const bool allowed = known && !(sm_op_modifies(request.op) && input.deviceFlags & SM_DEVICE_READ_ONLY) &&
                       (request.op == SM_OP_FLUSH || rangeHolds(request, input.target)) &&
                       (!carriesData(request.op) || dataHolds(request, input.target));
  const bool nothingToDo =
      request.op != SM_OP_FLUSH &&
      (request.length == 0 || (request.op == SM_OP_DISCARD && !(input.deviceFlags & SM_DEVICE_DISCARD)));
  SM_MUST((status == 0) == allowed);
  SM_MUST(ended == (!allowed || nothingToDo));
}

// --- before a volume: a disk over a volume that only counts
struct DiskRig {
  HostClock clock;
  IoThread thread{{.requests = 64, .bufferBytes = 1 << 20, .ringEntries = 64, .uring = false}, clock};
  sm_volume_ops ops{.version = SM_CONTRACT_VERSION,
                    .size = sizeof(sm_volume_ops),
                    .type = "counting",
                    .submit = [](void* volume, void*, sm_request* request) {
                      ++*static_cast<uint32_t*>(volume);
                      sm_request_complete(request, 0);
                    }};
  uint32_t seen = 0;
};

void checkDisk(const Input& input) {
  static auto* rig = new DiskRig;
  VirtualDisk disk(rig->thread, &rig->ops, &rig->seen, nullptr, "vm", "disk", input.target.bytes,
                   input.target.blockSize);
  struct Call {
    VirtualDisk& disk;
    const sm_request& asked;
    std::atomic<bool> done{false};
  } call{disk, input.request};
  rig->seen = 0;
  rig->thread.call(
      [](void* context) {
        auto* call = static_cast<Call*>(context);
        sm_request* request = call->disk.allocate();
        SM_MUST(request);
        request->op = call->asked.op;
        request->flags = call->asked.flags;
        request->offset = call->asked.offset;
        request->length = call->asked.length;
        request->iov = call->asked.iov;
        request->iov_count = call->asked.iov_count;
        sm_request_push(
            request,
            [](sm_request* request, void* context, uint64_t) {
              auto* call = static_cast<Call*>(context);
              call->disk.release(request);
              call->done = true;
              call->done.notify_one();
            },
            call, 0);
        call->disk.enter(request);
      },
      &call);
  call.done.wait(false);  // a refusal completes later
  disk.quiesce(VirtualDisk::Quiesce::kClose);
  const sm_request& request = input.request;
  const bool flush = request.op == SM_OP_FLUSH;
  const bool known = request.op >= SM_OP_READ && request.op <= SM_OP_WRITE_ZEROES;
  const bool range = flush ? request.offset == 0 && request.length == 0
                           : known && request.length > 0 && rangeHolds(request, input.target) &&
                                 (!carriesData(request.op) || request.length <= kMaxTransfer);
  SM_MUST(!disk.check(request.op, request.offset, request.length) == range);
  SM_MUST((rig->seen == 1) == (range && (!carriesData(request.op) || dataHolds(request, input.target))));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider provider(data, size);
  const Input input = take(provider);
  checkDevice(input);
  checkDisk(input);
  return 0;
}
