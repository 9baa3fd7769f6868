// `kernel`: disks are image files in a directory, and what places their bytes is the kernel's own stack below it: the
// file system, and whatever that lies on. It keeps no metadata: the directory is the list of its disks.
//
// Each open disk has a device of its own, its image, opened by the host: exclusively, and past the page cache where the
// file system allows that. Byte n of a disk is byte n of its image.
//
// Options at open: directory (which must exist); allocate (sparse: space is allocated when it is written; full: with
// the disk, whose own it stays, also where it is discarded; default sparse); issue (clone or fresh: how children are
// made; default clone).
#include <stratamap/volume.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "control.h"
#include "images.h"
#include "options.h"
#include "pass_io.h"
#include "registry.h"
#include "report.h"

namespace sm {
namespace {

constexpr const char* kType = "kernel";
constexpr const char* kSpaces[] = {"sparse", "full", nullptr};  // by Images::Space

// The kernel lets go of what a process had in a ring, and of its locks, a moment after the process has ended: so long
// it is waited for, by who starts again after a crash.
constexpr std::chrono::milliseconds kPatience(2000), kPause(10);

using Long = unsigned long long;

struct Volume {
  const sm_services* services;
  Images images;
  Issue issue;
  PassIo::Discards discards;
  bool toldOfCache = false;
};

// An open disk. Where it could not be opened again after a resize it has no device, and fails all I/O.
struct Disk {
  explicit Disk(const sm_services* of) : services(of) {}
  ~Disk() { leave(); }

  // Closes its device. No request is in flight.
  void leave() {
    if (io) waitHome(services, device, [this] { return io->idle(); });
    io.reset();
    if (device) services->device_close(services, std::exchange(device, nullptr));
  }

  const sm_services* const services;
  std::string vm, name;
  Durability durability;
  sm_device* device = nullptr;
  std::unique_ptr<PassIo> io;
};

Volume& volumeOf(void* volume) { return *static_cast<Volume*>(volume); }
Disk& diskOf(void* disk) { return *static_cast<Disk*>(disk); }

int32_t openImage(Volume& volume, const char* vm, const char* name, sm_device** out, uint64_t* bytes, sm_error* error) {
  Image image;
  if (int32_t status = volume.images.find(vm, name, &image, error)) return status;
  *bytes = image.bytes;
  sm_error found{};
  const std::string device = std::string(vm) + "/" + name;
  int32_t status;
  for (std::chrono::milliseconds waited(0);; waited += kPause) {
    status = volume.services->device_open(volume.services, device.c_str(), image.path().c_str(), out, &found);
    if (status != -EBUSY || waited >= kPatience) break;
    std::this_thread::sleep_for(kPause);
  }
  if (status == 0) return 0;
  const std::string path = volume.images.pathOf(vm, name);
  if (status == -EBUSY) return report(error, status, "%s is locked by who has it open: close it there", path.c_str());
  return report(error, status, "%s: %.300s", path.c_str(), found.message);
}

// With the device that `openImage` gave. No request of the disk is in flight.
void serve(Volume& volume, Disk& disk, uint64_t bytes) {
  disk.io = std::make_unique<PassIo>(volume.services, disk.device, volume.issue, volume.discards, disk.durability);
  const auto say = [&](const std::string& what) {
    volume.services->log(volume.services, SM_LOG_WARNING, what.c_str());
  };
  if (const uint64_t left = bytes - disk.device->bytes)
    say(volume.images.pathOf(disk.vm.c_str(), disk.name.c_str()) + ": " + std::to_string(left) +
        " bytes at its end are less than a block, and are left alone");
  if (disk.device->flags & SM_DEVICE_DIRECT || std::exchange(volume.toldOfCache, true)) return;
  say("the file system of " + volume.images.directory() +
      " takes no direct I/O: it goes through the page cache, where I/O priorities are lost, and what is learned from "
      "them; use another file system where that matters");
}

int32_t open(const sm_services* services, sm_device* const*, uint32_t, const sm_option* options, uint32_t optionCount,
             void** out, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    if (services->size < offsetof(sm_services, device_close) + sizeof services->device_close || !services->device_open)
      return report(error, -ENOTSUP, "this host opens no files for a volume: use a newer one");
    uint64_t issue = static_cast<uint64_t>(Issue::kClone), space = static_cast<uint64_t>(Images::Space::kSparse);
    const char* directory = nullptr;
    const OptionSpec specs[] = {{.key = "directory", .kind = OptionSpec::kText, .out = nullptr, .text = &directory},
                                {.key = "allocate", .kind = OptionSpec::kWord, .out = &space, .words = kSpaces},
                                {.key = "issue", .kind = OptionSpec::kIssue, .out = &issue}};
    if (int32_t status = parseOptions(kType, options, optionCount, specs, 3, error)) return status;
    if (!directory)
      return report(error, -EINVAL, "it has no option 'directory': give the path of one on a mounted file system");
    auto volume = std::make_unique<Volume>();
    volume->services = services;
    volume->issue = static_cast<Issue>(issue);
    const auto of = static_cast<Images::Space>(space);
    volume->discards = of == Images::Space::kFull ? PassIo::Discards::kKeep : PassIo::Discards::kGiveBack;
    if (int32_t status = Images::open(directory, of, &volume->images, error)) return status;
    *out = volume.release();
    return 0;
  });
}

