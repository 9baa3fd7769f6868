// The probe on a real host: real files, real drivers, real volumes. What it maps is read back from the device outside
// the stack and compared.
#include "intercept/probe.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "disks/workload.h"
#include "host.h"

namespace {

using namespace sm;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSecond = 1'000'000'000;

// Files on disk, a host, one volume, some disks.
struct Bench {
  std::string folder;
  std::unique_ptr<Host> host;
  std::vector<sm_device*> devices;
  std::vector<std::string> paths;
  Volume* volume = nullptr;
  std::vector<VirtualDisk*> disks;
  std::shared_ptr<AddressMap> map = std::make_shared<AddressMap>();
  std::unique_ptr<Probe> probe;

  explicit Bench(const std::string& type, int deviceCount, int diskCount, bool shared = false) {
    char name[] = "/tmp/stratamap-probe-XXXXXX";
    folder = mkdtemp(name);
    REQUIRE_FALSE(Host::open({}, &host));
    for (int i = 0; i < deviceCount; ++i) {
      DeviceOptions options;
      options.name = "d" + std::to_string(i);
      options.path = folder + "/" + options.name;
      options.shared = shared;
      int fd = open(options.path.c_str(), O_CREAT | O_RDWR, 0600);
      REQUIRE(fd >= 0);
      REQUIRE(ftruncate(fd, static_cast<off_t>(64 * kMiB)) == 0);
      close(fd);
      sm_device* device = nullptr;
      Failure failure = host->openDevice(options, &device);
      REQUIRE_MESSAGE(!failure, failure.message);
      devices.push_back(device);
      paths.push_back(options.path);
    }
    Failure failure = host->formatVolume(type, devices, {}, false);
    REQUIRE_MESSAGE(!failure, failure.message);
    failure = host->openVolume("v0", type, devices, {}, &volume);
    REQUIRE_MESSAGE(!failure, failure.message);
    for (int i = 0; i < diskCount; ++i) {
      VirtualDisk* disk = nullptr;
      failure = volume->createDisk("vm-" + std::to_string(i), "vda", 16 * kMiB, &disk);
      REQUIRE_MESSAGE(!failure, failure.message);
      disks.push_back(disk);
    }
  }
  ~Bench() {
    if (probe) CHECK(probe->detach(10 * kSecond) == 0);
    probe.reset();
    CHECK_FALSE(host->close());
    host.reset();
    std::filesystem::remove_all(folder);
  }

  void attach(const std::string& association = "serial", uint32_t capacity = 65536) {
    ProbeOptions options;
    options.association = association;
    options.capacity = capacity;
    std::string why;
    REQUIRE_MESSAGE(Probe::create(host->stack(), map, options, &probe, &why) == 0, why);
    for (VirtualDisk* disk : disks) REQUIRE(probe->addDisk(disk->contract()) == 0);
    for (sm_device* device : devices) REQUIRE(probe->addDevice(device) == 0);
    probe->begin();
  }

  DiskKey key(int disk) const { return map->findDisk({"vm-" + std::to_string(disk), "vda"}); }
};

struct Run {
  std::mutex mutex;
  std::condition_variable ended;
  bool over = false;
  WorkloadResult result;
  std::unique_ptr<Workload> workload;

  Run(VirtualDisk& disk, const WorkloadOptions& options) : workload(std::make_unique<Workload>(disk, options)) {
    Failure failure = Workload::checkOptions(disk, options);
    REQUIRE_MESSAGE(!failure, failure.message);
    workload->start([this](const WorkloadResult& r) {
      std::lock_guard lock(mutex);
      result = r;
      over = true;
      ended.notify_all();
    });
  }
  const WorkloadResult& wait() {
    std::unique_lock lock(mutex);
    ended.wait(lock, [&] { return over; });
    return result;
  }
};

struct Waiting : DiskIo {
  std::atomic<bool> ended{false};
};

int32_t io(VirtualDisk& disk, uint8_t op, uint64_t offset, uint64_t length, void* data) {
  Waiting io;
  io.op = op;
  io.offset = offset;
  io.length = length;
  if (data) io.iov[0] = {data, length}, io.iovCount = 1;
  io.done = [](DiskIo* self) { static_cast<Waiting*>(self)->ended.store(true); };
  disk.submit(&io);
  while (!io.ended.load()) std::this_thread::yield();
  return io.status;
}

// Compares every mapped extent with the device, read outside the stack. Returns the bytes that are mapped.
uint64_t verifyMap(Bench& bench, int disk) {
  uint64_t mapped = 0;
  for (const VirtualExtent& extent : bench.map->extents(bench.key(disk), 0, SIZE_MAX)) {
    if (extent.state != State::kMapped) continue;
    std::vector<char> above(extent.length), below(extent.length);
    for (uint64_t at = 0; at < extent.length; at += kMaxTransfer) {
      uint64_t part = std::min(kMaxTransfer, extent.length - at);
      REQUIRE(io(*bench.disks[static_cast<size_t>(disk)], SM_OP_READ, extent.diskOffset + at, part,
                 above.data() + at) == 0);
    }
    for (const Place& place : extent.places) {
      std::string name = bench.map->deviceName(place.device);
      int fd = open((bench.folder + "/" + name).c_str(), O_RDONLY);
      REQUIRE(fd >= 0);
      REQUIRE(pread(fd, below.data(), extent.length, static_cast<off_t>(place.offset)) ==
              static_cast<ssize_t>(extent.length));
      close(fd);
      CHECK(above == below);
      for (const PhysicalExtent& owner : bench.map->owners(place.device, place.offset, extent.length)) {
        if (owner.state != State::kMapped) continue;
        CHECK(owner.disk == bench.key(disk));
        CHECK(owner.diskOffset - extent.diskOffset == owner.offset - place.offset);
      }
    }
    mapped += extent.length;
  }
  return mapped;
}

uint64_t sum(const Bench& bench, Fate fate, bool bytes) {
  uint64_t total = 0;
  for (DeviceKey key = 0; key < bench.map->deviceCount(); ++key) {
    const Tally tally = bench.map->deviceLedger(key).fates[static_cast<size_t>(fate)];
    total += bytes ? tally.bytes : tally.operations;
  }
  return total;
}

}  // namespace

