#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "devices/registry.h"
#include "native/devices/rig.h"
#include "native/sys/deprive.h"
#include "sys/ring.h"

using namespace sm;
using namespace sm::test;

namespace {

Failure tryOpen(Rig& rig, DeviceSpec spec, std::unique_ptr<Device>* out = nullptr) {
  std::unique_ptr<Device> device;
  if (spec.name.empty()) spec.name = "d0";
  const Failure failure = openDevice(spec, rig.threads, &device);
  CHECK(static_cast<bool>(failure) == (device == nullptr));
  if (failure) {
    CHECK(failure.layer == "device");
    CHECK(failure.device == spec.name);
    CHECK_FALSE(failure.message.empty());
  }
  if (out) *out = std::move(device);
  return failure;
}

int openDescriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& it : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

}  // namespace

TEST_CASE("what cannot be a device is refused with its reason, and nothing stays open") {
  TempFolder folder;
  Rig rig;
  REQUIRE(mkfifo((folder / "fifo").c_str(), 0600) == 0);
  const int before = openDescriptors();
  for (const std::string driver : {"uring", "posix"}) {
    CHECK(tryOpen(rig, {.path = folder / "missing", .driver = driver}).code == "ENOENT");
    for (const std::string& path : {std::string("/tmp"), std::string("/dev/null"), folder / "fifo"}) {
      CAPTURE(path);
      const Failure failure = tryOpen(rig, {.path = path, .driver = driver});
      CHECK(failure.code == "ERR_STRATAMAP_NOT_A_DEVICE");
      CHECK(failure.error == ENOTBLK);
      CHECK(failure.message.find(path) != std::string::npos);
    }
    CHECK(tryOpen(rig, {.path = folder.file("empty", 0), .driver = driver}).code == "ERR_STRATAMAP_SIZE");
    CHECK(tryOpen(rig, {.path = folder.file("tiny", 100), .driver = driver}).code == "ERR_STRATAMAP_SIZE");
  }
  CHECK(tryOpen(rig, {.path = folder.file("image", 4096), .driver = "floppy"}).code == "ERR_STRATAMAP_DRIVER");
  CHECK(tryOpen(rig, {.driver = "null"}).code == "ERR_STRATAMAP_SIZE");
  CHECK(tryOpen(rig, {.driver = "null", .bytes = 1000}).code == "ERR_STRATAMAP_SIZE");
  CHECK(openDescriptors() == before);
}

TEST_CASE("a file in use is refused, by this process and by others, unless it is shared") {
  TempFolder folder;
  Rig rig;
  const std::string file = folder.file("image", 65536);
  for (const std::string driver : {"uring", "posix"}) {
    std::unique_ptr<Device> first, second;
    REQUIRE_FALSE(tryOpen(rig, {.path = file, .driver = driver}, &first));
    const Failure busy = tryOpen(rig, {.path = file, .driver = driver});
    CHECK(busy.code == "ERR_STRATAMAP_BUSY");
    CHECK(busy.error == EBUSY);
    CHECK(busy.message.find("shared") != std::string::npos);
    CHECK(tryOpen(rig, {.path = file, .driver = driver, .readOnly = true}).code == "ERR_STRATAMAP_BUSY");
    REQUIRE_FALSE(tryOpen(rig, {.path = file, .driver = driver, .shared = true}, &second));
    CHECK((second->contract()->flags & SM_DEVICE_SHARED) != 0);
    CHECK(second->facts().shared);
    CHECK(first->contract()->id != second->contract()->id);
    first.reset();
    CHECK_FALSE(tryOpen(rig, {.path = file, .driver = driver}));  // a closed device is free at once
  }
}

TEST_CASE("a block device in use is refused unless it is shared; closed, it is free at once") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  TempFolder folder;
  Loop loop({.file = folder.file("image", 1 << 20), .autoclear = true});
  Rig rig(2);
  for (const std::string driver : {"uring", "posix"}) {
    for (int round = 0; round < 3; ++round) {
      std::unique_ptr<Device> device;
      REQUIRE_FALSE(tryOpen(rig, {.path = loop.device.path, .driver = driver}, &device));
      CHECK(tryOpen(rig, {.path = loop.device.path, .driver = driver}).code == "ERR_STRATAMAP_BUSY");
      CHECK_FALSE(tryOpen(rig, {.path = loop.device.path, .driver = driver, .shared = true}));
      CHECK(open(loop.device.path.c_str(), O_RDONLY | O_EXCL) == -1);
      Memory memory(4096);
      CHECK(rig.read(device->contract(), 0, memory.data(), 4096) == 0);
      device.reset();
      const int fd = open(loop.device.path.c_str(), O_RDONLY | O_EXCL);
      CHECK(fd >= 0);
      close(fd);
    }
  }
}

TEST_CASE("a read-only block device needs readOnly") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  TempFolder folder;
  Loop loop({.file = folder.file("image", 65536), .readOnly = true, .autoclear = true});
  Rig rig;
  const Failure failure = tryOpen(rig, {.path = loop.device.path});
  CHECK((failure.error == EACCES || failure.error == EROFS));
  CHECK(failure.message.find("readOnly") != std::string::npos);
  CHECK_FALSE(tryOpen(rig, {.path = loop.device.path, .readOnly = true}));
}

