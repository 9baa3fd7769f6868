#include "images.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "report.h"

namespace sm {
namespace {

using Long = unsigned long long;

constexpr std::string_view kSuffix = ".img";
constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

std::string fileOf(const char* name) { return std::string(name).append(kSuffix); }

// Whether it can be the name of a VM or disk, and so a folder's or file's.
bool isName(std::string_view name) {
  const auto isControl = [](unsigned char byte) { return byte < 0x20 || byte == 0x7f; };
  return !name.empty() && name.size() <= SM_NAME_MAX && name[0] != '.' && name.find('/') == name.npos &&
         std::none_of(name.begin(), name.end(), isControl);
}

int32_t checkNames(const char* vm, const char* name, sm_error* error) {
  for (const char* each : {vm, name})
    if (!isName(each))
      return report(error, -EINVAL, "'%s' is to name a file: use a name that has no '/' and does not begin with '.'",
                    each);
  return 0;
}

// Of the system call that has just failed.
int32_t failed(sm_error* error, const char* what, const std::string& path) {
  const int number = errno;
  return report(error, -number, "cannot %s %s: %s", what, path.c_str(), strerror(number));
}

int32_t sync(const Descriptor& file, const std::string& path, sm_error* error) {
  if (fsync(file.get()) == 0 || errno == EINVAL) return 0;  // EINVAL: it knows no such thing for folders
  return failed(error, "make durable", path);
}

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};

// What a folder has that is not hidden, in order. Returns 0 or a negative errno.
int32_t namesIn(Descriptor opened, std::vector<std::string>* out) {
  const std::unique_ptr<DIR, CloseFolder> folder(fdopendir(opened.get()));
  if (!folder) return -errno;
  opened.release();
  errno = 0;
  while (const dirent* entry = readdir(folder.get())) {
    if (entry->d_name[0] != '.') out->emplace_back(entry->d_name);
    errno = 0;
  }
  std::sort(out->begin(), out->end());
  return -errno;
}

}  // namespace

int32_t Images::open(const char* directory, Space space, Images* out, sm_error* error) {
  Descriptor root(::open(directory, kFolder));
  if (!root) {
    const int number = errno;
    return report(error, -number, "cannot open the directory %s: %s; give one that exists, on a mounted file system",
                  directory, strerror(number));
  }
  out->directory_ = directory;
  out->root_ = std::move(root);
  out->space_ = space;
  return 0;
}

std::string Images::pathOf(const char* vm, const char* name) const {
  return directory_ + "/" + vm + "/" + fileOf(name);
}

int32_t Images::openVm(const char* vm, Descriptor* out, sm_error* error) const {
  *out = Descriptor(openat(root_.get(), vm, kFolder | O_NOFOLLOW));
  if (*out) return 0;
  const std::string path = directory_ + "/" + vm;
  if (errno != ENOTDIR && errno != ELOOP) return failed(error, "open", path);
  return report(error, -ENOTDIR, "%s is no directory, and is left alone: move it away, or use another name",
                path.c_str());
}