TEST_CASE("what a workload writes is mapped, whole, and equals the device's bytes") {
  for (const char* type : {"extent", "log", "stripe"}) {
    for (const char* association : {"serial", "tag"}) {
      CAPTURE(type);
      CAPTURE(association);
      Bench bench(type, 2, 2);
      bench.attach(association);
      CHECK(bench.probe->learning());
      WorkloadOptions options;
      options.pattern = "write";
      options.blockSize = 64 << 10;
      options.operations = 16 * kMiB / options.blockSize;
      options.verify = true;
      Run a(*bench.disks[0], options), b(*bench.disks[1], options);
      CHECK(a.wait().errors + b.wait().errors + a.wait().mismatches + b.wait().mismatches == 0);
      CHECK(verifyMap(bench, 0) == 16 * kMiB);
      CHECK(verifyMap(bench, 1) == 16 * kMiB);
      CHECK(sum(bench, Fate::kAttributed, false) > 0);
      CHECK(sum(bench, Fate::kAmbiguous, false) == 0);
    }
  }
}

TEST_CASE("random writes, overwrites, discards and zeroes on two disks leave only true mappings") {
  Bench bench("extent", 2, 2);
  bench.attach();
  WorkloadOptions options;
  options.pattern = "mixed";
  options.readPercent = 30;
  options.discardPercent = 10;
  options.zeroesPercent = 5;
  options.flushPercent = 1;
  options.operations = 20000;
  options.verify = true;
  Run a(*bench.disks[0], options);
  options.seed = 2;
  Run b(*bench.disks[1], options);
  CHECK(a.wait().errors + b.wait().errors + a.wait().mismatches + b.wait().mismatches == 0);
  CHECK(verifyMap(bench, 0) > 0);
  CHECK(verifyMap(bench, 1) > 0);
}

TEST_CASE("reads alone teach, and a mapping is stale once nobody watches") {
  Bench bench("extent", 1, 1);
  std::vector<char> data(kMiB);
  std::mt19937_64 random(1);
  for (auto& byte : data) byte = static_cast<char>(random());
  REQUIRE(io(*bench.disks[0], SM_OP_WRITE, 0, kMiB, data.data()) == 0);
  bench.attach();
  std::vector<char> back(kMiB);
  REQUIRE(io(*bench.disks[0], SM_OP_READ, 0, kMiB, back.data()) == 0);
  CHECK(back == data);
  CHECK(verifyMap(bench, 0) == kMiB);
  CHECK(bench.probe->detach(kSecond) == 0);
  for (const auto& extent : bench.map->locate(bench.key(0), 0, kMiB)) CHECK(extent.state == State::kStale);
  bench.probe.reset();
}

TEST_CASE("attached and detached a thousand times under a verify workload of depth 32, nothing is lost or doubled") {
  Bench bench("extent", 2, 1);
  WorkloadOptions options;
  options.pattern = "randrw";
  options.seconds = 3600;
  options.verify = true;
  Run run(*bench.disks[0], options);
  const int rounds = 1000;
  for (int i = 0; i < rounds; ++i) {
    bench.attach(i % 2 ? "serial" : "tag");
    CHECK(bench.probe->detach(10 * kSecond) == 0);
    bench.probe.reset();
  }
  run.workload->stop();
  const WorkloadResult& result = run.wait();
  CHECK(result.operations > 0);
  CHECK(result.errors == 0);
  CHECK(result.mismatches == 0);
  CHECK(result.verifiedBytes > 0);
}

