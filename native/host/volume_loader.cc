#include "host/volume_loader.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>

#include "host/failures.h"
#include "host/host.h"
#include "volumes/registry.h"

namespace sm {
namespace {

Failure refuse(const std::string& type, const std::string& found) {
  return failed(EINVAL, "volume",
                "cannot use " + type + " as a volume: " + found + "; compile it against the headers of this version",
                "ERR_STRATAMAP_CONTRACT");
}

Failure loadShared(const std::string& path, const sm_volume_ops** out) {
  const auto fail = [&](int error, const std::string& found) {
    return failed(error, "volume", "cannot load the volume " + path + ": " + found, "ERR_STRATAMAP_VOLUME_TYPE");
  };
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return fail(errno, std::string(std::strerror(errno)) + "; give the path of a shared object");
  }
  if (!S_ISREG(info.st_mode)) return fail(EINVAL, "it is not a regular file; give the path of a shared object");
  // Without a slash dlopen would search the system's libraries.
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return fail(ENOEXEC, std::string(dlerror()));
  const auto entry = reinterpret_cast<sm_volume_entry_fn>(dlsym(library, SM_VOLUME_ENTRY));
  Failure failure = entry ? checkVolumeTable(path, entry()) : refuse(path, "it does not export " SM_VOLUME_ENTRY);
  if (failure) {
    dlclose(library);
    return failure;
  }
  *out = entry();
  return {};
}

std::span<const sm_volume_ops* const> registered() {
  size_t count;
  const sm_volume_ops* const* list = volumeRegistry(&count);
  return {list, count};
}

}  // namespace

std::vector<std::string> volumeTypes() {
  std::vector<std::string> types;
  for (const sm_volume_ops* ops : registered()) types.emplace_back(ops->type);
  return types;
}

Failure checkVolumeTable(const std::string& type, const sm_volume_ops* ops) {
  if (!ops) return refuse(type, SM_VOLUME_ENTRY " returned no table");
  if (ops->version != SM_CONTRACT_VERSION) {
    return refuse(type, "its contract is of version " + std::to_string(ops->version) + ", this host's of version " +
                            std::to_string(SM_CONTRACT_VERSION));
  }
  if (ops->size < offsetof(sm_volume_ops, flags)) {
    return refuse(type, "its table has " + std::to_string(ops->size) + " bytes, version " +
                            std::to_string(SM_CONTRACT_VERSION) + " has " +
                            std::to_string(offsetof(sm_volume_ops, flags)));
  }
  if (!ops->open || !ops->disk_open || !ops->submit) {
    return refuse(type, "one of open, disk_open and submit is null, without which it is no volume");
  }
  return {};
}

uint32_t volumeFlags(const sm_volume_ops& ops) {
  return ops.size >= offsetof(sm_volume_ops, flags) + sizeof ops.flags ? ops.flags : 0;
}

Failure loadVolume(const std::string& type, const sm_volume_ops** out) {
  if (type.size() > 3 && type.compare(type.size() - 3, 3, ".so") == 0) return loadShared(type, out);
  std::string known;
  for (const sm_volume_ops* ops : registered()) {
    if (type == ops->type) {
      *out = ops;
      return {};
    }
    known += std::string(known.empty() ? "" : ", ") + ops->type;
  }
  return failed(EINVAL, "volume",
                "there is no volume of type '" + type + "': use " + known + ", or a path that ends in .so",
                "ERR_STRATAMAP_VOLUME_TYPE");
}

}  // namespace sm
