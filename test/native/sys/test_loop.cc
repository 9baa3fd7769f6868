#include <fcntl.h>

#include <filesystem>
#include <set>
#include <thread>

#include "native/sys/temp.h"
#include "sys/block.h"

using namespace sm;
using namespace sm::test;

namespace {

std::string sysfs(const LoopDevice& device, const char* name) {
  std::string text;
  std::ifstream("/sys/block/loop" + std::to_string(device.number) + "/" + name) >> text;
  return text;
}

bool bound(int number) { return std::filesystem::exists("/sys/block/loop" + std::to_string(number) + "/loop"); }

}  // namespace

TEST_CASE("a loop device carries its file, as asked for") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  TempFolder folder;
  for (const uint32_t blockSize : {512u, 4096u}) {
    for (const bool direct : {false, true}) {
      CAPTURE(blockSize);
      CAPTURE(direct);
      const std::string file = folder.file("image", 1 << 20);
      Loop loop({.file = file, .directIo = direct, .blockSize = blockSize});
      CHECK(loop.device.path == "/dev/loop" + std::to_string(loop.device.number));
      CHECK(loop.device.directIo == (sysfs(loop.device, "loop/dio") == "1"));
      if (!direct) CHECK_FALSE(loop.device.directIo);
      CHECK(sysfs(loop.device, "loop/backing_file") == file);
      CHECK(sysfs(loop.device, "queue/logical_block_size") == std::to_string(blockSize));
      const int fd = open(loop.device.path.c_str(), O_RDWR | O_CLOEXEC);
      REQUIRE(fd >= 0);
      BlockFacts facts;
      REQUIRE(blockFacts(fd, &facts) == 0);
      CHECK(facts.kind == BlockKind::kBlockDevice);
      CHECK(facts.bytes == 1 << 20);
      CHECK(facts.blockSize == blockSize);
      CHECK(facts.discard == (sysfs(loop.device, "queue/discard_max_bytes") != "0"));
      CHECK(facts.direct);
      CHECK_FALSE(facts.readOnly);
      CHECK(pwrite(fd, "through", 7, 4096) == 7);
      CHECK(fsync(fd) == 0);
      close(fd);
      CHECK(readFile(file).substr(4096, 7) == "through");
    }
  }
}

TEST_CASE("a read-only loop device refuses writes") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  TempFolder folder;
  Loop loop({.file = folder.file("image", 65536), .readOnly = true});
  CHECK(sysfs(loop.device, "ro") == "1");
  const int fd = open(loop.device.path.c_str(), O_RDONLY | O_CLOEXEC);
  BlockFacts facts;
  REQUIRE(blockFacts(fd, &facts) == 0);
  CHECK(facts.readOnly);
  close(fd);
}

TEST_CASE("a device with autoclear goes away with its holder") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  TempFolder folder;
  const std::string file = folder.file("image", 65536);
  LoopDevice abandoned;
  std::string what;
  REQUIRE(loopAttach({.file = file, .autoclear = true}, &abandoned, &what) == 0);
  REQUIRE(abandoned.fd >= 0);
  CHECK(sysfs(abandoned, "loop/autoclear") == "1");
  close(abandoned.fd);
  for (int i = 0; i < 1000 && bound(abandoned.number); ++i) usleep(5000);
  CHECK_FALSE(bound(abandoned.number));

  Loop held({.file = file, .autoclear = true});
  const int number = held.device.number;
  CHECK(loopDetach(&held.device, &what) == 0);
  CHECK(held.device.fd == -1);
  CHECK_FALSE(bound(number));
}

