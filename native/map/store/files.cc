#include "map/store/files.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace sm {

namespace {

int statusOf(int result) { return result < 0 ? -errno : 0; }

// Calls pread or pwrite until all is done.
template <class Call, class Bytes>
int whole(Call call, int fd, Bytes* bytes, size_t length, uint64_t at) {
  while (length > 0) {
    const ssize_t done = call(fd, bytes, length, static_cast<off_t>(at));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return done < 0 ? -errno : -EIO;
    bytes += done;
    length -= static_cast<size_t>(done);
    at += static_cast<uint64_t>(done);
  }
  return 0;
}

class SystemFile final : public StoreFile {
 public:
  explicit SystemFile(int fd) : fd_(fd) {}
  ~SystemFile() override { close(fd_); }

  int64_t size() override {
    struct stat st;
    return fstat(fd_, &st) < 0 ? -errno : st.st_size;
  }
  int read(uint64_t at, void* bytes, size_t length) override {
    return whole(pread, fd_, static_cast<char*>(bytes), length, at);
  }
  int write(uint64_t at, const void* bytes, size_t length) override {
    return whole(pwrite, fd_, static_cast<const char*>(bytes), length, at);
  }
  int truncate(uint64_t length) override { return statusOf(ftruncate(fd_, static_cast<off_t>(length))); }
  int sync() override { return statusOf(fsync(fd_)); }

  int lock() { return statusOf(flock(fd_, LOCK_EX | LOCK_NB)); }

 private:
  const int fd_;
};

class SystemFiles final : public StoreFiles {
 public:
  int open(std::string* path, std::unique_ptr<StoreFile>* out) override {
    for (;;) {
      const int fd = ::open(path->c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
      if (fd < 0) return errno == EISDIR ? -EINVAL : -errno;
      auto file = std::make_unique<SystemFile>(fd);
      struct stat mine, there;
      if (fstat(fd, &mine) < 0) return -errno;
      if (!S_ISREG(mine.st_mode)) return -EINVAL;
      if (const int status = file->lock()) return status;
      // Who had it before may have put another file there in the meantime.
      if (stat(path->c_str(), &there) < 0 || there.st_ino != mine.st_ino || there.st_dev != mine.st_dev) continue;
      char* resolved = realpath(path->c_str(), nullptr);
      if (!resolved) return -errno;
      *path = resolved;
      free(resolved);
      *out = std::move(file);
      return 0;
    }
  }

  int create(const std::string& path, const std::string& like, std::unique_ptr<StoreFile>* out) override {
    if (const int status = remove(path)) return status;
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return -errno;
    auto file = std::make_unique<SystemFile>(fd);
    struct stat st;
    if (stat(like.c_str(), &st) == 0 && fchmod(fd, st.st_mode & 07777) < 0) return -errno;
    if (const int status = file->lock()) return status;
    *out = std::move(file);
    return 0;
  }

  int rename(const std::string& from, const std::string& to) override {
    return statusOf(::rename(from.c_str(), to.c_str()));
  }

  int syncFolderOf(const std::string& path) override {
    const int fd = ::open(path.substr(0, path.rfind('/') + 1).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    const int status = statusOf(fsync(fd));
    close(fd);
    return status == -EINVAL ? 0 : status;  // a file system for which there is nothing to do
  }

  int remove(const std::string& path) override { return unlink(path.c_str()) == 0 || errno == ENOENT ? 0 : -errno; }
};

}  // namespace

StoreFiles& StoreFiles::system() {
  static SystemFiles files;
  return files;
}

}  // namespace sm
