// The volume `kernel`: its disks, their devices, and what guests see of them.
#include <csignal>

#include "directory_rig.h"

using namespace sm;
using namespace sm::test;

namespace {
constexpr uint64_t kBytes = kImageBytes;
}

TEST_CASE("kernel: a byte of a disk is the same byte of its image") {
  inDirectories([](const std::string& directory) {
    for (const bool uring : {true, false}) {
      for (const char* issue : {"clone", "fresh"}) {
        DirectoryRig rig(directory, {{"issue", issue}}, "kernel", uring);
        VirtualDisk* disk = rig.create("vm-1", "vda");
        Pages data(3 << 12, 'x');
        CHECK(diskIo(*disk, SM_OP_WRITE, 1 << 20, data.data, data.size) == 0);
        CHECK(diskIo(*disk, SM_OP_DISCARD, (1 << 20) + 4096, nullptr, 4096) == 0);
        CHECK(diskIo(*disk, SM_OP_WRITE_ZEROES, (1 << 20) + 8192, nullptr, 4096) == 0);
        CHECK(diskIo(*disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
        std::string expected(kBytes, 0);
        expected.replace(1 << 20, 4096, std::string(4096, 'x'));
        CHECK(readFile(rig.image("vm-1", "vda")) == expected);
        CHECK(diskIo(*disk, SM_OP_READ, 1 << 20, data.data, data.size) == 0);
        CHECK(std::string(data.data, data.size) == expected.substr(1 << 20, data.size));
        const sm_device* device = rig.volume->ownDevices(disk).at(0);
        CHECK(std::string(device->name) == "v/vm-1/vda");
        CHECK((device->flags & SM_DEVICE_DIRECT) != 0);
        CHECK(disk->contract()->block_size == device->block_size);
        REQUIRE_OK(rig.volume->closeDisk(disk));
        CHECK(rig.volume->ownDevices(disk).empty());
        REQUIRE_OK(rig.volume->deleteDisk("vm-1", "vda"));
        CHECK_FALSE(exists(directory + "/vm-1"));
      }
    }
  });
}

TEST_CASE("kernel: disks are created, listed, opened, resized and deleted") {
  inDirectories([](const std::string& directory) {
    DirectoryRig rig(directory);
    VirtualDisk* a = rig.create("vm-1", "vda");
    VirtualDisk* b = rig.create("vm-1", "vdb", 2 * kBytes);
    VirtualDisk* none = nullptr;
    CHECK(rig.volume->createDisk("vm-1", "vda", kBytes, &none).error == EEXIST);
    REQUIRE_OK(rig.volume->closeDisk(b));
    CHECK(rig.volume->createDisk("vm-1", "vdb", kBytes, &none).error == EEXIST);
    CHECK(rig.volume->openDisk("vm-1", "vdc", &none).error == ENOENT);
    CHECK(rig.volume->openDisk("vm-2", "vda", &none).error == ENOENT);
    CHECK(rig.volume->deleteDisk("vm-2", "vda").error == ENOENT);
    CHECK(rig.list() == std::vector<std::string>{"vm-1/vda 4194304", "vm-1/vdb 8388608"});

    Pages data(4096, 'a');
    for (const uint64_t at : {uint64_t{0}, kBytes - 4096}) {
      CHECK(diskIo(*a, SM_OP_WRITE, at, data.data, data.size) == 0);
    }
    const uint32_t before = rig.volume->ownDevices(a).at(0)->id;
    REQUIRE_OK(rig.volume->resizeDisk(a, kBytes / 2));
    CHECK(rig.volume->ownDevices(a).at(0)->id != before);
    CHECK(factsOf(rig.image("vm-1", "vda")).st_size == kBytes / 2);
    CHECK(diskIo(*a, SM_OP_READ, kBytes - 4096, data.data, data.size) == -EINVAL);
    REQUIRE_OK(rig.volume->resizeDisk(a, 2 * kBytes));
    CHECK(a->bytes() == 2 * kBytes);
    CHECK(diskIo(*a, SM_OP_READ, kBytes - 4096, data.data, data.size) == 0);
    CHECK(data.all(0));
    CHECK(diskIo(*a, SM_OP_READ, 0, data.data, data.size) == 0);
    CHECK(data.all('a'));
    CHECK(diskIo(*a, SM_OP_WRITE, 2 * kBytes - 4096, data.data, data.size) == 0);

    CHECK(rig.volume->deleteDisk("vm-1", "vda").code == "ERR_STRATAMAP_BUSY");
    REQUIRE_OK(rig.volume->closeDisk(a));
    REQUIRE_OK(rig.volume->deleteDisk("vm-1", "vda"));
    CHECK(rig.list() == std::vector<std::string>{"vm-1/vdb 8388608"});
    REQUIRE_OK(rig.volume->openDisk("vm-1", "vdb", &b));
    REQUIRE_OK(rig.volume->closeDisk(b));
    REQUIRE_OK(rig.volume->deleteDisk("vm-1", "vdb"));
    CHECK(rig.list().empty());
  });
}

TEST_CASE("kernel: a disk whose image is gone when it is resized fails its I/O, and closes") {
  TempFolder folder;
  DirectoryRig rig(folder.path);
  VirtualDisk* disk = rig.create("vm-1", "vda");
  const std::string image = rig.image("vm-1", "vda"), away = folder.path + "/away";
  std::filesystem::rename(image, away);
  Pages data(4096, 'x');
  CHECK(diskIo(*disk, SM_OP_WRITE, 0, data.data, data.size) == 0);
  checkFailure(rig.volume->resizeDisk(disk, 2 * kBytes), EIO, "EIO", "volume", "closed and opened again");
  CHECK(diskIo(*disk, SM_OP_READ, 0, data.data, data.size) == -EIO);
  CHECK(diskIo(*disk, SM_OP_FLUSH, 0, nullptr, 0) == -EIO);
  CHECK(rig.volume->ownDevices(disk).empty());
  std::filesystem::rename(away, image);
  REQUIRE_OK(rig.volume->resizeDisk(disk, 2 * kBytes));
  CHECK(diskIo(*disk, SM_OP_READ, 0, data.data, data.size) == 0);
  CHECK(data.all('x'));
  std::filesystem::rename(image, away);
  CHECK(rig.volume->resizeDisk(disk, kBytes).error == EIO);
  REQUIRE_OK(rig.volume->closeDisk(disk));
}

TEST_CASE("kernel: the devices of a volume have names of their own, however long") {
  TempFolder folder;
  DirectoryRig rig(folder.path);
  const std::string vm(63, 'v'), a = std::string(62, 'd') + "a", b = std::string(62, 'd') + "b";
  const auto nameOf = [&](VirtualDisk* disk) { return std::string(rig.volume->ownDevices(disk).at(0)->name); };
  VirtualDisk *first = rig.create(vm, a), *second = rig.create(vm, b);
  const std::string name = nameOf(first);
  CHECK(name.size() <= SM_NAME_MAX);
  CHECK(name.substr(0, 10) == "v/vvvvvvvv");
  CHECK(nameOf(second) != name);
  REQUIRE_OK(rig.volume->closeDisk(first));
  REQUIRE_OK(rig.volume->openDisk(vm, a, &first));
  CHECK(nameOf(first) == name);
  // No character is cut in two.
  std::string umlauts;
  while (umlauts.size() < 62) umlauts += "\u00e4";
  for (const std::string& of : {umlauts, "x" + umlauts}) {
    const std::string cut = nameOf(rig.create(of, umlauts));
    const size_t end = cut.find('~');
    CHECK(end <= SM_NAME_MAX - 17);
    CHECK(cut.substr(end - 2, 2) == "\u00e4");
  }

  DeviceOptions options{.name = "v/vm-1/vda", .path = folder.file("file", kBytes)};
  sm_device* device = nullptr;
  REQUIRE_OK(rig.host->openDevice(options, &device));
  VirtualDisk* disk = nullptr;
  checkFailure(rig.volume->createDisk("vm-1", "vda", kBytes, &disk), EEXIST, "EEXIST", "volume", "another name");
  CHECK_FALSE(exists(folder.path + "/vm-1"));
  REQUIRE_OK(rig.host->closeDevice(device));
  rig.create("vm-1", "vda");
  CHECK(rig.host->openDevice(options, &device).error == EEXIST);
}

TEST_CASE("kernel: what was flushed is there when its process was killed") {
  inDirectories([](const std::string& directory) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      DirectoryRig rig(directory);
      VirtualDisk* disk = rig.create("vm-1", "vda");
      Pages data(1 << 20, 'x');
      diskIo(*disk, SM_OP_WRITE, 1 << 20, data.data, data.size);
      if (diskIo(*disk, SM_OP_FLUSH, 0, nullptr, 0) == 0) raise(SIGKILL);
      _exit(1);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    DirectoryRig rig(directory);
    VirtualDisk* disk = nullptr;
    REQUIRE_OK(rig.volume->openDisk("vm-1", "vda", &disk));
    Pages data(1 << 20);
    CHECK(diskIo(*disk, SM_OP_READ, 1 << 20, data.data, data.size) == 0);
    CHECK(data.all('x'));
    CHECK(diskIo(*disk, SM_OP_READ, 0, data.data, data.size) == 0);
    CHECK(data.all(0));
  });
}

TEST_CASE("kernel: guests find what they wrote, while other disks come and go and theirs is resized") {
  inDirectories([](const std::string& directory) {
    for (const std::string& type : {std::string("kernel"), std::string(SM_FIXTURES "/../volumes/kernel.so")}) {
      for (const char* issue : {"clone", "fresh"}) {
        DirectoryRig rig(directory, {{"issue", issue}}, type);
        VirtualDisk* disk = rig.create("vm-1", "vda");
        WorkloadOptions load = verifyingLoad(32, 1500);
        load.length = kBytes;
        RunningWorkload running(*disk, load);
        for (int round = 0; round < 5; ++round) {
          REQUIRE_OK(rig.volume->resizeDisk(disk, (round % 2 ? 1 : 2) * kBytes));
          VirtualDisk* other = rig.create("vm-1", "vdb", 65536);
          REQUIRE_OK(rig.volume->closeDisk(other));
          REQUIRE_OK(rig.volume->deleteDisk("vm-1", "vdb"));
        }
        checkClean(running.wait());
        REQUIRE_OK(rig.volume->closeDisk(disk));
        REQUIRE_OK(rig.volume->deleteDisk("vm-1", "vda"));
      }
    }
  });
}
