// `nbd`: disks as they are on somebody else's NBD servers. It keeps no metadata and moves nothing: byte n of a disk is
// byte n of its device, which is meant to be one of the driver nbd, though any will do.
//
// Each device is one disk at most: making a disk gives a name to the first that has none and is large enough, as long
// as the volume is open. A disk holds what its device held; deleting it takes the name away and leaves the bytes.
//
// Options at open: issue (clone or fresh: how children are made; default clone).
#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "control.h"
#include "options.h"
#include "pass_io.h"
#include "registry.h"
#include "report.h"

namespace sm {
namespace {

constexpr const char* kType = "nbd";

using Long = unsigned long long;

// A device, and the disk that it is.
struct Slot {
  Slot(const sm_services* services, sm_device* which, Issue issue)
      : device(which), io(services, which, issue, PassIo::Discards::kGiveBack, durability) {}
  bool is(const char* otherVm, const char* otherName) const {
    return !vm.empty() && vm == otherVm && name == otherName;
  }

  sm_device* const device;
  std::string vm, name;  // empty: no disk
  uint64_t bytes = 0;
  Durability durability;
  PassIo io;
};

struct Volume {
  const sm_services* services;
  std::vector<std::unique_ptr<Slot>> slots;

  Slot* find(const char* vm, const char* name, sm_error* error) const {
    for (const auto& slot : slots)
      if (slot->is(vm, name)) return slot.get();
    report(error, -ENOENT,
           "there is no disk '%s' of '%s': this volume keeps no names; create the disk each time that it is opened",
           name, vm);
    return nullptr;
  }
};

Volume& volumeOf(void* volume) { return *static_cast<Volume*>(volume); }

int32_t open(const sm_services* services, sm_device* const* devices, uint32_t count, const sm_option* options,
             uint32_t optionCount, void** out, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    uint64_t issue = static_cast<uint64_t>(Issue::kClone);
    const OptionSpec specs[] = {{"issue", OptionSpec::kIssue, &issue}};
    if (int32_t status = parseOptions(kType, options, optionCount, specs, 1, error)) return status;
    auto volume = std::make_unique<Volume>();
    volume->services = services;
    for (uint32_t i = 0; i < count; ++i)
      volume->slots.push_back(std::make_unique<Slot>(services, devices[i], static_cast<Issue>(issue)));
    *out = volume.release();
    return 0;
  });
}

int32_t close(void* handle, sm_error* error) {
  const std::unique_ptr<Volume> volume(&volumeOf(handle));
  int32_t status = 0;
  for (const auto& slot : volume->slots) {
    waitHome(volume->services, slot->device, [&] { return slot->io.idle(); });
    if (!status) status = slot->durability.check(error);
  }
  return status;
}

int32_t diskCreate(void* handle, const char* vm, const char* name, uint64_t bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    uint64_t largest = 0;
    Slot* unused = nullptr;
    for (const auto& slot : volumeOf(handle).slots) {
      if (slot->is(vm, name)) return report(error, -EEXIST, "there is a disk '%s' of '%s' already", name, vm);
      largest = std::max(largest, slot->device->bytes);
      if (!unused && slot->vm.empty() && bytes <= slot->device->bytes) unused = slot.get();
    }
    if (bytes > largest)
      return report(error, -EFBIG, "a disk of %llu bytes can never be held: the largest device has %llu", Long(bytes),
                    Long(largest));
    if (!unused)
      return report(error, -ENOSPC,
                    "every device that could hold %llu bytes is a disk: open the volume with one more device",
                    Long(bytes));
    unused->vm = vm;
    unused->name = name;
    unused->bytes = bytes;
    return 0;
  });
}

int32_t diskList(void* handle, void (*each)(void* context, const sm_disk_info* info), void* context, sm_error*) {
  for (const auto& slot : volumeOf(handle).slots) {
    if (slot->vm.empty()) continue;
    sm_disk_info info{};
    slot->vm.copy(info.vm, sizeof info.vm - 1);
    slot->name.copy(info.name, sizeof info.name - 1);
    info.bytes = slot->bytes;
    each(context, &info);
  }
  return 0;
}

int32_t diskOpen(void* handle, const char* vm, const char* name, void** disk, uint64_t* bytes, sm_error* error) {
  Slot* slot = volumeOf(handle).find(vm, name, error);
  if (!slot) return -ENOENT;
  *disk = slot;
  *bytes = slot->bytes;
  return 0;
}

int32_t diskDelete(void* handle, const char* vm, const char* name, sm_error* error) {
  Slot* slot = volumeOf(handle).find(vm, name, error);
  if (!slot) return -ENOENT;
  slot->vm.clear();
  slot->name.clear();
  return 0;
}

void submit(void*, void* disk, sm_request* request) { static_cast<Slot*>(disk)->io.start(nullptr, request); }

}  // namespace

const sm_volume_ops nbdOps = {.version = SM_CONTRACT_VERSION,
                              .size = sizeof(sm_volume_ops),
                              .type = kType,
                              .format = nullptr,
                              .open = open,
                              .close = close,
                              .disk_create = diskCreate,
                              .disk_list = diskList,
                              .disk_open = diskOpen,
                              .disk_close = nullptr,
                              .disk_delete = diskDelete,
                              .disk_resize = nullptr,
                              .submit = submit};

}  // namespace sm
