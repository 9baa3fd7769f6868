// A volume `kernel` in a directory, on the disk and on file systems of our own on loop devices.
#pragma once

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "mounted.h"
#include "stack_of.h"

namespace sm::test {

constexpr uint64_t kImageBytes = 4 << 20;

inline std::string readFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline struct stat factsOf(const std::string& path) {
  struct stat facts {};
  CHECK(lstat(path.c_str(), &facts) == 0);
  return facts;
}

inline bool exists(const std::string& path) {
  struct stat facts;
  return lstat(path.c_str(), &facts) == 0;
}

inline uint64_t allocated(const std::string& path) { return static_cast<uint64_t>(factsOf(path).st_blocks) * 512; }

struct DirectoryRig {
  explicit DirectoryRig(const std::string& where, Options options = {}, const std::string& type = "kernel",
                        bool uring = true)
      : directory(where), host(openHost({.uring = uring})) {
    REQUIRE_OK(host->formatVolume(type, {}, {}, false));
    options.emplace_back("directory", where);
    REQUIRE_OK(host->openVolume("v", type, {}, options, &volume));
  }

  VirtualDisk* create(const std::string& vm, const std::string& name, uint64_t bytes = kImageBytes) {
    VirtualDisk* disk = nullptr;
    REQUIRE_OK(volume->createDisk(vm, name, bytes, &disk));
    return disk;
  }
  std::string image(const std::string& vm, const std::string& name) const {
    return directory + "/" + vm + "/" + name + ".img";
  }
  std::vector<std::string> list() {
    std::vector<DiskInfo> found;
    REQUIRE_OK(volume->listDisks(&found));
    std::vector<std::string> names;
    for (const DiskInfo& each : found) names.push_back(each.vm + "/" + each.name + " " + std::to_string(each.bytes));
    return names;
  }
  bool told(const std::string& what) const {
    const auto notices = host->notices();
    return std::any_of(notices.begin(), notices.end(),
                       [&](const std::string& notice) { return notice.find(what) != std::string::npos; });
  }

  const std::string directory;
  std::unique_ptr<Host> host;
  Volume* volume = nullptr;
};

// Memory as direct I/O takes it.
struct Pages {
  explicit Pages(size_t bytes, char fill = 0) : size(bytes), data(static_cast<char*>(aligned_alloc(4096, bytes))) {
    std::memset(data, fill, bytes);
  }
  ~Pages() { free(data); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  bool all(char byte) const {
    return std::all_of(data, data + size, [&](char each) { return each == byte; });
  }
  const size_t size;
  char* const data;
};

// Each with a directory: on the disk, and on ext4 over loop devices of either sector size, where they can be had.
template <typename Test>
void inDirectories(Test test) {
  {
    TempFolder folder;
    test(folder.path);
  }
  for (uint32_t sector : {512u, 4096u}) {
    Mounted ext4(48 << 20, {}, sector);
    if (ext4.path.empty()) {
      MESSAGE("partly skipped: " << ext4.why);
      return;
    }
    CAPTURE(sector);
    test(ext4.path);
  }
}

}  // namespace sm::test