int32_t close(void* volume, sm_error*) {
  delete &volumeOf(volume);
  return 0;
}

int32_t diskCreate(void* handle, const char* vm, const char* name, uint64_t bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    if (int32_t status = volume.images.create(vm, name, bytes, error)) return status;
    // Whether it can be served as large as that, the file system alone knows.
    sm_device* device = nullptr;
    uint64_t found = 0;
    int32_t status = openImage(volume, vm, name, &device, &found, error);
    if (!status) {
      if (device->bytes != bytes)
        status = report(error, -EINVAL, "%llu bytes are no multiple of %u, of which direct I/O has to be here",
                        Long(bytes), device->block_size);
      volume.services->device_close(volume.services, device);
    }
    if (status) volume.images.remove(vm, name, nullptr);
    return status;
  });
}

int32_t diskList(void* volume, void (*each)(void* context, const sm_disk_info* info), void* context, sm_error* error) {
  return guarded(error, [&] { return volumeOf(volume).images.list(each, context, error); });
}

int32_t diskOpen(void* handle, const char* vm, const char* name, void** out, uint64_t* bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    auto disk = std::make_unique<Disk>(volume.services);
    disk->vm = vm;
    disk->name = name;
    uint64_t found = 0;
    if (int32_t status = openImage(volume, vm, name, &disk->device, &found, error)) return status;
    serve(volume, *disk, found);
    *bytes = disk->device->bytes;
    *out = disk.release();
    return 0;
  });
}

void diskClose(void*, void* disk) { delete &diskOf(disk); }

int32_t diskDelete(void* volume, const char* vm, const char* name, sm_error* error) {
  return guarded(error, [&] { return volumeOf(volume).images.remove(vm, name, error); });
}

int32_t diskResize(void* handle, void* diskHandle, uint64_t bytes, sm_error* error) {
  return guarded(error, [&]() -> int32_t {
    Volume& volume = volumeOf(handle);
    Disk& disk = diskOf(diskHandle);
    // The size of a device never changes.
    disk.leave();
    int32_t status = volume.images.resize(disk.vm.c_str(), disk.name.c_str(), bytes, error);
    uint64_t found = 0;
    sm_error again{};
    if (openImage(volume, disk.vm.c_str(), disk.name.c_str(), &disk.device, &found, &again) == 0) {
      serve(volume, disk, found);
      return status;
    }
    return report(error, -EIO,
                  "the disk fails all I/O until it is closed and opened again, for its image is not: %.300s",
                  again.message);
  });
}

void submit(void*, void* disk, sm_request* request) {
  PassIo* io = diskOf(disk).io.get();
  io ? io->start(nullptr, request) : sm_request_complete(request, -EIO);
}

}  // namespace

const sm_volume_ops kernelOps = {.version = SM_CONTRACT_VERSION,
                                 .size = sizeof(sm_volume_ops),
                                 .type = kType,
                                 .format = nullptr,
                                 .open = open,
                                 .close = close,
                                 .disk_create = diskCreate,
                                 .disk_list = diskList,
                                 .disk_open = diskOpen,
                                 .disk_close = diskClose,
                                 .disk_delete = diskDelete,
                                 .disk_resize = diskResize,
                                 .submit = submit,
                                 .flags = SM_VOLUME_NO_DEVICES};

}  // namespace sm
