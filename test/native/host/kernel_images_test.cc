// The volume `kernel`: its image files. What is made, refused, and left alone.
#include "directory_rig.h"

using namespace sm;
using namespace sm::test;

namespace {
constexpr uint64_t kBytes = kImageBytes;
}

TEST_CASE("kernel: a size is a multiple of what direct I/O takes, or nothing is made") {
  Mounted ext4(48 << 20, {}, 4096);
  if (ext4.path.empty()) {
    MESSAGE("skipped: " << ext4.why);
    return;
  }
  DirectoryRig rig(ext4.path);
  VirtualDisk* disk = nullptr;
  const Failure failure = rig.volume->createDisk("vm-1", "vda", kBytes + 512, &disk);
  checkFailure(failure, EINVAL, "EINVAL", "volume", "no multiple of 4096");
  CHECK(failure.disk == "vda");
  CHECK_FALSE(exists(ext4.path + "/vm-1"));
  disk = rig.create("vm-1", "vda");
  CHECK(disk->contract()->block_size == 4096);
  checkFailure(rig.volume->resizeDisk(disk, kBytes + 512), EINVAL, "ERR_OUT_OF_RANGE", "disk", "multiple of 4096");
}

TEST_CASE("kernel: names that would leave the directory or hide in it are refused, and links are not followed") {
  TempFolder folder, outside;
  DirectoryRig rig(folder.path);
  VirtualDisk* disk = nullptr;
  for (const std::string name : {".", "..", ".hidden", "a/b", "../x", "/etc", "a/"}) {
    CAPTURE(name);
    for (const auto& [vm, of] : {std::pair{name, std::string("vda")}, {std::string("vm"), name}}) {
      checkFailure(rig.volume->createDisk(vm, of, kBytes, &disk), EINVAL, "EINVAL", "volume", "'/'");
      checkFailure(rig.volume->openDisk(vm, of, &disk), EINVAL, "EINVAL", "volume", "'" + name + "'");
      checkFailure(rig.volume->deleteDisk(vm, of), EINVAL, "EINVAL", "volume", "'" + name + "'");
    }
  }
  CHECK(std::filesystem::is_empty(folder.path));

  outside.file("vda.img", kBytes);
  REQUIRE_OK(rig.volume->closeDisk(rig.create("vm-1", "vda")));
  std::filesystem::create_symlink(outside.path, folder.path + "/link");
  std::filesystem::create_symlink(outside.files[0], rig.image("vm-1", "vdb"));
  std::filesystem::create_directory(rig.image("vm-1", "vdc"));
  REQUIRE(mkfifo(rig.image("vm-1", "vdd").c_str(), 0600) == 0);
  folder.file("file", 4096);
  folder.file("vm-1/vde.raw", 4096);
  folder.file("vm-1/.vdf.img", 4096);
  CHECK(rig.list() == std::vector<std::string>{"vm-1/vda 4194304"});
  for (const char* vm : {"link", "file"}) {
    checkFailure(rig.volume->openDisk(vm, "vda", &disk), ENOTDIR, "ENOTDIR", "volume", "no directory");
    CHECK(rig.volume->createDisk(vm, "new", kBytes, &disk).error == ENOTDIR);
    CHECK(rig.volume->deleteDisk(vm, "vda").error == ENOTDIR);
  }
  for (const char* name : {"vdb", "vdc", "vdd"}) {
    checkFailure(rig.volume->openDisk("vm-1", name, &disk), EINVAL, "EINVAL", "volume", "no regular file");
    CHECK(rig.volume->deleteDisk("vm-1", name).error == EINVAL);
    CHECK(rig.volume->createDisk("vm-1", name, kBytes, &disk).error == EEXIST);
  }
  CHECK(exists(outside.files[0]));
  CHECK_FALSE(exists(outside.path + "/new.img"));
  // What is not ours keeps the folder.
  REQUIRE_OK(rig.volume->deleteDisk("vm-1", "vda"));
  CHECK(exists(folder.path + "/vm-1/vde.raw"));
}

TEST_CASE("kernel: what it cannot be opened with is told") {
  TempFolder folder;
  folder.file("file", 8 << 20);
  auto host = openHost();
  Volume* volume = nullptr;
  const auto refused = [&](const Options& options, int error, const std::string& says) {
    const Failure failure = host->openVolume("v", "kernel", {}, options, &volume);
    checkFailure(failure, error, errnoName(error), "volume", says);
  };
  refused({}, EINVAL, "no option 'directory'");
  refused({{"directory", ""}}, EINVAL, "is empty");
  refused({{"directory", folder.path + "/none"}}, ENOENT, "give one that exists");
  refused({{"directory", folder.files[0]}}, ENOTDIR, folder.files[0]);
  refused({{"directory", folder.path}, {"allocate", "some"}}, EINVAL, "sparse or full");
  refused({{"directory", folder.path}, {"size", "1"}}, EINVAL, "directory, allocate, issue");
  sm_device* device = test::openDevice(*host, "d0", folder.files[0]);
  checkFailure(host->openVolume("v", "kernel", {device}, {{"directory", folder.path}}, &volume), EINVAL, "EINVAL",
               "volume", "takes no devices");
  checkFailure(host->formatVolume("kernel", {device}, {}, true), EINVAL, "EINVAL", "volume", "takes no devices");
  checkFailure(host->openVolume("v", "nbd", {}, {}, &volume), EINVAL, "EINVAL", "volume", "at least one");
}

