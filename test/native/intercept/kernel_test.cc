// The association `hint` on a real stack of the kernel's: a file system on a loop device on a file system on a loop
// device. What is mapped is read back from both devices, past every layer, and compared.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "host.h"
#include "intercept/kernel/block_chain.h"
#include "intercept/kernel/hint_ranges.h"
#include "intercept/probe.h"
#include "native/host/support.h"
#include "native/intercept/may_observe.h"
#include "native/sanitized.h"

namespace {

using namespace sm;
using namespace sm::test;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSecond = 1'000'000'000;

int run(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()); }

// A file system of `type` on a loop device over `file`, mounted in a folder.
struct Mounted {
  Mounted(const std::string& file, const std::string& make, const char* type, const std::string& folder)
      : loop(file), folder(folder) {
    REQUIRE_MESSAGE(loop.attached, loop.why);
    REQUIRE(run(make + " " + loop.path) == 0);
    std::filesystem::create_directory(folder);
    REQUIRE(mount(loop.path.c_str(), folder.c_str(), type, 0, nullptr) == 0);
  }
  ~Mounted() { umount(folder.c_str()); }
  Loop loop;
  std::string folder;
};

// An image file with more extents than one: pieces of it are allocated in turns with another's. Written all over, so
// that no file system has to lay zeroes around what is written first.
void makeImage(const std::string& path, uint64_t bytes, uint64_t piece) {
  const int fd = open(path.c_str(), O_CREAT | O_RDWR, 0600);
  const int other = open((path + ".other").c_str(), O_CREAT | O_RDWR, 0600);
  REQUIRE((fd >= 0 && other >= 0));
  REQUIRE(ftruncate(fd, static_cast<off_t>(bytes)) == 0);
  for (uint64_t at = 0; piece > 0 && at < bytes; at += piece) {
    REQUIRE(fallocate(fd, 0, static_cast<off_t>(at), static_cast<off_t>(piece)) == 0);
    REQUIRE(fallocate(other, 0, static_cast<off_t>(at), static_cast<off_t>(piece)) == 0);
  }
  const std::vector<char> zeroes(kMiB);
  for (uint64_t at = 0; at < bytes; at += kMiB)
    REQUIRE(pwrite(fd, zeroes.data(), kMiB, static_cast<off_t>(at)) == kMiB);
  fsync(fd);
  close(fd);
  close(other);
}

bool possible(std::string* why) {
  for (const char* tool : {"mkfs.ext4", "mkfs.xfs"}) {
    if (run(std::string("command -v ") + tool) == 0) continue;
    *why = std::string(tool) + " is missing";
    return false;
  }
  return mayObserve(why);
}

struct Stack {
  TempFolder memory{memoryFolder()}, folder;
  Mounted lower, upper;
  std::unique_ptr<Host> host;
  Volume* volume = nullptr;
  VirtualDisk* disk = nullptr;
  std::shared_ptr<AddressMap> map = std::make_shared<AddressMap>();
  std::unique_ptr<Probe> probe;
  std::string image;

