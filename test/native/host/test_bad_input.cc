// Every wrong input is a clear error, and changes nothing.
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <iterator>

#include "host/volume_loader.h"
#include "stack_of.h"

using namespace sm;
using namespace sm::test;

namespace {

std::string content(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void overwrite(const std::string& file, uint64_t offset, const std::string& bytes) {
  std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
  stream.seekp(static_cast<std::streamoff>(offset));
  stream << bytes;
}

}  // namespace

TEST_CASE("a host with impossible options is refused") {
  std::unique_ptr<Host> host;
  HostOptions options;
  options.threads = 0;
  checkFailure(Host::open(options, &host), EINVAL, "ERR_OUT_OF_RANGE", "host", "0 threads: use 1 to");
  options.threads = 1000;
  checkFailure(Host::open(options, &host), EINVAL, "ERR_OUT_OF_RANGE", "host", "1000 threads");
  options.threads = 1;
  options.requests = 1;
  checkFailure(Host::open(options, &host), EINVAL, "ERR_OUT_OF_RANGE", "host", "requests");
  options.requests = 1024;
  options.bufferBytes = 1;
  checkFailure(Host::open(options, &host), EINVAL, "ERR_OUT_OF_RANGE", "host", "buffers");
  CHECK(!host);
}

TEST_CASE("devices: unknown, busy, neither device nor file, twice the same name") {
  TempFolder folder;
  auto host = openHost();
  sm_device* device = nullptr;
  DeviceOptions options;
  options.name = "d0";
  options.path = folder.path + "/none";
  Failure failure = host->openDevice(options, &device);
  CHECK(failure.error == ENOENT);
  CHECK(failure.layer == "device");
  CHECK(failure.device == "d0");
  options.path = folder.path;
  CHECK(host->openDevice(options, &device).code == "ERR_STRATAMAP_NOT_A_DEVICE");
  options.path = "/dev/zero";
  CHECK(host->openDevice(options, &device).code == "ERR_STRATAMAP_NOT_A_DEVICE");
  options.path = folder.file("a", 8 << 20);
  options.driver = "tape";
  CHECK(host->openDevice(options, &device).code == "ERR_STRATAMAP_DRIVER");
  options.driver = "posix";
  for (const std::string& name : {std::string(), std::string(64, 'x'), std::string("a\nb"), std::string("a\0b", 3)}) {
    options.name = name;
    checkFailure(host->openDevice(options, &device), EINVAL, "ERR_STRATAMAP_NAME", "device", "the name of a device");
  }
  options.name = std::string(63, 'x');
  REQUIRE_OK(host->openDevice(options, &device));
  CHECK(host->info(device).driver == "posix");
  CHECK(host->info(device).path == options.path);
  CHECK(host->info(device).bytes == 8 << 20);
  CHECK(host->info(nullptr).name.empty());
  sm_device* second = nullptr;
  checkFailure(host->openDevice(options, &second), EEXIST, "EEXIST", "device", "another name");
  options.name = "d1";
  checkFailure(host->openDevice(options, &second), EBUSY, "ERR_STRATAMAP_BUSY", "device", "d1");
  REQUIRE_OK(host->closeDevice(device));
  checkFailure(host->closeDevice(device), EBADF, "ERR_STRATAMAP_CLOSED", "device", "not open");
  REQUIRE_OK(host->openDevice(options, &second));
}

TEST_CASE("volumes: no device, one twice, one that is taken, an unknown type") {
  TempFolder folder;
  auto host = openHost();
  sm_device* a = test::openDevice(*host, "a", folder.file("a", 8 << 20));
  sm_device* b = test::openDevice(*host, "b", folder.file("b", 8 << 20));
  Volume *volume = nullptr, *second = nullptr;
  checkFailure(host->formatVolume("extent", {}, {}, false), EINVAL, "EINVAL", "volume", "no device");
  checkFailure(host->formatVolume("raid7", {a}, {}, false), EINVAL, "ERR_STRATAMAP_VOLUME_TYPE", "volume",
               "use extent, log, stripe, nbd, kernel, or a path that ends in .so");
  checkFailure(host->formatVolume("stripe", {a, a}, {}, false), EINVAL, "EINVAL", "device", "twice");
  checkFailure(host->formatVolume("extent", {nullptr}, {}, false), EBADF, "ERR_STRATAMAP_CLOSED", "device", "not open");
  checkFailure(host->formatVolume("extent", {a}, {{"colour", "blue"}}, false), EINVAL, "EINVAL", "volume", "colour");
  CHECK(host->openVolume("v0", "extent", {a}, {}, &volume).layer == "volume");  // it is empty
  REQUIRE_OK(host->formatVolume("extent", {a}, {}, false));
  checkFailure(host->openVolume("", "extent", {a}, {}, &volume), EINVAL, "ERR_STRATAMAP_NAME", "volume", "is empty");
  REQUIRE_OK(host->openVolume("v0", "extent", {a}, {}, &volume));
  checkFailure(host->openVolume("v1", "extent", {a}, {}, &second), EBUSY, "ERR_STRATAMAP_BUSY", "device", "volume v0");
  checkFailure(host->openVolume("v0", "extent", {b}, {}, &second), EEXIST, "EEXIST", "volume", "another name");
  checkFailure(host->formatVolume("extent", {a}, {}, true), EBUSY, "ERR_STRATAMAP_BUSY", "device", "volume v0");
  const Failure busy = host->closeDevice(a);
  checkFailure(busy, EBUSY, "ERR_STRATAMAP_BUSY", "device", "volume v0");
  CHECK(busy.device == "a");
  REQUIRE_OK(host->closeVolume(volume));
  checkFailure(host->closeVolume(volume), EBADF, "ERR_STRATAMAP_CLOSED", "volume", "closed");
  std::vector<DiskInfo> disks;
  checkFailure(volume->listDisks(&disks), EBADF, "ERR_STRATAMAP_CLOSED", "volume", "open it again");
  checkFailure(host->formatVolume("extent", {a}, {}, false), EEXIST, "ERR_STRATAMAP_SIGNATURE", "device",
               "at offset 0 it holds a stratamap volume");
  REQUIRE_OK(host->formatVolume("extent", {a}, {}, true));
  REQUIRE_OK(host->close());
  checkFailure(host->close(), EBADF, "ERR_STRATAMAP_CLOSED", "host", "closed");
  checkFailure(host->formatVolume("extent", {a}, {}, true), EBADF, "ERR_STRATAMAP_CLOSED", "host", "closed");
}

TEST_CASE("a device open for reading only is not formatted") {
  TempFolder folder;
  auto host = openHost();
  DeviceOptions options;
  options.name = "d0";
  options.path = folder.file("a", 8 << 20);
  options.readOnly = true;
  sm_device* device = nullptr;
  REQUIRE_OK(host->openDevice(options, &device));
  checkFailure(host->formatVolume("extent", {device}, {}, true), EROFS, "EROFS", "device", "reading only");
}

TEST_CASE("disks: names, sizes, open twice, in use, not there") {
  TempFolder folder;
  auto host = openHost();
  sm_device* a = test::openDevice(*host, "a", folder.file("a", 24 << 20));
  sm_device* b = test::openDevice(*host, "b", folder.file("b", 24 << 20));
  Volume *v0 = nullptr, *v1 = nullptr;
  REQUIRE_OK(host->formatVolume("extent", {a}, {}, false));
  REQUIRE_OK(host->formatVolume("extent", {b}, {}, false));
  REQUIRE_OK(host->openVolume("v0", "extent", {a}, {}, &v0));
  REQUIRE_OK(host->openVolume("v1", "extent", {b}, {}, &v1));
  VirtualDisk *disk = nullptr, *none = nullptr;
  for (const std::string& name : {std::string(), std::string(64, 'x'), std::string("a\tb"), std::string("a\0b", 3)}) {
    checkFailure(v0->createDisk(name, "vda", 1 << 20, &none), EINVAL, "ERR_STRATAMAP_NAME", "disk", "of a VM");
    checkFailure(v0->createDisk("vm-1", name, 1 << 20, &none), EINVAL, "ERR_STRATAMAP_NAME", "disk", "of a disk");
    checkFailure(v0->openDisk("vm-1", name, &none), EINVAL, "ERR_STRATAMAP_NAME", "disk", "of a disk");
    checkFailure(v0->deleteDisk(name, "vda"), EINVAL, "ERR_STRATAMAP_NAME", "disk", "of a VM");
  }
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{513}, UINT64_MAX - 511}) {
    checkFailure(v0->createDisk("vm-1", "vda", bytes, &none), EINVAL, "ERR_OUT_OF_RANGE", "disk", "multiple of 512");
  }
  Failure failure = v0->createDisk("vm-1", "vda", uint64_t{1} << 60, &none);
  checkFailure(failure, EFBIG, "EFBIG", "volume", "vm-1/vda");
  CHECK(failure.vm == "vm-1");
  CHECK(failure.disk == "vda");
  std::vector<DiskInfo> disks;
  REQUIRE_OK(v0->listDisks(&disks));
  CHECK(disks.empty());

  REQUIRE_OK(v0->createDisk("vm-1", "vda", 1 << 20, &disk));
  checkFailure(v0->createDisk("vm-1", "vda", 1 << 20, &none), EEXIST, "EEXIST", "volume", "vm-1/vda");
  checkFailure(v0->openDisk("vm-1", "vda", &none), EBUSY, "ERR_STRATAMAP_BUSY", "disk", "already");
  // The name is taken in the whole host while it is open; and a refused creation leaves nothing behind.
  checkFailure(v1->createDisk("vm-1", "vda", 1 << 20, &none), EBUSY, "ERR_STRATAMAP_BUSY", "disk", "already");
  REQUIRE_OK(v1->listDisks(&disks));
  CHECK(disks.empty());
  checkFailure(v0->deleteDisk("vm-1", "vda"), EBUSY, "ERR_STRATAMAP_BUSY", "disk", "open");
  checkFailure(v0->openDisk("vm-9", "vda", &none), ENOENT, "ENOENT", "volume", "vm-9/vda");
  checkFailure(v0->deleteDisk("vm-9", "vda"), ENOENT, "ENOENT", "volume", "vm-9/vda");
  checkFailure(v0->resizeDisk(disk, 100), EINVAL, "ERR_OUT_OF_RANGE", "disk", "multiple of 512");
  checkFailure(v0->resizeDisk(disk, uint64_t{1} << 60), EFBIG, "EFBIG", "volume", "resize disk vm-1/vda");
  CHECK(disk->bytes() == 1 << 20);
  checkFailure(v1->resizeDisk(disk, 2 << 20), EBADF, "ERR_STRATAMAP_CLOSED", "disk", "volume v1");
  checkFailure(v1->closeDisk(disk), EBADF, "ERR_STRATAMAP_CLOSED", "disk", "volume v1");
  checkFailure(host->closeVolume(v0), EBUSY, "ERR_STRATAMAP_BUSY", "volume", "vm-1/vda is open");
  CHECK(diskIo(*disk, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  REQUIRE_OK(v0->closeDisk(disk));
  REQUIRE_OK(v1->createDisk("vm-1", "vda", 1 << 20, &disk));
  checkFailure(v0->openDisk("vm-1", "vda", &none), EBUSY, "ERR_STRATAMAP_BUSY", "disk", "another one");
  REQUIRE_OK(v1->closeDisk(disk));
  REQUIRE_OK(v1->deleteDisk("vm-1", "vda"));
  REQUIRE_OK(v0->deleteDisk("vm-1", "vda"));
}

TEST_CASE("media that are foreign, torn or of another version are refused and left alone") {
  TempFolder folder;
  const std::string file = folder.file("a", 8 << 20);
  {
    auto host = openHost();
    sm_device* device = test::openDevice(*host, "d0", file);
    REQUIRE_OK(host->formatVolume("extent", {device}, {}, false));
  }
  SUBCASE("torn") { overwrite(file, 200, "torn"); }
  SUBCASE("another version") { overwrite(file, 8, "\x63"); }
  SUBCASE("foreign") { overwrite(file, 0, "XFSB"); }
  const std::string before = content(file);
  auto host = openHost();
  sm_device* device = test::openDevice(*host, "d0", file);
  Volume* volume = nullptr;
  const Failure failure = host->openVolume("v0", "extent", {device}, {}, &volume);
  INFO(failure.message);
  CHECK(failure.error != 0);
  CHECK(failure.layer == "volume");
  CHECK(failure.message.find("cannot open volume v0 (extent on d0): ") == 0);
  CHECK(volume == nullptr);
  checkFailure(host->formatVolume("extent", {device}, {}, false), EEXIST, "ERR_STRATAMAP_SIGNATURE", "device", "d0");
  REQUIRE_OK(host->closeDevice(device));
  CHECK(content(file) == before);
}

TEST_CASE("shared objects that are no volumes of this contract are refused") {
  TempFolder folder;
  auto host = openHost();
  sm_device* device = test::openDevice(*host, "d0", folder.file("a", 8 << 20));
  const auto format = [&](const std::string& path) { return host->formatVolume(path, {device}, {}, true); };
  checkFailure(format(folder.path + "/none.so"), ENOENT, "ERR_STRATAMAP_VOLUME_TYPE", "volume", "none.so");
  checkFailure(format("none.so"), ENOENT, "ERR_STRATAMAP_VOLUME_TYPE", "volume", "shared object");
  checkFailure(format(folder.file("text.so", 100)), ENOEXEC, "ERR_STRATAMAP_VOLUME_TYPE", "volume", "text.so");
  const std::string directory = folder.path + "/folder.so";
  REQUIRE(mkdir(directory.c_str(), 0700) == 0);
  checkFailure(format(directory), EINVAL, "ERR_STRATAMAP_VOLUME_TYPE", "volume", "not a regular file");
  rmdir(directory.c_str());
  for (const auto& [name, says] : {std::pair("badversion", "version 42"), std::pair("notavolume", SM_VOLUME_ENTRY)}) {
    const std::string path = std::string(SM_FIXTURES) + "/" + name + ".so";
    if (access(path.c_str(), R_OK) != 0) {
      MESSAGE("skipped: " << path << " is not built");
      continue;
    }
    checkFailure(format(path), EINVAL, "ERR_STRATAMAP_CONTRACT", "volume", says);
    Volume* volume = nullptr;
    checkFailure(host->openVolume("v0", path, {device}, {}, &volume), EINVAL, "ERR_STRATAMAP_CONTRACT", "volume", says);
  }
}

TEST_CASE("a table of functions is judged by its fields alone") {
  sm_volume_ops good{};
  good.version = SM_CONTRACT_VERSION;
  good.size = sizeof good;
  good.open = [](const sm_services*, sm_device* const*, uint32_t, const sm_option*, uint32_t, void**, sm_error*) {
    return int32_t{0};
  };
  good.disk_open = [](void*, const char*, const char*, void**, uint64_t*, sm_error*) { return int32_t{0}; };
  good.submit = [](void*, void*, sm_request*) {};
  CHECK_FALSE(checkVolumeTable("good", &good));
  sm_volume_ops larger = good;
  larger.size += 64;  // of a host to come
  CHECK_FALSE(checkVolumeTable("larger", &larger));
  sm_volume_ops older = good;  // from before there were flags
  older.size = offsetof(sm_volume_ops, flags);
  older.flags = SM_VOLUME_NO_DEVICES;
  CHECK_FALSE(checkVolumeTable("older", &older));
  CHECK(volumeFlags(older) == 0);
  const auto refused = [&](const sm_volume_ops* ops, const std::string& says) {
    checkFailure(checkVolumeTable("bad", ops), EINVAL, "ERR_STRATAMAP_CONTRACT", "volume", says);
  };
  refused(nullptr, "no table");
  sm_volume_ops bad = good;
  bad.version = 0;
  refused(&bad, "version 0");
  bad = good;
  bad.size = offsetof(sm_volume_ops, flags) - 8;
  refused(&bad, "bytes");
  bad = good;
  bad.open = nullptr;
  refused(&bad, "null");
  bad = good;
  bad.disk_open = nullptr;
  refused(&bad, "null");
  bad = good;
  bad.submit = nullptr;
  refused(&bad, "null");
}
