#include <algorithm>
#include <cerrno>
#include <utility>

#include "host/failures.h"
#include "host/host.h"
#include "host/volume_state.h"

namespace sm {
namespace {

std::string text(const DiskRegistry::Name& name) { return name.first + "/" + name.second; }

Failure checkNames(const std::string& vm, const std::string& name) {
  if (Failure failure = checkName(vm, "VM", "disk")) return failure;
  return checkName(name, "disk", "disk");
}

}  // namespace

std::vector<sm_option> contractOptions(const Options& options) {
  std::vector<sm_option> list;
  for (const auto& [key, value] : options) list.push_back({key.c_str(), value.c_str()});
  return list;
}

Volume::State::State(std::string volumeName, std::string volumeType, std::vector<sm_device*> volumeDevices,
                     Surroundings host)
    : name(std::move(volumeName)),
      type(std::move(volumeType)),
      devices(std::move(volumeDevices)),
      own(name, std::move(host.threads), host.deviceNames),
      services(host.home, std::move(host.log), &own),
      registry(host.disks) {
  for (const sm_device* device : devices) blockSize = std::max(blockSize, device->block_size);
}

std::string Volume::State::asked(const std::string& what) const {
  return "cannot " + what + " volume " + name + " (" + type + (devices.empty() ? "" : " on ") + namesOf(devices) + ")";
}

Failure Volume::State::about(const DiskRegistry::Name& diskName, Failure failure) {
  failure.vm = diskName.first;
  failure.disk = diskName.second;
  return failure;
}

Failure Volume::State::usable() const {
  if (!closed) return {};
  return failed(EBADF, "volume", "volume " + name + " is closed: open it again", "ERR_STRATAMAP_CLOSED");
}

Failure Volume::State::open(const sm_volume_ops* volumeOps, const Options& options) {
  std::lock_guard<std::mutex> lock(mutex);
  ops = volumeOps;
  const std::vector<sm_option> list = contractOptions(options);
  sm_error error{};
  const int32_t status = ops->open(services.table(), devices.data(), static_cast<uint32_t>(devices.size()), list.data(),
                                   static_cast<uint32_t>(list.size()), &handle, &error);
  if (status != 0) return failedVolume(status, error, asked("open"));
  closed = false;
  return {};
}

Failure Volume::State::close(bool disksToo) {
  std::lock_guard<std::mutex> lock(mutex);
  if (Failure failure = usable()) return failure;
  if (!disks.empty() && !disksToo) {
    return failed(EBUSY, "volume",
                  asked("close") + ": disk " + text(disks.begin()->second.name) + " is open; close its disks first",
                  "ERR_STRATAMAP_BUSY");
  }
  while (!disks.empty()) closeDisk(disks.begin());
  closed = true;
  sm_error error{};
  const int32_t status = ops->close ? ops->close(handle, &error) : 0;
  own.closeAll();
  return status == 0 ? Failure{} : failedVolume(status, error, asked("close"));
}

Failure Volume::State::checkSize(uint64_t bytes, uint32_t block, const DiskRegistry::Name& diskName) const {
  if (bytes > 0 && bytes <= INT64_MAX && bytes % block == 0) return {};
  return about(diskName, failed(EINVAL, "disk",
                                "disk " + text(diskName) + " cannot have " + std::to_string(bytes) +
                                    " bytes: use a multiple of " + std::to_string(block) + ", more than 0",
                                "ERR_OUT_OF_RANGE"));
}

Failure Volume::State::openDisk(const DiskRegistry::Name& diskName, VirtualDisk** out) {
  if (!registry.reserve(diskName)) {
    return about(diskName, failed(EBUSY, "disk",
                                  "disk " + text(diskName) +
                                      " is open in this host already, in this volume or another one: close it first",
                                  "ERR_STRATAMAP_BUSY"));
  }
  void* diskHandle = nullptr;
  uint64_t bytes = 0;
  sm_error error{};
  own.openFor(diskName);
  const int32_t status =
      ops->disk_open(handle, diskName.first.c_str(), diskName.second.c_str(), &diskHandle, &bytes, &error);
  if (status != 0) {
    registry.remove(diskName);
    return about(diskName, failedVolume(status, error, asked("open disk " + text(diskName) + " of")));
  }
  uint32_t block = blockSize;
  for (const sm_device* device : own.of(diskName)) block = std::max(block, device->block_size);
  auto disk = std::make_shared<VirtualDisk>(services.home(), ops, handle, diskHandle, diskName.first, diskName.second,
                                            bytes, block);
  *out = disk.get();
  disks[disk.get()] = {disk, diskHandle, diskName};
  registry.publish(diskName, std::move(disk));
  return {};
}

void Volume::State::closeDisk(std::map<VirtualDisk*, OpenDisk>::iterator position) {
  OpenDisk open = std::move(position->second);
  disks.erase(position);
  open.disk->quiesce(VirtualDisk::Quiesce::kClose);
  registry.remove(open.name);
  if (ops->disk_close) ops->disk_close(handle, open.handle);
}

Volume::Volume(std::unique_ptr<State> inside) : state(std::move(inside)) {}

Volume::~Volume() = default;

const std::string& Volume::name() const { return state->name; }
const std::string& Volume::type() const { return state->type; }
const std::vector<sm_device*>& Volume::devices() const { return state->devices; }

std::vector<sm_device*> Volume::ownDevices(const VirtualDisk* disk) const {
  std::lock_guard<std::mutex> lock(state->mutex);
  for (const auto& [open, entry] : state->disks) {
    if (open == disk) return state->own.of(entry.name);
  }
  return {};
}

std::vector<std::string> Volume::ownPaths(const VirtualDisk* disk) const {
  std::lock_guard<std::mutex> lock(state->mutex);
  for (const auto& [open, entry] : state->disks) {
    if (open == disk) return state->own.pathsOf(entry.name);
  }
  return {};
}

Failure Volume::createDisk(const std::string& vm, const std::string& name, uint64_t bytes, VirtualDisk** out) {
  const DiskRegistry::Name diskName{vm, name};
  std::lock_guard<std::mutex> lock(state->mutex);
  if (Failure failure = state->usable()) return failure;
  if (Failure failure = checkNames(vm, name)) return State::about(diskName, failure);
  if (Failure failure = state->checkSize(bytes, state->blockSize, diskName)) return failure;
  sm_error error{};
  state->own.openFor(diskName);
  const int32_t status = state->ops->disk_create
                             ? state->ops->disk_create(state->handle, vm.c_str(), name.c_str(), bytes, &error)
                             : -EOPNOTSUPP;
  if (status != 0) {
    return State::about(diskName, failedVolume(status, error,
                                               state->asked("create disk " + text(diskName) + " of " +
                                                            std::to_string(bytes) + " bytes in")));
  }
  Failure failure = state->openDisk(diskName, out);
  // Nothing has changed where a call fails.
  if (failure && state->ops->disk_delete) state->ops->disk_delete(state->handle, vm.c_str(), name.c_str(), &error);
  return failure;
}

Failure Volume::openDisk(const std::string& vm, const std::string& name, VirtualDisk** out) {
  const DiskRegistry::Name diskName{vm, name};
  std::lock_guard<std::mutex> lock(state->mutex);
  if (Failure failure = state->usable()) return failure;
  if (Failure failure = checkNames(vm, name)) return State::about(diskName, failure);
  return state->openDisk(diskName, out);
}

Failure Volume::listDisks(std::vector<DiskInfo>* out) {
  std::lock_guard<std::mutex> lock(state->mutex);
  if (Failure failure = state->usable()) return failure;
  out->clear();
  if (!state->ops->disk_list) return {};
  sm_error error{};
  const int32_t status = state->ops->disk_list(
      state->handle,
      [](void* context, const sm_disk_info* info) {
        static_cast<std::vector<DiskInfo>*>(context)->push_back({info->vm, info->name, info->bytes});
      },
      out, &error);
  return status == 0 ? Failure{} : failedVolume(status, error, state->asked("list the disks of"));
}

Failure Volume::deleteDisk(const std::string& vm, const std::string& name) {
  const DiskRegistry::Name diskName{vm, name};
  std::lock_guard<std::mutex> lock(state->mutex);
  if (Failure failure = state->usable()) return failure;
  if (Failure failure = checkNames(vm, name)) return State::about(diskName, failure);
  for (const auto& [disk, open] : state->disks) {
    if (open.name != diskName) continue;
    return State::about(
        diskName, failed(EBUSY, "disk",
                         state->asked("delete disk " + text(diskName) + " of") + ": the disk is open; close it first",
                         "ERR_STRATAMAP_BUSY"));
  }
  sm_error error{};
  const int32_t status =
      state->ops->disk_delete ? state->ops->disk_delete(state->handle, vm.c_str(), name.c_str(), &error) : -EOPNOTSUPP;
  if (status == 0) return {};
  return State::about(diskName, failedVolume(status, error, state->asked("delete disk " + text(diskName) + " of")));
}

Failure Volume::resizeDisk(VirtualDisk* disk, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(state->mutex);
  if (Failure failure = state->usable()) return failure;
  const auto found = state->disks.find(disk);
  if (found == state->disks.end()) {
    return failed(EBADF, "disk", "the disk to resize is not open in volume " + state->name, "ERR_STRATAMAP_CLOSED");
  }
  const DiskRegistry::Name& diskName = found->second.name;
  if (Failure failure = state->checkSize(bytes, disk->contract()->block_size, diskName)) return failure;
  sm_error error{};
  int32_t status = -EOPNOTSUPP;
  state->own.openFor(diskName);
  if (state->ops->disk_resize) {
    disk->quiesce(VirtualDisk::Quiesce::kResize);
    status = state->ops->disk_resize(state->handle, found->second.handle, bytes, &error);
    disk->proceed(status == 0 ? bytes : disk->bytes());
  }
  if (status == 0) return {};
  return State::about(
      diskName, failedVolume(status, error,
                             state->asked("resize disk " + text(diskName) + " from " + std::to_string(disk->bytes()) +
                                          " to " + std::to_string(bytes) + " bytes in")));
}

Failure Volume::closeDisk(VirtualDisk* disk) {
  std::lock_guard<std::mutex> lock(state->mutex);
  if (Failure failure = state->usable()) return failure;
  const auto found = state->disks.find(disk);
  if (found == state->disks.end()) {
    return failed(EBADF, "disk", "the disk to close is not open in volume " + state->name, "ERR_STRATAMAP_CLOSED");
  }
  state->closeDisk(found);
  return {};
}

}  // namespace sm