TEST_CASE("kernel: space is taken when it is written, or with the disk") {
  inDirectories([](const std::string& directory) {
    Pages data(1 << 20, 'x');
    {
      DirectoryRig rig(directory, {{"allocate", "sparse"}});
      VirtualDisk* disk = rig.create("vm-1", "vda");
      const std::string image = rig.image("vm-1", "vda");
      CHECK(allocated(image) == 0);
      CHECK(diskIo(*disk, SM_OP_WRITE, 0, data.data, data.size) == 0);
      CHECK(allocated(image) >= data.size);
      CHECK(diskIo(*disk, SM_OP_DISCARD, 0, nullptr, data.size) == 0);
      CHECK(allocated(image) < 65536);
      CHECK(diskIo(*disk, SM_OP_READ, 0, data.data, data.size) == 0);
      CHECK(data.all(0));
    }
    DirectoryRig rig(directory, {{"allocate", "full"}});
    VirtualDisk* disk = rig.create("vm-1", "vdb");
    const std::string image = rig.image("vm-1", "vdb");
    CHECK(allocated(image) >= kBytes);
    CHECK(diskIo(*disk, SM_OP_WRITE, 0, data.data, data.size) == 0);
    CHECK(diskIo(*disk, SM_OP_DISCARD, 0, nullptr, kBytes) == 0);
    CHECK(allocated(image) >= kBytes);
    CHECK(diskIo(*disk, SM_OP_READ, 0, data.data, data.size) == 0);
    CHECK(data.all(0));
    REQUIRE_OK(rig.volume->resizeDisk(disk, 2 * kBytes));
    CHECK(allocated(image) >= 2 * kBytes);
  });
}

TEST_CASE("kernel: where there is no room nothing has changed, and nothing is left") {
  Mounted ext4(24 << 20);
  if (ext4.path.empty()) {
    MESSAGE("skipped: " << ext4.why);
    return;
  }
  DirectoryRig rig(ext4.path, {{"allocate", "full"}});
  VirtualDisk* none = nullptr;
  checkFailure(rig.volume->createDisk("vm-1", "vda", 64 << 20, &none), ENOSPC, "ENOSPC", "volume", "make room");
  CHECK_FALSE(exists(ext4.path + "/vm-1"));
  CHECK(rig.volume->createDisk("vm-1", "vda", uint64_t{1} << 60, &none).error == EFBIG);
  CHECK_FALSE(exists(ext4.path + "/vm-1"));
  VirtualDisk* disk = rig.create("vm-1", "vda");
  const std::string image = rig.image("vm-1", "vda");
  Pages data(4096, 'x');
  CHECK(diskIo(*disk, SM_OP_WRITE, 4096, data.data, data.size) == 0);
  CHECK(diskIo(*disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  const uint64_t before = allocated(image);
  checkFailure(rig.volume->resizeDisk(disk, 64 << 20), ENOSPC, "ENOSPC", "volume", "make room");
  CHECK(disk->bytes() == kBytes);
  CHECK(factsOf(image).st_size == kBytes);
  CHECK(allocated(image) == before);
  CHECK(diskIo(*disk, SM_OP_READ, 4096, data.data, data.size) == 0);
  CHECK(data.all('x'));
}

TEST_CASE("kernel: an image is one user's") {
  TempFolder folder;
  DirectoryRig rig(folder.path), other(folder.path);
  VirtualDisk *disk = rig.create("vm-1", "vda"), *second = nullptr;
  checkFailure(other.volume->openDisk("vm-1", "vda", &second), EBUSY, "EBUSY", "volume", "close it there");
  checkFailure(other.volume->deleteDisk("vm-1", "vda"), EBUSY, "EBUSY", "volume", "close it there");
  REQUIRE_OK(rig.volume->closeDisk(disk));
  REQUIRE_OK(other.volume->openDisk("vm-1", "vda", &second));
  REQUIRE_OK(other.volume->closeDisk(second));
  REQUIRE_OK(other.volume->deleteDisk("vm-1", "vda"));
}

TEST_CASE("kernel: it says where I/O goes through the page cache, and what is too odd to serve") {
  Mounted journalled(48 << 20, {}, 512, "data=journal");
  if (journalled.path.empty()) {
    MESSAGE("skipped: " << journalled.why);
    return;
  }
  DirectoryRig rig(journalled.path);
  VirtualDisk* disk = rig.create("vm-1", "vda");
  CHECK((rig.volume->ownDevices(disk).at(0)->flags & SM_DEVICE_DIRECT) == 0);
  CHECK(rig.told("takes no direct I/O"));
  Pages data(4096, 'x');
  CHECK(diskIo(*disk, SM_OP_WRITE, 0, data.data, data.size) == 0);
  CHECK(diskIo(*disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  REQUIRE_OK(rig.volume->closeDisk(disk));
  CHECK(truncate(rig.image("vm-1", "vda").c_str(), kBytes + 100) == 0);
  REQUIRE_OK(rig.volume->openDisk("vm-1", "vda", &disk));
  CHECK(disk->bytes() == kBytes);
  CHECK(rig.told("100 bytes at its end"));
}
