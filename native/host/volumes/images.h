// Image files in a directory, as FOLDER/VM/DISK.img: made, found, listed, resized, removed.
//
// Nothing outside of the directory is touched: a name that would lead out of it, or that would be hidden in it, is
// refused, and no symbolic link in it is followed. What else lies there is left alone.
//
// Thread contract: one thread at a time, which may block.
#pragma once

#include <stratamap/volume.h>
#include <unistd.h>

#include <string>
#include <utility>

namespace sm {

// A descriptor that is closed at the end.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// An image that was found: of the file that was there then, whatever comes to have its name.
struct Image {
  Descriptor file;     // O_PATH
  uint64_t bytes = 0;  // size
  // By which that file is opened, as long as this lives.
  std::string path() const { return "/proc/self/fd/" + std::to_string(file.get()); }
};

class Images {
 public:
  enum class Space : uint64_t { kSparse, kFull };  // allocated when it is first written, or with the image

  // ENOENT, ENOTDIR, and what else open(2) says.
  static int32_t open(const char* directory, Space space, Images* out, sm_error* error);

  // Durable when it returns; nothing is there where it fails. -EEXIST, -ENOSPC, -EFBIG, -EOPNOTSUPP (kFull).
  int32_t create(const char* vm, const char* name, uint64_t bytes, sm_error* error);
  // -ENOENT; -EINVAL: what has the name is no regular file.
  int32_t find(const char* vm, const char* name, Image* out, sm_error* error) const;
  // In the order of their names.
  int32_t list(void (*each)(void* context, const sm_disk_info* info), void* context, sm_error* error) const;
  // Durable when it returns. -EBUSY: someone has locked it, -ENOSPC, -EFBIG: as it was.
  int32_t resize(const char* vm, const char* name, uint64_t bytes, sm_error* error);
  // And its VM's folder, where it was the last in it. -EBUSY.
  int32_t remove(const char* vm, const char* name, sm_error* error);

  const std::string& directory() const { return directory_; }
  std::string pathOf(const char* vm, const char* name) const;  // for messages

 private:
  int32_t openVm(const char* vm, Descriptor* out, sm_error* error) const;
  // Opens an image, and keeps everybody else from it as long as it is open. `flags`: O_RDONLY or O_RDWR.
  int32_t lock(const char* vm, const char* name, int flags, Descriptor* out, uint64_t* bytes, sm_error* error) const;
  // Of `from` bytes until now; durable when it returns.
  int32_t setSize(int file, uint64_t from, uint64_t to, const std::string& path, sm_error* error) const;
  std::string directory_;
  Descriptor root_;
  Space space_ = Space::kSparse;
};

}  // namespace sm
