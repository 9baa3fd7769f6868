// An ext4 file system on a loop device, mounted in a folder; all of it goes away with the object.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "support.h"

namespace sm::test {

class Mounted {
 public:
  // `bytes` of it, with further arguments of mkfs.ext4, on a loop device with such sectors, mounted with such options.
  explicit Mounted(uint64_t bytes, const std::vector<std::string>& arguments = {}, uint32_t sector = 512,
                   const char* options = nullptr)
      : loop_(folder_.file("image", bytes), sector) {
    if (!loop_.attached) {
      why = loop_.why;
      return;
    }
    std::vector<std::string> all{"mkfs.ext4", "-q", "-F"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    all.push_back(loop_.path);
    if (!run(all)) {
      why = "mkfs.ext4 is missing, or fails";
      return;
    }
    const std::string point = folder_.path + "/mnt";
    if (mkdir(point.c_str(), 0700) != 0 || mount(loop_.path.c_str(), point.c_str(), "ext4", 0, options) != 0) {
      why = "cannot mount " + loop_.path + ": " + std::strerror(errno);
      return;
    }
    path = point;
  }
  ~Mounted() {
    if (!path.empty() && umount2(path.c_str(), 0) != 0) umount2(path.c_str(), MNT_DETACH);
  }
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;

  std::string path, why;  // where it is mounted; empty: nowhere, and why

 private:
  static bool run(const std::vector<std::string>& arguments) {
    std::vector<char*> list;
    for (const std::string& each : arguments) list.push_back(const_cast<char*>(each.c_str()));
    list.push_back(nullptr);
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    for (int fd : {STDOUT_FILENO, STDERR_FILENO})
      posix_spawn_file_actions_addopen(&quiet, fd, "/dev/null", O_WRONLY, 0);
    pid_t child;
    int status = posix_spawnp(&child, list[0], &quiet, nullptr, list.data(), environ);
    posix_spawn_file_actions_destroy(&quiet);
    if (status != 0) return false;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return status == 0;
  }

  TempFolder folder_{memoryFolder()};
  Loop loop_;
};

}  // namespace sm::test