int32_t Images::create(const char* vm, const char* name, uint64_t bytes, sm_error* error) {
  if (int32_t status = checkNames(vm, name, error)) return status;
  const std::string path = pathOf(vm, name), file = fileOf(name);
  const bool newVm = mkdirat(root_.get(), vm, 0700) == 0;
  if (!newVm && errno != EEXIST) return failed(error, "make the directory of", path);
  Descriptor folder, image;
  int32_t status = openVm(vm, &folder, error);
  if (!status) {
    image = Descriptor(openat(folder.get(), file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!image)
      status =
          errno == EEXIST ? report(error, -EEXIST, "%s is there already", path.c_str()) : failed(error, "create", path);
  }
  if (!status) status = setSize(image.get(), 0, bytes, path, error);
  if (!status) status = sync(folder, path, error);
  if (!status && newVm) status = sync(root_, directory_, error);
  if (status && image) unlinkat(folder.get(), file.c_str(), 0);
  if (status && newVm) unlinkat(root_.get(), vm, AT_REMOVEDIR);
  return status;
}

int32_t Images::find(const char* vm, const char* name, Image* out, sm_error* error) const {
  if (int32_t status = checkNames(vm, name, error)) return status;
  const std::string path = pathOf(vm, name);
  Descriptor folder;
  int32_t status = openVm(vm, &folder, error);
  if (!status) {
    out->file = Descriptor(openat(folder.get(), fileOf(name).c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!out->file) status = failed(error, "find", path);
  }
  if (status == -ENOENT) return report(error, status, "there is no %s", path.c_str());
  if (status) return status;
  struct stat facts;
  if (fstat(out->file.get(), &facts) != 0) return failed(error, "find", path);
  if (!S_ISREG(facts.st_mode))
    return report(error, -EINVAL, "%s is no regular file, and is left alone: move it away", path.c_str());
  out->bytes = static_cast<uint64_t>(facts.st_size);
  return 0;
}

int32_t Images::list(void (*each)(void* context, const sm_disk_info* info), void* context, sm_error* error) const {
  std::vector<std::string> vms;
  if (int32_t status = namesIn(Descriptor(openat(root_.get(), ".", kFolder)), &vms))
    return report(error, status, "cannot list %s: %s", directory_.c_str(), strerror(-status));
  for (const std::string& vm : vms) {
    if (!isName(vm)) continue;
    const std::string path = directory_ + "/" + vm;
    Descriptor folder(openat(root_.get(), vm.c_str(), kFolder | O_NOFOLLOW));
    // No folder, gone meanwhile, or another's, as lost+found is.
    if (!folder && (errno == ENOTDIR || errno == ELOOP || errno == ENOENT || errno == EACCES)) continue;
    if (!folder) return failed(error, "list", path);
    const int at = folder.get();
    std::vector<std::string> files;
    if (int32_t status = namesIn(Descriptor(openat(at, ".", kFolder)), &files))
      return report(error, status, "cannot list %s: %s", path.c_str(), strerror(-status));
    for (const std::string& file : files) {
      const std::string_view whole = file,
                             name = whole.substr(0, whole.size() - std::min(whole.size(), kSuffix.size()));
      struct stat facts;
      if (!whole.ends_with(kSuffix) || !isName(name) || fstatat(at, file.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0 ||
          !S_ISREG(facts.st_mode))
        continue;
      sm_disk_info info{};
      vm.copy(info.vm, sizeof info.vm - 1);
      name.copy(info.name, sizeof info.name - 1);
      info.bytes = static_cast<uint64_t>(facts.st_size);
      each(context, &info);
    }
  }
  return 0;
}

int32_t Images::lock(const char* vm, const char* name, int flags, Descriptor* out, uint64_t* bytes,
                     sm_error* error) const {
  Image image;
  if (int32_t status = find(vm, name, &image, error)) return status;
  const std::string path = pathOf(vm, name);
  *out = Descriptor(::open(image.path().c_str(), flags | O_CLOEXEC));
  if (!*out) return failed(error, "open", path);
  if (flock(out->get(), LOCK_EX | LOCK_NB) != 0)
    return errno == EWOULDBLOCK ? report(error, -EBUSY, "%s is locked by who has it open: close it there", path.c_str())
                                : failed(error, "lock", path);
  if (bytes) *bytes = image.bytes;
  return 0;
}

int32_t Images::setSize(int file, uint64_t from, uint64_t to, const std::string& path, sm_error* error) const {
  // The size comes last: after a crash there is the whole image, or an empty one.
  if (space_ == Space::kFull && to > from) {
    int result;
    do result = fallocate(file, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(from), static_cast<off_t>(to - from));
    while (result != 0 && errno == EINTR);
    if (result != 0) {
      const int number = errno;
      // What was allocated before it failed lies beyond the end, and is given back.
      const bool back = ftruncate(file, static_cast<off_t>(from)) == 0;
      return report(error, -number, "cannot allocate %llu bytes for %s: %s; %s%s", Long(to - from), path.c_str(),
                    strerror(number),
                    number == EOPNOTSUPP ? "open the volume with allocate: sparse" : "make room, or ask for less",
                    back ? "" : "; some of them stay allocated behind its end");
    }
  }
  if (ftruncate(file, static_cast<off_t>(to)) != 0) {
    const int number = errno == EINVAL ? EFBIG : errno;
    return report(error, -number, "%s cannot have %llu bytes: %s", path.c_str(), Long(to), strerror(number));
  }
  return fsync(file) == 0 ? 0 : failed(error, "make durable", path);
}

int32_t Images::resize(const char* vm, const char* name, uint64_t bytes, sm_error* error) {
  Descriptor file;
  uint64_t before = 0;
  if (int32_t status = lock(vm, name, O_RDWR, &file, &before, error)) return status;
  return setSize(file.get(), before, bytes, pathOf(vm, name), error);
}

int32_t Images::remove(const char* vm, const char* name, sm_error* error) {
  Descriptor file, folder;
  if (int32_t status = lock(vm, name, O_RDONLY, &file, nullptr, error)) return status;
  if (int32_t status = openVm(vm, &folder, error)) return status;
  const std::string path = pathOf(vm, name);
  if (unlinkat(folder.get(), fileOf(name).c_str(), 0) != 0) return failed(error, "remove", path);
  if (int32_t status = sync(folder, path, error)) return status;
  return unlinkat(root_.get(), vm, AT_REMOVEDIR) == 0 ? sync(root_, directory_, error) : 0;
}

}  // namespace sm