  Stack(const char* type, const std::string& make, uint64_t piece = 0)
      : lower(memory.file("bottom", 800 * kMiB), "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0", "ext4",
              folder.path + "/lower"),
        upper(backing(), make, type, folder.path + "/upper"),
        image(upper.folder + "/image") {
    makeImage(image, 64 * kMiB, piece);
    sync();
    REQUIRE_FALSE(Host::open({}, &host));
    DeviceOptions options;
    options.name = "file";
    options.path = image;
    sm_device* device = nullptr;
    REQUIRE_FALSE(host->openDevice(options, &device));
    REQUIRE_FALSE(host->openVolume("v0", "nbd", {device}, {}, &volume));
    REQUIRE_FALSE(volume->createDisk("vm", "vda", 64 * kMiB, &disk));
  }
  ~Stack() {
    if (probe) CHECK(probe->detach(10 * kSecond) == 0);
    probe.reset();
    CHECK_FALSE(host->close());
    host.reset();
  }
  std::string backing() {
    const std::string path = lower.folder + "/backing";
    makeImage(path, 320 * kMiB, 256 << 10);
    std::filesystem::remove(path + ".other");
    return path;
  }
  void attach(uint64_t maxAge = 0) {
    ProbeOptions options;
    options.maxAge = maxAge;
    options.association = "hint";
    options.fileOf = [this](const sm_disk*) { return image; };
    std::string why;
    REQUIRE_MESSAGE(Probe::create(host->stack(), map, options, &probe, &why) == 0, why);
    REQUIRE(probe->addDisk(disk->contract()) == 0);
    probe->begin();
    for (int i = 0; i < 500 && !probe->learning(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    for (const std::string& notice : probe->notices()) MESSAGE(notice);
    REQUIRE(probe->learning());
  }
  // What is mapped on each device, after comparing all of it.
  std::map<std::string, uint64_t> compare() const {
    std::map<std::string, uint64_t> mapped;
    const int file = open(image.c_str(), O_RDONLY | O_DIRECT);
    std::unique_ptr<char, decltype(&std::free)> above(static_cast<char*>(std::aligned_alloc(4096, kMiB)), std::free);
    std::unique_ptr<char, decltype(&std::free)> below(static_cast<char*>(std::aligned_alloc(4096, kMiB)), std::free);
    uint64_t wrong = 0;
    for (const VirtualExtent& extent : map->extents(map->findDisk({"vm", "vda"}), 0, SIZE_MAX)) {
      if (extent.state != State::kMapped) continue;
      for (const Place& place : extent.places) {
        const std::string device = map->deviceName(place.device);
        const int fd = open(device.c_str(), O_RDONLY | O_DIRECT);
        REQUIRE(fd >= 0);
        for (uint64_t at = 0; at < extent.length; at += kMiB) {
          const size_t part = std::min(kMiB, extent.length - at);
          REQUIRE(pread(file, above.get(), part, static_cast<off_t>(extent.diskOffset + at)) == ssize_t(part));
          REQUIRE(pread(fd, below.get(), part, static_cast<off_t>(place.offset + at)) == ssize_t(part));
          wrong += std::memcmp(above.get(), below.get(), part) != 0;
        }
        close(fd);
        mapped[device] += extent.length;
      }
    }
    close(file);
    CHECK(wrong == 0);
    return mapped;
  }
};

}  // namespace

TEST_CASE("a kernel's stack of two file systems and two loop devices is mapped through, on both devices") {
  std::string why;
  if (!possible(&why)) {
    MESSAGE("skipped: " << why);
    return;
  }
  const std::vector<std::pair<const char*, std::string>> systems = {
      {"ext4", "mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=0,lazy_journal_init=0"},
      {"ext4", "mkfs.ext4 -q -F -b 1024 -E lazy_itable_init=0,lazy_journal_init=0"},
      {"xfs", "mkfs.xfs -q -f -m reflink=0"}};
  for (const auto& system : systems) {
    for (const uint64_t age : {uint64_t{0}, 600 * kSecond}) {
      for (const uint64_t piece : {uint64_t{0}, uint64_t{32 << 10}}) {
        if (kSanitized && piece == 0) continue;
        CAPTURE(system.second);
        CAPTURE(piece);
        Stack stack(system.first, system.second, piece);
        CAPTURE(age);
        stack.attach(age);
        WorkloadOptions options;
        options.pattern = "write";
        options.blockSize = 128 << 10;
        options.operations = 64 * kMiB / options.blockSize;
        options.verify = true;
        WorkloadResult result = runWorkload(*stack.disk, options);
        CHECK(result.errors + result.mismatches == 0);
        const ProbeCounters counters = stack.probe->counters();
        MESSAGE("composed " << counters.observed.composed << " missing " << counters.observed.missing << " excess "
                            << counters.observed.excess << " crossing " << counters.observed.crossing << " foreign "
                            << counters.observed.foreign << " recorded " << counters.recorded << " unrecorded "
                            << counters.unrecorded << " losses " << counters.losses);
        auto mapped = stack.compare();
        CHECK(mapped[stack.upper.loop.path] == 64 * kMiB);
        CHECK(mapped[stack.lower.loop.path] == 64 * kMiB);
        options.pattern = "randrw";
        options.blockSize = 4096;
        options.operations = 20000;
        result = runWorkload(*stack.disk, options);
        CHECK(result.errors + result.mismatches == 0);
        mapped = stack.compare();
        CHECK(mapped[stack.upper.loop.path] == 64 * kMiB);
        CHECK(mapped[stack.lower.loop.path] == 64 * kMiB);
        const ObservedCounters seen = stack.probe->counters().observed;
        MESSAGE("predicted " << seen.predicted << " astray " << seen.astray);
      }
    }
  }
}
