// The whole stack on real files and loop devices: data goes through every driver and volume, and is there afterwards.
#include "stack_of.h"

using namespace sm;
using namespace sm::test;

namespace {

// A run over files or loop devices with one driver.
void verifyOn(const std::vector<std::string>& paths, const std::string& driver, const VolumeKind& kind,
              uint32_t threads) {
  CAPTURE(driver);
  CAPTURE(kind.type);
  CAPTURE(kind.devices);
  CAPTURE(threads);
  HostOptions options;
  options.threads = threads;
  const auto pattern = [](uint64_t at) { return static_cast<uint8_t>(at * 7 + at / 512); };
  std::vector<uint8_t> data(256 << 10), back(256 << 10);
  for (size_t i = 0; i < data.size(); ++i) data[i] = pattern(i);
  {
    auto host = openHost(options);
    std::vector<sm_device*> devices;
    for (size_t i = 0; i < kind.devices; ++i) {
      devices.push_back(test::openDevice(*host, "d" + std::to_string(i), paths[i], driver));
    }
    REQUIRE_OK(host->formatVolume(kind.type, devices, kind.options, true));
    Volume* volume = nullptr;
    REQUIRE_OK(host->openVolume("v0", kind.type, devices, {}, &volume));
    CHECK(volume->name() == "v0");
    CHECK(volume->type() == kind.type);
    CHECK(volume->devices() == devices);
    VirtualDisk *disk = nullptr, *kept = nullptr;
    REQUIRE_OK(volume->createDisk("vm-1", "load", 2 << 20, &disk));
    REQUIRE_OK(volume->createDisk("vm-2", "kept", 1 << 20, &kept));
    CHECK(disk->bytes() == 2 << 20);
    for (uint32_t depth : {1u, 32u, 256u}) {
      CAPTURE(depth);
      checkClean(runWorkload(*disk, verifyingLoad(depth, depth == 1 ? 200 : kind.operations)));
    }
    CHECK(diskIo(*kept, SM_OP_WRITE, 64 << 10, data.data(), data.size()) == 0);
    CHECK(diskIo(*kept, SM_OP_FLUSH, 0, nullptr, 0) == 0);
    CHECK(diskIo(*kept, SM_OP_READ, 64 << 10, back.data(), back.size()) == 0);
    CHECK(back == data);
    REQUIRE_OK(host->close());
  }
  auto host = openHost(options);
  std::vector<sm_device*> devices;
  for (size_t i = 0; i < kind.devices; ++i) {
    devices.push_back(test::openDevice(*host, "d" + std::to_string(i), paths[i], driver));
  }
  Volume* volume = nullptr;
  REQUIRE_OK(host->openVolume("v0", kind.type, devices, {}, &volume));
  std::vector<DiskInfo> disks;
  REQUIRE_OK(volume->listDisks(&disks));
  CHECK(disks.size() == 2);
  VirtualDisk* kept = nullptr;
  REQUIRE_OK(volume->openDisk("vm-2", "kept", &kept));
  CHECK(kept->bytes() == 1 << 20);
  std::fill(back.begin(), back.end(), 0);
  CHECK(diskIo(*kept, SM_OP_READ, 64 << 10, back.data(), back.size()) == 0);
  for (size_t i = 0; i < data.size(); i += 4096) {
    CAPTURE(i);
    CHECK(std::memcmp(data.data() + i, back.data() + i, 4096) == 0);
  }
  std::vector<uint8_t> zeroes(64 << 10), before(64 << 10, 1);
  CHECK(diskIo(*kept, SM_OP_READ, 0, before.data(), before.size()) == 0);
  CHECK(before == zeroes);
  REQUIRE_OK(volume->closeDisk(kept));
  REQUIRE_OK(volume->deleteDisk("vm-2", "kept"));
  REQUIRE_OK(host->closeVolume(volume));
  for (sm_device* device : devices) REQUIRE_OK(host->closeDevice(device));
}

}  // namespace

TEST_CASE("what was written is there: files, each driver and volume, one thread and two") {
  TempFolder folder;
  const std::vector<std::string> files{folder.file("a", 24 << 20), folder.file("b", 24 << 20)};
  for (const VolumeKind& kind : volumeKinds()) {
    for (const char* driver : {"uring", "posix"}) {
      for (uint32_t threads : {1u, 2u}) verifyOn(files, driver, kind, threads);
    }
  }
}

TEST_CASE("what was written is there: loop devices with blocks of 512 bytes and of 4 KiB") {
  for (uint32_t blockSize : {512u, 4096u}) {
    CAPTURE(blockSize);
    TempFolder folder;
    Loop a(folder.file("a", 24 << 20), blockSize), b(folder.file("b", 24 << 20), blockSize);
    if (!a.attached || !b.attached) {
      MESSAGE("skipped: no loop device: " << (a.attached ? b.why : a.why));
      return;
    }
    for (const VolumeKind& kind : volumeKinds()) {
      for (const char* driver : {"uring", "posix"}) verifyOn({a.path, b.path}, driver, kind, 1);
    }
  }
}

