// The volume `nbd` on plain files: it moves nothing, names are all that it keeps, and those for as long as it is open.
#include <fstream>
#include <iterator>

#include "native/host/stack_of.h"

using namespace sm;
using namespace sm::test;

namespace {

constexpr uint64_t kBytes = 4 << 20;

std::string readFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct PassRig {
  explicit PassRig(size_t count, const Options& options = {}) {
    std::vector<sm_device*> devices;
    for (size_t i = 0; i < count; ++i) {
      const std::string name = "d" + std::to_string(i);
      files.push_back(folder.file(name, kBytes));
      devices.push_back(openDevice(*host, name, files.back(), "posix"));
    }
    REQUIRE_OK(host->formatVolume("nbd", devices, {}, false));
    REQUIRE_OK(host->openVolume("v", "nbd", devices, options, &volume));
  }
  ~PassRig() { host.reset(); }

  TempFolder folder{memoryFolder()};
  std::vector<std::string> files;
  std::unique_ptr<Host> host = openHost({});
  Volume* volume = nullptr;
};

}  // namespace

TEST_CASE("nbd: a byte of a disk is the same byte of its device") {
  for (const char* issue : {"clone", "fresh"}) {
    PassRig rig(2, {{"issue", issue}});
    VirtualDisk *first, *second;
    REQUIRE_OK(rig.volume->createDisk("vm-1", "vda", kBytes, &first));
    REQUIRE_OK(rig.volume->createDisk("vm-2", "vda", kBytes / 2, &second));
    std::string data(3 << 12, 'x');
    CHECK(diskIo(*first, SM_OP_WRITE, 1 << 20, data.data(), data.size()) == 0);
    CHECK(diskIo(*second, SM_OP_WRITE, 4096, data.data(), 4096) == 0);
    CHECK(diskIo(*first, SM_OP_DISCARD, (1 << 20) + 4096, nullptr, 4096) == 0);
    CHECK(diskIo(*first, SM_OP_FLUSH, 0, nullptr, 0) == 0);
    std::string expected(kBytes, 0);
    expected.replace(1 << 20, data.size(), data);
    expected.replace((1 << 20) + 4096, 4096, std::string(4096, 0));
    CHECK(readFile(rig.files[0]) == expected);
    CHECK(readFile(rig.files[1]).substr(4096, 4096) == data.substr(0, 4096));
    CHECK(diskIo(*first, SM_OP_READ, 1 << 20, data.data(), data.size()) == 0);
    CHECK(data == expected.substr(1 << 20, data.size()));
  }
}

TEST_CASE("nbd: a device is one disk, by the name that it is given") {
  PassRig rig(2);
  VirtualDisk* disk = nullptr;
  CHECK(rig.volume->createDisk("vm", "a", kBytes + 4096, &disk).error == EFBIG);
  CHECK(rig.volume->openDisk("vm", "a", &disk).error == ENOENT);
  REQUIRE_OK(rig.volume->createDisk("vm", "a", kBytes, &disk));
  VirtualDisk* other = nullptr;
  CHECK(rig.volume->createDisk("vm", "a", kBytes, &other).error == EEXIST);
  REQUIRE_OK(rig.volume->createDisk("vm", "b", 4096, &other));
  VirtualDisk* none = nullptr;
  CHECK(rig.volume->createDisk("vm", "c", 4096, &none).error == ENOSPC);
  std::vector<DiskInfo> list;
  REQUIRE_OK(rig.volume->listDisks(&list));
  REQUIRE(list.size() == 2);
  CHECK(list[0].name == "a");
  CHECK(list[1].bytes == 4096);
  CHECK(rig.volume->resizeDisk(other, 8192).error == EOPNOTSUPP);
  REQUIRE_OK(rig.volume->closeDisk(disk));
  REQUIRE_OK(rig.volume->openDisk("vm", "a", &disk));
  REQUIRE_OK(rig.volume->closeDisk(disk));
  REQUIRE_OK(rig.volume->deleteDisk("vm", "a"));
  REQUIRE_OK(rig.volume->createDisk("vm", "c", kBytes, &none));
}

TEST_CASE("a device that is claimed has no volume, and is not closed") {
  PassRig rig(1);
  sm_device* device = rig.volume->devices()[0];
  CHECK(rig.host->claimDevice(device, false).error == EBUSY);
  REQUIRE_OK(rig.host->claimDevice(device, true));
  REQUIRE_OK(rig.host->closeVolume(rig.volume));
  CHECK(rig.host->closeDevice(device).code == "ERR_STRATAMAP_BUSY");
  REQUIRE_OK(rig.host->openVolume("v", "nbd", {device}, {}, &rig.volume));
  REQUIRE_OK(rig.host->closeVolume(rig.volume));
  REQUIRE_OK(rig.host->claimDevice(device, false));
  rig.host->unclaimDevice(device, true);
  const Failure refused = rig.host->openVolume("v", "nbd", {device}, {}, &rig.volume);
  CHECK(refused.error == EBUSY);
  CHECK(refused.device == "d0");
  CHECK(rig.host->formatVolume("extent", {device}, {}, true).error == EBUSY);
  rig.host->unclaimDevice(device, false);
  REQUIRE_OK(rig.host->openVolume("v", "nbd", {device}, {}, &rig.volume));
}