TEST_CASE("the end of a file that is less than a block is left alone, and that is said") {
  TempFolder folder;
  Rig rig;
  const std::string file = folder.file("image", 8192 + 100);
  for (const std::string driver : {"uring", "posix"}) {
    std::unique_ptr<Device> device;
    REQUIRE_FALSE(tryOpen(rig, {.path = file, .driver = driver}, &device));
    const DeviceFacts& facts = device->facts();
    CHECK(facts.bytes == 8192);
    REQUIRE(facts.notices.size() >= 1);
    CHECK(facts.notices[0].find("100 bytes") != std::string::npos);
    Memory memory(8192);
    std::memset(memory.data(), 1, 8192);
    CHECK(rig.write(device->contract(), 0, memory.data(), 8192) == 0);
    CHECK(rig.write(device->contract(), 8192, memory.data(), facts.blockSize) == -ENOSPC);
    CHECK((readFile(file) == std::string(8192, 1) + std::string(100, '\xEE')));
  }
}

namespace {

// A file system of the kernel's, mounted for a moment.
class Mount {
 public:
  Mount(const char* type, const std::string& path) : path_(path) {
    std::filesystem::create_directory(path);
    if (mount("none", path.c_str(), type, 0, nullptr) != 0) error_ = errno;
  }
  ~Mount() {
    if (!error_) umount(path_.c_str());
  }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  int error() const { return error_; }

 private:
  const std::string path_;
  int error_ = 0;
};

}  // namespace

TEST_CASE("file systems without O_DIRECT, ZERO_RANGE or holes are served all the same, and that is said") {
  TempFolder folder;
  for (const char* type : {"tmpfs", "ramfs"}) {
    CAPTURE(type);
    Mount mount(type, folder / type);
    if (mount.error()) SM_SKIP("mount " << type << ": " << std::strerror(mount.error()));
    const bool holes = std::string(type) == "tmpfs";
    const std::string file = folder.file(std::string(type) + "/image", 4 << 20);
    Rig rig;
    for (const std::string driver : {"uring", "posix"}) {
      std::unique_ptr<Device> device;
      REQUIRE_FALSE(tryOpen(rig, {.path = file, .driver = driver}, &device));
      sm_device* d = device->contract();
      const DeviceFacts& facts = device->facts();
      CHECK(facts.direct == facts.notices.empty());
      CHECK(facts.discard == holes);
      CHECK(((d->flags & SM_DEVICE_DISCARD) != 0) == holes);
      std::string expected(4 << 20, 9);
      for (uint64_t at = 0; at < expected.size(); at += 1 << 20) {
        Memory memory(1 << 20, 3);
        std::memset(memory.data(), 9, 1 << 20);
        REQUIRE(rig.write(d, at, memory.data(), 1 << 20) == 0);
      }
      const uint64_t k = facts.blockSize;
      CHECK(rig.ranged(d, SM_OP_WRITE_ZEROES, k, 3 << 20, SM_FLAG_FUA) == 0);
      expected.replace(k, 3 << 20, 3 << 20, 0);
      CHECK(rig.ranged(d, SM_OP_DISCARD, (3 << 20) + 16 * k, 4 * k) == 0);
      if (holes) expected.replace((3 << 20) + 16 * k, 4 * k, 4 * k, 0);
      CHECK((readFile(file) == expected));
    }
  }
}

TEST_CASE("drivers are found by name") {
  CHECK(deviceDriverNames() == std::vector<std::string>{"uring", "posix", "null", "recording", "nbd"});
  CHECK(findDriver("null") != nullptr);
  CHECK(findDriver("") == nullptr);
}

TEST_CASE("where io_uring is refused, posix serves and says so") {
  TempFolder folder;
  const std::string file = folder.file("image", 1 << 20);
  const int result = inChild([&] {
    if (!refuseUring()) return 99;
    Rig rig;
    std::unique_ptr<Device> device;
    if (openDevice({.name = "d", .path = file, .driver = "uring"}, rig.threads, &device)) return 1;
    if (device->facts().driver != "posix") return 2;
    if (rig.threads[0]->whyNoRing().empty()) return 3;
    Memory memory(4096, 1);
    std::memset(memory.data(), 7, 4096);
    if (rig.write(device->contract(), 8192, memory.data(), 4096) != 0) return 4;
    std::memset(memory.data(), 0, 4096);
    if (rig.read(device->contract(), 8192, memory.data(), 4096) != 0) return 5;
    return memory.data()[0] == 7 && memory.data()[4095] == 7 ? 0 : 6;
  });
  if (result == 99) SM_SKIP("no seccomp");
  CHECK(result == 0);
  CHECK(readFile(file).substr(8192, 4096) == std::string(4096, 7));
}

TEST_CASE("with too little locked memory uring serves, unregistered") {
  TempFolder folder;
  const std::string file = folder.file("image", 1 << 20);
  const int result = inChild([&] {
    if (!limitLockedMemory(1 << 20)) return 99;
    Rig rig;
    if (!rig.threads[0]->ring()) return 99;
    if (rig.threads[0]->buffersRegistered()) return 1;
    std::unique_ptr<Device> device;
    if (openDevice({.name = "d", .path = file, .driver = "uring"}, rig.threads, &device)) return 2;
    if (device->facts().driver != "uring") return 3;
    void* data = nullptr;
    uint64_t capacity;
    rig.on(0, [&] { rig.threads[0]->buffers().get(65536, &data, &capacity); });
    std::memset(data, 7, 65536);
    std::vector<TestIo> ios(1000, {.op = SM_OP_WRITE, .length = 4096});
    for (size_t i = 0; i < ios.size(); ++i) {
      ios[i].offset = i % 16 * 4096;
      ios[i].iov = {{static_cast<char*>(data) + ios[i].offset, 4096}};
    }
    rig.run(device->contract(), ios);
    for (const TestIo& io : ios) {
      if (io.status != 0 || io.completions != 1) return 4;
    }
    rig.on(0, [&] { rig.threads[0]->buffers().put(data); });
    return 0;
  });
  if (result == 99) SM_SKIP("no io_uring, or locked memory cannot be limited");
  CHECK(result == 0);
  CHECK(readFile(file).substr(0, 65536) == std::string(65536, 7));
}
