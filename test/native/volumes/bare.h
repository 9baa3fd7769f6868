// A volume by its entries alone, for the failures of control calls: the model allows none.
#pragma once

#include <map>

#include "scenario.h"

namespace sm::test {

struct Bare {
  Bare(World& on, const sm_volume_ops* with) : world(on), ops(with) {}
  int32_t open() {
    error = {};
    return ops->open(world.services(), world.devices().data(), static_cast<uint32_t>(world.devices().size()), nullptr,
                     0, &volume, &error);
  }
  int32_t close() { return ops->close(volume, &error); }
  int32_t create(const char* name, uint64_t bytes = 64 << 10) {
    error = {};
    return ops->disk_create(volume, "vm", name, bytes, &error);
  }
  void* find(const char* name) {
    void* disk = nullptr;
    uint64_t bytes = 0;
    return ops->disk_open(volume, "vm", name, &disk, &bytes, &error) ? nullptr : disk;
  }
  int32_t io(void* disk, uint8_t op, uint32_t flags = 0, uint64_t offset = 0, uint64_t length = 0) {
    Bytes memory(length, 0x5a);
    iovec iov{memory.data(), length};
    sm_request* request = world.parent();
    request->op = op;
    request->flags = flags;
    request->offset = offset;
    request->length = length;
    if (op == SM_OP_READ || op == SM_OP_WRITE) request->iov = &iov, request->iov_count = 1;
    bool done = false;
    sm_request_push(
        request, [](sm_request*, void* context, uint64_t) { *static_cast<bool*>(context) = true; }, &done, 0);
    ops->submit(volume, disk, request);
    world.runUntil([&] { return done; });
    const int32_t status = request->status;
    world.releaseParent(request);
    return status;
  }
  std::map<std::string, uint64_t> list() {
    std::map<std::string, uint64_t> disks;
    ops->disk_list(
        volume,
        [](void* context, const sm_disk_info* info) {
          (*static_cast<std::map<std::string, uint64_t>*>(context))[info->name] = info->bytes;
        },
        &disks, &error);
    return disks;
  }
  bool says(const char* text) const { return std::string(error.message).find(text) != std::string::npos; }

  World& world;
  const sm_volume_ops* ops;
  void* volume = nullptr;
  sm_error error{};
};

}  // namespace sm::test
