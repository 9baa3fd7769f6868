#include "host/own_devices.h"

#include <stratamap/disk.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "host/failures.h"

namespace sm {
namespace {

// As it is, or, where that is too long, with its end replaced by the hash of the whole (FNV-1a): always the same.
std::string shortened(const std::string& name) {
  if (name.size() <= SM_NAME_MAX) return name;
  uint64_t hash = 0xcbf29ce484222325;
  for (const unsigned char byte : name) hash = (hash ^ byte) * 0x100000001b3;
  char digits[18];
  std::snprintf(digits, sizeof digits, "~%016" PRIx64, hash);
  size_t kept = SM_NAME_MAX - (sizeof digits - 1);
  while (kept > 0 && (static_cast<unsigned char>(name[kept]) & 0xC0) == 0x80) --kept;  // no part of a character
  return name.substr(0, kept) + digits;
}

}  // namespace

OwnDevices::OwnDevices(std::string volume, std::vector<IoThread*> threads, DeviceNames& names)
    : volume_(std::move(volume)), threads_(std::move(threads)), names_(names) {}

OwnDevices::~OwnDevices() { closeAll(); }

Failure OwnDevices::open(const std::string& name, const std::string& path, sm_device** out) {
  DeviceSpec spec;
  spec.name = shortened(volume_ + "/" + name);
  spec.path = path;
  if (Failure failure = checkName(spec.name, "device", "device")) return failure;
  if (!names_.reserve(spec.name)) {
    return openFailure(spec, EEXIST, nullptr, "a device of that name is open: close that, or give it another name");
  }
  std::error_code error;
  const std::filesystem::path file = std::filesystem::canonical(path, error);
  entries_.push_back({nullptr, disk_, error ? path : file.string()});
  if (Failure failure = openDevice(spec, threads_, &entries_.back().device)) {
    entries_.pop_back();
    names_.release(spec.name);
    return failure;
  }
  *out = entries_.back().device->contract();
  return {};
}

void OwnDevices::close(const sm_device* device) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.device->contract() == device; });
  if (found == entries_.end()) return;
  const std::string name = found->device->facts().name;
  entries_.erase(found);
  names_.release(name);
}

void OwnDevices::closeAll() {
  while (!entries_.empty()) close(entries_.back().device->contract());
}

std::vector<sm_device*> OwnDevices::of(const DiskRegistry::Name& disk) const {
  std::vector<sm_device*> devices;
  for (const Entry& entry : entries_) {
    if (entry.disk == disk) devices.push_back(entry.device->contract());
  }
  return devices;
}

std::vector<std::string> OwnDevices::pathsOf(const DiskRegistry::Name& disk) const {
  std::vector<std::string> paths;
  for (const Entry& entry : entries_) {
    if (entry.disk == disk) paths.push_back(entry.path);
  }
  return paths;
}

}  // namespace sm
