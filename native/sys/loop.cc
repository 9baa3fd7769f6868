#include "sys/loop.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

namespace sm {

namespace {

constexpr char kControl[] = "/dev/loop-control";
constexpr int kLoopMajor = 7;
constexpr int kAttempts = 64;  // free devices that others may take from under us
// udev and blkid open a device for a moment when it appears or changes: only who stays longer has it open.
constexpr auto kPatience = std::chrono::seconds(1);
constexpr auto kNap = std::chrono::milliseconds(5);

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() { close(); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  void reset(int fd) {
    close();
    fd_ = fd;
  }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int failed(int error, const std::string& step, const char* advice, std::string* what) {
  *what = step + ": " + std::strerror(error);
  if (*advice) *what += std::string("; ") + advice;
  return -error;
}

std::string devicePath(int number) { return "/dev/loop" + std::to_string(number); }

// In a container, /dev need not have the nodes that the kernel makes.
int ensureNode(const std::string& path, int number) {
  struct stat st;
  if (stat(path.c_str(), &st) == 0) return 0;
  if (mknod(path.c_str(), S_IFBLK | 0660, makedev(kLoopMajor, number)) == 0 || errno == EEXIST) return 0;
  return errno;
}

enum class Try { kDone, kTaken, kFailed };

// Binds the file to one free device; kTaken: another process was faster.
Try configure(const LoopOptions& options, int file, const std::string& path, LoopDevice* out, int* error,
              std::string* what) {
  Fd device(open(path.c_str(), (options.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (device.get() < 0) {
    if (errno == ENXIO || errno == ENODEV || errno == EBUSY) return Try::kTaken;
    *error = failed(errno, "open " + path, "loop devices need root", what);
    return Try::kFailed;
  }
  loop_config config{};
  config.fd = file;
  config.block_size = options.blockSize;
  std::strncpy(reinterpret_cast<char*>(config.info.lo_file_name), options.file.c_str(), LO_NAME_SIZE - 1);
  if (options.directIo) config.info.lo_flags |= LO_FLAGS_DIRECT_IO;
  if (options.readOnly) config.info.lo_flags |= LO_FLAGS_READ_ONLY;
  if (options.autoclear) config.info.lo_flags |= LO_FLAGS_AUTOCLEAR;
  if (ioctl(device.get(), LOOP_CONFIGURE, &config) != 0) {
    if (errno == EBUSY) return Try::kTaken;
    const char* advice =
        errno == EINVAL ? "LOOP_CONFIGURE needs Linux 5.8, and a block size that the file supports" : "";
    *error = failed(errno, "attach " + options.file + " to " + path, advice, what);
    return Try::kFailed;
  }
  loop_info64 info{};
  if (ioctl(device.get(), LOOP_GET_STATUS64, &info) == 0) {
    out->directIo = info.lo_flags & LO_FLAGS_DIRECT_IO;
    out->backingDevice = info.lo_device;
    out->backingInode = info.lo_inode;
  }
  out->path = path;
  out->fd = options.autoclear ? device.release() : -1;
  return Try::kDone;
}

// Whether the backing file that `before` names is no longer on the device.
bool isFree(const std::string& path, const loop_info64& before) {
  Fd device(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (device.get() < 0) return errno == ENXIO || errno == ENOENT;
  loop_info64 info{};
  if (ioctl(device.get(), LOOP_GET_STATUS64, &info) != 0) return true;
  return info.lo_device != before.lo_device || info.lo_inode != before.lo_inode;
}

template <typename Ready>
bool within(std::chrono::steady_clock::time_point deadline, Ready ready) {
  while (!ready()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kNap);
  }
  return true;
}

// Asks the kernel once to detach. LOOP_CLR_FD on a device that others have open succeeds too, but only sets autoclear,
// which is then taken back. Exclusive holders are seen before, by O_EXCL.
int clearOnce(LoopDevice* device, loop_info64* info, std::string* what) {
  Fd exclusive(open(device->path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  if (exclusive.get() < 0) return failed(errno, "open " + device->path, "close what uses it, then detach", what);
  const bool held = device->fd >= 0;
  const int fd = held ? device->fd : exclusive.get();
  const char* gone = "someone else has detached it already";
  if (ioctl(fd, LOOP_GET_STATUS64, info) != 0) return failed(errno, "status of " + device->path, gone, what);
  if (info->lo_device != device->backingDevice || info->lo_inode != device->backingInode) {
    return failed(ENXIO, "detach " + device->path, gone, what);  // the device is another file's by now
  }
  if (held) exclusive.close();  // so that ours is the only one left
  if (ioctl(fd, LOOP_CLR_FD, 0) != 0) return failed(errno, "LOOP_CLR_FD on " + device->path, "", what);
  loop_info64 after{};
  if (ioctl(fd, LOOP_GET_STATUS64, &after) != 0) return 0;  // ENXIO: being taken down
  if (!(info->lo_flags & LO_FLAGS_AUTOCLEAR)) {
    after.lo_flags &= ~LO_FLAGS_AUTOCLEAR;
    ioctl(fd, LOOP_SET_STATUS64, &after);
  }
  return failed(EBUSY, "detach " + device->path, "someone has it open: close what uses it, then detach", what);
}

}  // namespace

int loopAttach(const LoopOptions& options, LoopDevice* out, std::string* what) {
  *out = {};
  Fd file(open(options.file.c_str(), (options.readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (file.get() < 0) return failed(errno, "open " + options.file, "", what);
  Fd control(open(kControl, O_RDWR | O_CLOEXEC));
  if (control.get() < 0) return failed(errno, std::string("open ") + kControl, "loop devices need root", what);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return failed(errno, "LOOP_CTL_GET_FREE", "", what);
    const std::string path = devicePath(number);
    if (const int error = ensureNode(path, number))
      return failed(error, "mknod " + path, "loop devices need root", what);
    int error = 0;
    switch (configure(options, file.get(), path, out, &error, what)) {
      case Try::kDone:
        out->number = number;
        return 0;
      case Try::kFailed:
        return error;
      case Try::kTaken:
        break;
    }
  }
  return failed(EBUSY, "find a free loop device", "others take them as fast as they appear; try again", what);
}

int loopDetach(LoopDevice* device, std::string* what) {
  if (device->number < 0) return 0;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  loop_info64 info{};
  int result = 0;
  within(deadline, [&] { return (result = clearOnce(device, &info, what)) != -EBUSY; });
  if (result != 0 && result != -ENXIO) return result;
  if (device->fd >= 0) close(std::exchange(device->fd, -1));
  if (result == -ENXIO) {
    device->number = -1;
    return result;
  }
  if (!within(deadline, [&] { return isFree(device->path, info); })) {
    return failed(EBUSY, "wait until " + device->path + " is free", "someone opened it meanwhile", what);
  }
  device->number = -1;
  return 0;
}

}  // namespace sm
