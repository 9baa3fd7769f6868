// What the tests of files and devices share: a folder that goes away, loop devices that go away, children.
#pragma once

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "sys/loop.h"

// Ends the test case, saying why it cannot run here.
#define SM_SKIP(reason)             \
  do {                              \
    MESSAGE("skipped: " << reason); \
    return;                         \
  } while (0)

namespace sm::test {

class TempFolder {
 public:
  explicit TempFolder(const std::string& base = "/tmp") : path_(base + "/stratamap-test-XXXXXX") {
    REQUIRE(mkdtemp(path_.data()) != nullptr);
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // A file of `bytes`, all 0xEE: neither zeroes nor what tests write.
  std::string file(const std::string& name, uint64_t bytes) const {
    std::ofstream(*this / name, std::ios::binary) << std::string(bytes, '\xEE');
    return *this / name;
  }

 private:
  std::string path_;
};

inline std::string readFile(const std::string& path) {
  std::string bytes(std::filesystem::file_size(path), 0);
  std::ifstream(path, std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

inline bool canLoop(std::string* why) {
  if (access("/dev/loop-control", R_OK | W_OK) == 0) return true;
  *why = "no access to /dev/loop-control";
  return false;
}

class Loop {
 public:
  explicit Loop(const LoopOptions& options) {
    std::string what;
    const int result = loopAttach(options, &device, &what);
    INFO(what);
    REQUIRE(result == 0);
  }
  ~Loop() {
    std::string what;
    if (device.number >= 0 && loopDetach(&device, &what) != 0) FAIL_CHECK(what);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  LoopDevice device;
};

// Runs `run` in a child of this process and returns what it returned; for what cannot be undone in a process. doctest's
// checks do not reach the parent: the child says what is wrong by a number.
template <typename Run>
int inChild(Run run) {
  std::fflush(nullptr);  // or the child's end writes it again
  const pid_t child = fork();
  if (child == 0) _exit(run());
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

}  // namespace sm::test
