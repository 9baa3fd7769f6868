#include "intercept/kernel/block_chain.h"

#include <fcntl.h>
#include <linux/stat.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace sm {

namespace {

constexpr int kMostLevels = 8;
constexpr uint64_t kUsualTimeout = 30'000'000'000;  // ns

std::string sysfsOf(dev_t device) {
  return "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
}

bool readLine(const std::string& path, std::string* out) {
  return bool(std::getline(std::ifstream(path) >> std::ws, *out));
}

// Spaces and such are octal in the mount table.
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned code = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 4], code, 8).ptr == &text[i + 4]) {
      out += static_cast<char>(code);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x00001000U
#endif

int mountOf(const std::string& file, MountEntry* out) {
  struct {
    uint32_t mask;
    uint8_t before[140];  // up to stx_mnt_id at byte 144
    uint64_t mount;
    uint8_t after[104];
  } raw{};
  static_assert(sizeof raw == 256);
  if (syscall(SYS_statx, AT_FDCWD, file.c_str(), 0, STATX_MNT_ID, &raw) != 0) return -errno;
  if (!(raw.mask & STATX_MNT_ID)) return -EOPNOTSUPP;
  std::ifstream table("/proc/self/mountinfo");
  for (std::string line; std::getline(table, line);) {
    if (parseMountEntry(line, out) && out->id == raw.mount) return 0;
  }
  return -ENOENT;
}

// The disk that a partition is part of.
dev_t wholeOf(dev_t device) {
  unsigned large, small;
  char colon;
  if (!std::ifstream(sysfsOf(device) + "/partition")) return device;
  std::ifstream parent(sysfsOf(device) + "/../dev");
  return parent >> large >> colon >> small ? makedev(large, small) : device;
}

std::string nodeOf(dev_t device) {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(sysfsOf(device), error);
  std::string name = target.filename().string();
  std::replace(name.begin(), name.end(), '!', '/');  // sysfs cannot have a slash in a name
  return "/dev/" + name;
}

// How many devices a btrfs lies on.
size_t devicesOfBtrfs(dev_t device) {
  std::error_code error;
  const std::string name = std::filesystem::path(nodeOf(device)).filename().string();
  for (const auto& system : std::filesystem::directory_iterator("/sys/fs/btrfs", error)) {
    const auto devices = system.path() / "devices";
    if (!std::filesystem::exists(devices / name, error)) continue;
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(devices, error), {}));
  }
  return 1;
}

// The device on which the file system of `file` lies, a partition as it is.
int deviceUnder(const std::string& file, dev_t* device, std::string* fileSystem, std::string* why) {
  MountEntry mount;
  if (const int error = mountOf(file, &mount)) {
    *why = "the mount of " + file + " is not found: " + std::strerror(-error);
    return error;
  }
  struct stat st;
  *fileSystem = mount.type;
  if (stat(mount.source.c_str(), &st) == 0 && S_ISBLK(st.st_mode)) {
    *device = st.st_rdev;
  } else if (stat(file.c_str(), &st) == 0 && major(st.st_dev) != 0) {
    *device = st.st_dev;
  } else {
    *why = file + " lies on " + mount.type + ", which has no block device";
    return -ENOTBLK;
  }
  if (mount.type == "btrfs" && devicesOfBtrfs(*device) > 1) {
    *why = file + " lies on a btrfs of several devices, which is not observed";
    return -EOPNOTSUPP;
  }
  return 0;
}

}  // namespace

bool parseMountEntry(const std::string& line, MountEntry* out) {
  std::istringstream words(line);
  std::string word;
  if (!(words >> out->id)) return false;
  while (words >> word && word != "-") {
  }
  if (!(words >> out->type >> out->source)) return false;
  out->source = unescaped(out->source);
  return true;
}

int findBlockChain(const std::string& file, BlockChain* out, std::string* why) {
  *out = {};
  dev_t device = 0;
  std::string below = file, fileSystem;
  if (const int error = deviceUnder(file, &device, &fileSystem, why)) return error;
  for (;;) {
    const dev_t whole = wholeOf(device);
    for (const BlockLevel& level : out->levels) {
      if (level.device != whole) continue;
      out->ends = level.path + " is beneath itself";
      return 0;
    }
    const std::string node = nodeOf(whole);
    out->levels.push_back({whole, node, fileSystem});
    if (out->levels.size() == kMostLevels) {
      out->ends = "there are more than " + std::to_string(kMostLevels) + " devices beneath each other";
      return 0;
    }
    const std::string loop = sysfsOf(whole) + "/loop/";
    std::string direct;
    if (!readLine(loop + "backing_file", &below)) {
      out->ends = node + " is no loop device";
      return 0;
    }
    struct stat st;
    if (stat(below.c_str(), &st) != 0) {
      out->ends = below + ", the backing file of " + node + ", is out of reach: " + std::strerror(errno);
      return 0;
    }
    if (!readLine(loop + "dio", &direct) || direct != "1") {
      out->ends = node + " does its I/O through the page cache, which keeps no priorities: losetup --direct-io=on";
      return 0;
    }
    if (S_ISBLK(st.st_mode)) {
      device = st.st_rdev;
      fileSystem = "loop";
    } else if (deviceUnder(below, &device, &fileSystem, &out->ends) != 0) {
      return 0;
    }
  }
}

bool requestsInFlight(dev_t device, uint64_t* count) {
  unsigned counted = 0;
  // Only what is accounted is counted.
  if (!(std::ifstream(sysfsOf(device) + "/queue/iostats") >> counted) || counted == 0) return false;
  std::ifstream fields(sysfsOf(device) + "/stat");
  for (int field = 1; field <= 9; ++field) fields >> *count;
  return bool(fields);
}

bool mergesDiscards(dev_t device) {
  unsigned segments;
  return !(std::ifstream(sysfsOf(device) + "/queue/max_discard_segments") >> segments) || segments > 1;
}

uint64_t requestTimeout(dev_t device) {
  uint64_t ms;
  return std::ifstream(sysfsOf(device) + "/queue/io_timeout") >> ms ? ms * 1'000'000 : kUsualTimeout;
}

}  // namespace sm