TEST_CASE("a device that someone has open is not detached, and stays as it was") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  TempFolder folder;
  for (const int flags : {O_RDONLY, O_RDONLY | O_EXCL}) {
    for (const bool autoclear : {false, true}) {
      CAPTURE(autoclear);
      Loop loop({.file = folder.file("image", 65536), .autoclear = autoclear});
      const int number = loop.device.number;
      const int user = open(loop.device.path.c_str(), flags | O_CLOEXEC);
      REQUIRE(user >= 0);
      std::string what;
      CHECK(loopDetach(&loop.device, &what) == -EBUSY);
      CHECK(what.find(loop.device.path) != std::string::npos);
      CHECK(bound(number));
      CHECK(sysfs(loop.device, "loop/autoclear") == (autoclear ? "1" : "0"));
      close(user);
      if (!autoclear) CHECK(bound(number));  // no lazy detaching was left behind
      CHECK(loopDetach(&loop.device, &what) == 0);
      CHECK_FALSE(bound(number));
    }
  }
}

TEST_CASE("many attach at once, and each gets a device of its own") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  TempFolder folder;
  constexpr int kThreads = 4, kEach = 4;
  std::vector<LoopDevice> devices(kThreads * kEach);
  std::vector<int> results(devices.size(), 1);
  for (size_t i = 0; i < devices.size(); ++i) folder.file("image" + std::to_string(i), 65536);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = t * kEach; i < (t + 1) * kEach; ++i) {
        std::string what;
        results[i] = loopAttach({.file = folder / ("image" + std::to_string(i))}, &devices[i], &what);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<int> numbers;
  for (size_t i = 0; i < devices.size(); ++i) {
    CHECK(results[i] == 0);
    if (results[i] != 0) continue;
    CHECK(sysfs(devices[i], "loop/backing_file") == folder / ("image" + std::to_string(i)));
    numbers.insert(devices[i].number);
    std::string what;
    CHECK(loopDetach(&devices[i], &what) == 0);
  }
  CHECK(numbers.size() == devices.size());
}

TEST_CASE("what cannot be attached or detached says so") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  TempFolder folder;
  LoopDevice device;
  std::string what;
  CHECK(loopAttach({.file = folder / "missing"}, &device, &what) == -ENOENT);
  CHECK(what.find(folder / "missing") != std::string::npos);
  CHECK(loopAttach({.file = folder.file("image", 65536), .blockSize = 1000}, &device, &what) == -EINVAL);
  CHECK(device.number == -1);
  REQUIRE(loopAttach({.file = folder / "image"}, &device, &what) == 0);
  LoopDevice again = device;
  LoopDevice third = device;
  CHECK(loopDetach(&device, &what) == 0);
  CHECK(loopDetach(&device, &what) == 0);
  CHECK(loopDetach(&again, &what) == -ENXIO);

  // The number may be another file's by now; that one stays.
  Loop other({.file = folder.file("other", 65536)});
  third.path = other.device.path;
  third.number = other.device.number;
  CHECK(loopDetach(&third, &what) == -ENXIO);
  CHECK(bound(other.device.number));
}

TEST_CASE("kinds of paths") {
  TempFolder folder;
  BlockKind kind;
  CHECK(blockKind((folder / "missing").c_str(), &kind) == -ENOENT);
  REQUIRE(blockKind(folder.file("plain", 5000).c_str(), &kind) == 0);
  CHECK(kind == BlockKind::kRegularFile);
  REQUIRE(blockKind("/dev/null", &kind) == 0);
  CHECK(kind == BlockKind::kOther);
  REQUIRE(blockKind("/tmp", &kind) == 0);
  CHECK(kind == BlockKind::kOther);
  const int fd = open((folder / "plain").c_str(), O_RDWR | O_CLOEXEC);
  BlockFacts facts;
  REQUIRE(blockFacts(fd, &facts) == 0);
  CHECK(facts.kind == BlockKind::kRegularFile);
  CHECK(facts.bytes == 5000);
  CHECK(facts.blockSize == 512);
  CHECK((facts.memoryAlign & (facts.memoryAlign - 1)) == 0);
  CHECK((facts.offsetAlign & (facts.offsetAlign - 1)) == 0);
  close(fd);
}