TEST_CASE("learning begins under load, when what was in flight at attach has ended") {
  Bench bench("extent", 1, 1);
  WorkloadOptions options;
  options.pattern = "randwrite";
  options.seconds = 3600;
  options.verify = true;
  Run run(*bench.disks[0], options);
  bench.attach();
  for (int i = 0; i < 1000 && !bench.probe->learning(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(bench.probe->learning());
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  run.workload->stop();
  CHECK(run.wait().mismatches == 0);
  CHECK(verifyMap(bench, 0) > 0);
}

TEST_CASE("a full table: requests succeed, are counted, and nothing wrong is mapped") {
  Bench bench("extent", 1, 1);
  bench.attach("serial", 64);
  WorkloadOptions options;
  options.pattern = "randwrite";
  options.queueDepth = 256;
  options.operations = 20000;
  options.verify = true;
  Run run(*bench.disks[0], options);
  CHECK(run.wait().errors + run.wait().mismatches == 0);
  CHECK(bench.probe->counters().unrecorded > 0);
  CHECK(bench.map->ledger().unmapped[static_cast<size_t>(Unmapped::kUnrecorded)].bytes > 0);
  verifyMap(bench, 0);
}

TEST_CASE("nothing on a shared device is ever mapped") {
  Bench bench("extent", 1, 1, true);
  bench.attach();
  std::vector<char> data(64 << 10, 'x');
  REQUIRE(io(*bench.disks[0], SM_OP_WRITE, 0, data.size(), data.data()) == 0);
  auto extents = bench.map->locate(bench.key(0), 0, data.size());
  REQUIRE(extents.size() == 1);
  CHECK(extents[0].state == State::kStale);
  CHECK(extents[0].places.size() == 1);
  CHECK(bench.map->ledger().unmapped[static_cast<size_t>(Unmapped::kShared)].bytes == data.size());
}

TEST_CASE("completion events carry the request, its pieces and times in order") {
  Bench bench("stripe", 2, 1);
  bench.attach();
  EventRing ring(1 << 12, 0);
  std::atomic<int> woken{0};
  bench.probe->subscribe(
      &ring, [](void* context) { static_cast<std::atomic<int>*>(context)->fetch_add(1); }, &woken);
  REQUIRE(ring.arm());
  std::vector<char> data(256 << 10, 'x');
  REQUIRE(io(*bench.disks[0], SM_OP_WRITE, 128 << 10, data.size(), data.data()) == 0);
  std::vector<double> words(1 << 12);
  CHECK(woken == 1);
  size_t n = ring.drain(words.data(), words.size());
  using W = EventWords;
  REQUIRE(n >= static_cast<size_t>(W::kHead));
  CHECK(words[W::kWords] == static_cast<double>(n));
  CHECK(words[W::kOp] == SM_OP_WRITE);
  CHECK(words[W::kStatus] == 0);
  CHECK(words[W::kDiskOffset] == 128 << 10);
  CHECK(words[W::kLength] == 256 << 10);
  CHECK(words[W::kSubmitted] <= words[W::kFirstIssued]);
  CHECK(words[W::kFirstIssued] <= words[W::kLastCompleted]);
  CHECK(words[W::kLastCompleted] <= words[W::kCompleted]);
  REQUIRE(words[W::kPieces] == 4);
  double total = 0;
  for (int i = 0; i < 4; ++i) total += words[static_cast<size_t>(W::kHead + i * W::kPiece + W::kPieceLength)];
  CHECK(total == 256 << 10);
  CHECK(ring.dropped() == 0);
  bench.probe->subscribe(nullptr, nullptr, nullptr);
}

TEST_CASE("two probes cannot watch one disk with one map; unknown associations and correlations are refused by name") {
  Bench bench("extent", 1, 1);
  bench.attach();
  std::unique_ptr<Probe> second;
  std::string why;
  REQUIRE(Probe::create(bench.host->stack(), bench.map, {}, &second, &why) == 0);
  CHECK(second->addDisk(bench.disks[0]->contract()) == -EEXIST);
  CHECK(second->addDevice(bench.devices[0]) == -EEXIST);
  ProbeOptions options;
  options.association = "telepathy";
  CHECK(Probe::create(bench.host->stack(), bench.map, options, &second, &why) == -ENOTSUP);
  CHECK(why.find("serial") != std::string::npos);
  options.association = "serial";
  options.correlation = "sideways";
  CHECK(Probe::create(bench.host->stack(), bench.map, options, &second, &why) == -ENOTSUP);
  options.correlation = "descend";
  options.capacity = 1;
  CHECK(Probe::create(bench.host->stack(), bench.map, options, &second, &why) == -EINVAL);
}