TEST_CASE("three disks of two volumes under load at once, on two threads, filters coming and going") {
  TempFolder folder;
  HostOptions options;
  options.threads = 2;
  auto host = openHost(options);
  Volume *v0 = nullptr, *v1 = nullptr;
  sm_device* d0 = test::openDevice(*host, "d0", folder.file("a", 24 << 20));
  sm_device* d1 = test::openDevice(*host, "d1", folder.file("b", 24 << 20));
  sm_device* d2 = test::openDevice(*host, "d2", folder.file("c", 24 << 20), "posix");
  REQUIRE_OK(host->formatVolume("stripe", {d0, d1}, {}, false));
  REQUIRE_OK(host->openVolume("v0", "stripe", {d0, d1}, {}, &v0));
  REQUIRE_OK(host->formatVolume("extent", {d2}, {}, false));
  REQUIRE_OK(host->openVolume("v1", "extent", {d2}, {}, &v1));
  VirtualDisk* disks[3] = {};
  REQUIRE_OK(v0->createDisk("vm-1", "vda", 2 << 20, &disks[0]));
  REQUIRE_OK(v0->createDisk("vm-2", "vda", 2 << 20, &disks[1]));
  REQUIRE_OK(v1->createDisk("vm-3", "vda", 2 << 20, &disks[2]));
  CHECK(&disks[0]->home() == &disks[1]->home());
  CHECK(&disks[0]->home() != &disks[2]->home());

  struct Counter {
    uint64_t submits = 0, completes = 0;
  };
  static constexpr sm_filter_ops count = {
      SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "count",
      [](void* self, sm_request*) -> int { return ++static_cast<Counter*>(self)->submits, SM_FILTER_NEXT; },
      [](void* self, sm_request*) { ++static_cast<Counter*>(self)->completes; }};
  WorkloadOptions load = verifyingLoad(32, 0);
  load.seconds = 600;
  std::vector<std::unique_ptr<RunningWorkload>> running;
  for (VirtualDisk* disk : disks) running.push_back(std::make_unique<RunningWorkload>(*disk, load));
  uint64_t seen = 0;
  const sm_stack* stack = host->stack();
  for (int i = 0; i < 1000; ++i) {
    Counter counter;
    sm_disk* disk = disks[i % 3]->contract();
    REQUIRE(stack->filter_attach(stack, disk, &count, &counter) == 0);
    REQUIRE(stack->filter_detach(stack, disk, &counter, 60'000'000'000) == 0);
    CHECK(counter.submits == counter.completes);
    seen += counter.submits;
  }
  for (auto& each : running) each->workload.stop();
  for (auto& each : running) checkClean(each->wait());
  CHECK(seen > 0);
  REQUIRE_OK(host->close());
}

TEST_CASE("two hosts in one process share nothing but the process") {
  TempFolder folder;
  auto first = openHost(), second = openHost();
  sm_device* a = test::openDevice(*first, "d0", folder.file("a", 24 << 20));
  sm_device* b = test::openDevice(*second, "d0", folder.file("b", 24 << 20));
  CHECK(a->id != b->id);
  // One of them has the file to itself.
  DeviceOptions again;
  again.name = "again";
  again.path = folder.files[0];
  sm_device* none = nullptr;
  checkFailure(second->openDevice(again, &none), EBUSY, "ERR_STRATAMAP_BUSY", "device", "again");
  VirtualDisk* disks[2] = {};
  Volume* volumes[2] = {};
  REQUIRE_OK(first->formatVolume("extent", {a}, {}, false));
  REQUIRE_OK(second->formatVolume("extent", {b}, {}, false));
  REQUIRE_OK(first->openVolume("v0", "extent", {a}, {}, &volumes[0]));
  REQUIRE_OK(second->openVolume("v0", "extent", {b}, {}, &volumes[1]));
  REQUIRE_OK(volumes[0]->createDisk("vm-1", "vda", 1 << 20, &disks[0]));
  REQUIRE_OK(volumes[1]->createDisk("vm-1", "vda", 1 << 20, &disks[1]));
  CHECK(disks[0]->contract()->id != disks[1]->contract()->id);
  RunningWorkload one(*disks[0], verifyingLoad(32, 1000)), two(*disks[1], verifyingLoad(32, 1000));
  checkClean(one.wait());
  REQUIRE_OK(first->close());
  checkClean(two.wait());
  REQUIRE_OK(second->close());
}

TEST_CASE("a host goes with I/O in flight: closed, or just destroyed") {
  for (bool close : {true, false}) {
    for (const char* driver : {"uring", "posix"}) {
      CAPTURE(close);
      CAPTURE(driver);
      TempFolder folder;
      auto host = openHost();
      sm_device* device = test::openDevice(*host, "d0", folder.file("a", 24 << 20), driver);
      REQUIRE_OK(host->formatVolume("extent", {device}, {}, false));
      Volume* volume = nullptr;
      REQUIRE_OK(host->openVolume("v0", "extent", {device}, {}, &volume));
      VirtualDisk* disk = nullptr;
      REQUIRE_OK(volume->createDisk("vm-1", "vda", 1 << 20, &disk));
      WorkloadOptions load = verifyingLoad(64, 0);
      load.seconds = 600;
      RunningWorkload running(*disk, load);
      std::vector<uint8_t> data(4096, 1);
      std::vector<std::unique_ptr<AwaitedIo>> ios;
      for (int i = 0; i < 2000; ++i) {
        ios.push_back(std::make_unique<AwaitedIo>());
        ios.back()->submit(*disk, SM_OP_READ, 0, data.data(), data.size());
      }
      if (close) REQUIRE_OK(host->close());
      host.reset();
      for (auto& io : ios) {
        const int32_t status = io->done.get();
        CHECK((status == 0 || status == -ESHUTDOWN));
      }
      const WorkloadResult result = running.wait();
      CHECK(result.firstError == -ESHUTDOWN);
      CHECK_MESSAGE(result.mismatches == 0, result.firstMismatch);
    }
  }
}

TEST_CASE("resize under load: what is cut off reads as zeroes when it comes back") {
  TempFolder folder;
  auto host = openHost();
  sm_device* device = test::openDevice(*host, "d0", folder.file("a", 24 << 20));
  REQUIRE_OK(host->formatVolume("extent", {device}, {}, false));
  Volume* volume = nullptr;
  REQUIRE_OK(host->openVolume("v0", "extent", {device}, {}, &volume));
  VirtualDisk* disk = nullptr;
  REQUIRE_OK(volume->createDisk("vm-1", "vda", 2 << 20, &disk));
  std::vector<uint8_t> ones(64 << 10, 1), back(64 << 10, 2), zeroes(64 << 10);
  const uint64_t last = (2 << 20) - ones.size();
  CHECK(diskIo(*disk, SM_OP_WRITE, last, ones.data(), ones.size()) == 0);
  WorkloadOptions load = verifyingLoad(32, 0);
  load.seconds = 600;
  load.length = 1 << 20;
  RunningWorkload running(*disk, load);
  for (int i = 0; i < 5; ++i) {
    REQUIRE_OK(volume->resizeDisk(disk, 1 << 20));
    CHECK(disk->bytes() == 1 << 20);
    CHECK(diskIo(*disk, SM_OP_READ, last, back.data(), back.size()) == -EINVAL);
    CHECK(disk->check(SM_OP_READ, last, back.size()).code == "ERR_OUT_OF_RANGE");
    REQUIRE_OK(volume->resizeDisk(disk, 2 << 20));
    CHECK(diskIo(*disk, SM_OP_READ, last, back.data(), back.size()) == 0);
    CHECK(back == zeroes);
    CHECK(diskIo(*disk, SM_OP_WRITE, last, ones.data(), ones.size()) == 0);
  }
  running.workload.stop();
  checkClean(running.wait());
}

TEST_CASE("a full thin volume fails that write alone, and keeps what was written before") {
  TempFolder folder;
  auto host = openHost();
  sm_device* device = test::openDevice(*host, "d0", folder.file("a", 8 << 20));
  REQUIRE_OK(host->formatVolume("extent", {device}, {{"extentSize", "65536"}}, false));
  Volume* volume = nullptr;
  REQUIRE_OK(host->openVolume("v0", "extent", {device}, {}, &volume));
  VirtualDisk *full = nullptr, *other = nullptr;
  REQUIRE_OK(volume->createDisk("vm-1", "vda", 6 << 20, &full));
  REQUIRE_OK(volume->createDisk("vm-2", "vda", 6 << 20, &other));
  std::vector<uint8_t> data(64 << 10), back(64 << 10);
  std::vector<std::pair<VirtualDisk*, uint64_t>> written;
  int refused = 0;
  for (uint64_t offset = 0; offset < 6 << 20; offset += data.size()) {
    for (VirtualDisk* disk : {full, other}) {
      std::fill(data.begin(), data.end(), static_cast<uint8_t>(1 + offset / data.size() * 2 + (disk == other)));
      const int32_t status = diskIo(*disk, SM_OP_WRITE, offset, data.data(), data.size());
      CHECK((status == 0 || status == -ENOSPC));
      if (status == 0) written.emplace_back(disk, offset);
      refused += status == -ENOSPC;
    }
  }
  CHECK(refused > 0);
  CHECK(written.size() > 50);
  for (const auto& [disk, offset] : written) {
    REQUIRE(diskIo(*disk, SM_OP_READ, offset, back.data(), back.size()) == 0);
    const auto expected = static_cast<uint8_t>(1 + offset / data.size() * 2 + (disk == other));
    CHECK(std::count(back.begin(), back.end(), expected) == static_cast<ptrdiff_t>(back.size()));
  }
  // A discard makes room again.
  CHECK(diskIo(*full, SM_OP_DISCARD, 0, nullptr, 1 << 20) == 0);
  CHECK(diskIo(*full, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  CHECK(diskIo(*other, SM_OP_WRITE, (6 << 20) - data.size(), data.data(), data.size()) == 0);
}
