// A log volume on two devices, to be driven by hand. It sees what reaches the segments.
#pragma once

#include <set>

#include "scenario.h"
#include "volumes/log_page.h"
#include "volumes/log_segments.h"

namespace sm::test {

constexpr uint64_t kSegment = 16 << 10;

inline uint64_t guestBytes;              // written by guests since the rig was made
inline std::set<uint64_t> guestSerials;  // of their writes

// The volume, counting.
inline const sm_volume_ops kCounting = [] {
  sm_volume_ops ops = logOps;
  ops.submit = [](void* volume, void* disk, sm_request* request) {
    if (request->op == SM_OP_WRITE) {
      guestBytes += request->length;
      guestSerials.insert(request->serial);
    }
    logOps.submit(volume, disk, request);
  };
  return ops;
}();

struct LogRig {
  LogRig(const LogRig&) = delete;
  LogRig& operator=(const LogRig&) = delete;
  explicit LogRig(const Options& format = {}, const WorldOptions& options = {1, {{900 << 10}, {600 << 10}}})
      : world(options), model(world, &kCounting, 512) {
    Options all{{"segmentSize", "16K"}};
    all.insert(all.end(), format.begin(), format.end());
    formatVolume(world, &logOps, all);
    std::vector<uint64_t> bytes;
    for (const DeviceShape& shape : options.devices) bytes.push_back(shape.bytes);
    layout = logLayout(bytes.data(), static_cast<uint32_t>(bytes.size()), 512, kSegment);
    guestBytes = 0;
    guestSerials.clear();
    world.onSubmit = [this](const MemoryDevice& device, const sm_request& request) { submitted(device, request); };
    world.fail = [this](const MemoryDevice&, const sm_request& request) {
      const int32_t status = failing ? failing(request) : 0;
      flying.erase(&request);
      return status;
    };
    model.open();
  }
  // Nothing is written where something is being read or written.
  void submitted(const MemoryDevice& device, const sm_request& request) {
    if (request.offset < layout.parts[device.device.id - 1].dataAt || !request.length) return;
    REQUIRE((request.op == SM_OP_READ || request.op == SM_OP_WRITE));
    for (const sm_request* other : flying) {
      if (other->device != &device.device || (other->op == SM_OP_READ && request.op == SM_OP_READ)) continue;
      const bool apart =
          other->offset + other->length <= request.offset || request.offset + request.length <= other->offset;
      REQUIRE(apart);
    }
    flying.insert(&request);
    if (request.op != SM_OP_WRITE) return;
    segmentBytes += request.length;
    places.emplace_back(device.device.id, request.offset);
  }
  ModelDisk& disk(size_t index) { return model.state.disks[index]; }
  void write(size_t index, uint64_t offset, uint64_t length, uint32_t flags = 0) {
    model.submit(disk(index), SM_OP_WRITE, flags, offset, length);
  }
  void fill(size_t index) {
    for (uint64_t at = 0; at < disk(index).bytes; at += 32 << 10)
      write(index, at, std::min<uint64_t>(32 << 10, disk(index).bytes - at));
    model.drain();
  }
  uint64_t usable() const { return layout.usable() * 512; }
  uint64_t moved() const { return segmentBytes - guestBytes; }

  World world;
  Model model;
  LogLayout layout;
  std::function<int32_t(const sm_request&)> failing;
  std::set<const sm_request*> flying;                 // to the segments
  std::vector<std::pair<uint32_t, uint64_t>> places;  // device and offset of what was written there
  uint64_t segmentBytes = 0;
};

// Requests whose order the model does not know.
struct Raw {
  Raw(LogRig& rig, uint8_t op, uint64_t offset, uint64_t length, uint8_t byte = 0)
      : world(rig.world), memory(length, byte), iov{memory.data(), length}, request(rig.world.parent()) {
    request->op = op;
    request->offset = offset;
    request->length = length;
    request->iov = &iov;
    request->iov_count = 1;
    sm_request_push(
        request, [](sm_request*, void* context, uint64_t) { *static_cast<bool*>(context) = true; }, &done, 0);
    logOps.submit(rig.model.volume, rig.disk(0).handle, request);
  }
  ~Raw() { world.releaseParent(request); }
  Raw(const Raw&) = delete;
  Raw& operator=(const Raw&) = delete;
  int32_t wait() {
    world.runUntil([this] { return done; });
    return request->status;
  }
  World& world;
  Bytes memory;
  iovec iov;
  sm_request* request;
  bool done = false;
};

}  // namespace sm::test
