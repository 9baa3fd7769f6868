// A map and its file: what is loaded, and when it is written.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "map/store/map_store.h"
#include "native/map/store_rig.h"

using namespace sm;

namespace {

constexpr uint64_t kKi = 1024, kMi = kKi * kKi, kGi = kKi * kMi;
using Call = MemoryFiles::Call;

size_t countOf(const MemoryFiles& files, Call::Kind kind) {
  return std::count_if(files.calls.begin(), files.calls.end(), [&](const Call& call) { return call.kind == kind; });
}

// Random changes of a map.
struct Changer {
  Changer(uint64_t seed, AddressMap& map) : random(seed) {
    std::vector<std::string> names = {"a", "b", "c"};
    std::shuffle(names.begin(), names.end(), random);
    for (const std::string& name : names) disks.push_back(map.internDisk({"vm", name}));
    std::shuffle(names.begin(), names.end(), random);
    for (const std::string& name : names) devices.push_back(map.internDevice(name));
  }
  uint64_t below(uint64_t n) { return random() % n; }

  // Across the borders of regions and nodes, far away, and in units that do not pack.
  void change(AddressMap& map) {
    const uint64_t unit = below(6) == 0 ? 512 : below(30) == 0 ? 1 : 4 * kKi;
    const uint64_t base = below(3) == 0 ? 16 * kMi - 32 * kKi : below(20) == 0 ? (kGi << 20) : 0;
    const uint64_t length = unit * (1 + below(below(10) == 0 ? 20'000 : 40));
    const uint64_t begin = base + below(64) * unit;
    const Range range{begin, begin + length};
    const Place place{devices[below(devices.size())], below(96) * unit + (below(2) == 0 ? base : 0)};
    const DiskKey disk = disks[below(disks.size())];
    const uint64_t kind = below(20);
    std::lock_guard lock(map.mutex());
    if (kind < 12) map.add(disk, range, place, kind < 10 ? State::kMapped : State::kStale, kind == 3);
    if (kind >= 12 && kind < 15) map.removeVirtual(disk, range);
    if (kind == 15 || kind == 16) map.removePhysical(place.device, {place.offset, place.offset + length});
    if (kind == 17) map.stalePhysical(place.device, {place.offset, place.offset + length});
    if (kind == 18) map.moving(place.device, {place.offset, place.offset + length});
    if (kind == 19 && unit == 512) map.removeVirtual(disk, {0, UINT64_MAX});
  }

  std::mt19937_64 random;
  std::vector<DiskKey> disks;
  std::vector<DeviceKey> devices;
};

}  // namespace

TEST_CASE("what is loaded is what there was, all of it stale") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    MemoryFiles files;
    std::shared_ptr<AddressMap> before = std::make_shared<AddressMap>();
    for (int run = 0; run < 5; ++run) {
      CAPTURE(run);
      StoredMap stored(files);
      REQUIRE_FALSE(stored.failure);
      CHECK(tell(*stored.map) == tell(*before));
      CHECK(tellOwners(*stored.map) == tellOwners(*before));
      CHECK(tell(*stored.map) == tellOwners(*stored.map));
      // The same disks and devices have other keys every time.
      Changer changer(seed * 100 + run, *stored.map);
      for (int step = 0; step < 150; ++step) {
        changer.change(*stored.map);
        if (changer.below(40) == 0) REQUIRE_FALSE(stored.store->flush());
      }
      REQUIRE_FALSE(stored.store->close());
      before = stored.map;
      std::lock_guard lock(before->mutex());
      before->staleAll();
    }
  }
}

TEST_CASE("what only confirms, or changes a state, is not written; nor what is the same in the end") {
  MemoryFiles files;
  StoredMap stored(files);
  const DiskKey disk = stored.map->internDisk({"vm", "a"});
  const DeviceKey device = stored.map->internDevice("x");
  stored.add(disk, {0, kMi}, {device, kMi});
  REQUIRE_FALSE(stored.store->flush());
  stored.add(disk, {kMi, 2 * kMi}, {device, 0});
  REQUIRE_FALSE(stored.store->flush());
  const size_t calls = files.calls.size(), bytes = files.bytesOf("map").size();

  stored.add(disk, {0, kMi}, {device, kMi});
  stored.add(disk, {4096, 8192}, {device, kMi + 4096});
  {
    std::lock_guard lock(stored.map->mutex());
    stored.map->staleAll();
    stored.map->moving(device, {0, kMi});
    stored.map->removeVirtual(disk, {8 * kMi, UINT64_MAX});
    stored.map->removePhysical(device, {8 * kMi, UINT64_MAX});
  }
  stored.add(disk, {0, kMi}, {device, kMi});
  REQUIRE_FALSE(stored.store->flush());
  CHECK(files.calls.size() == calls);

  // Taken away, and then found at the same place.
  for (int i = 0; i < 3; ++i) {
    stored.remove(disk, {kMi, kMi + 4096});
    stored.add(disk, {kMi, kMi + 4096}, {device, 0});
    REQUIRE_FALSE(stored.store->flush());
    CHECK(files.bytesOf("map").size() == bytes);
  }
  stored.add(disk, {0, 4096}, {device, 8 * kMi});
  REQUIRE_FALSE(stored.store->close());
  CHECK(tell(*StoredMap(files).map).size() == 3);
}

TEST_CASE("a large removal is one record, and many are no more than all there is") {
  MemoryFiles files;
  StoredMap stored(files);
  const DiskKey disk = stored.map->internDisk({"vm", "a"});
  const DeviceKey device = stored.map->internDevice("x");
  stored.add(disk, {0, 64 * kGi}, {device, kMi});
  REQUIRE_FALSE(stored.store->flush());
  uint64_t bytes = files.bytesOf("map").size();
  stored.remove(disk, {0, UINT64_MAX});
  REQUIRE_FALSE(stored.store->flush());
  CHECK(files.bytesOf("map").size() - bytes < 100);
  CHECK(tell(*StoredMap(*files.crashed(files.calls.size(), 1)).map).empty());

  // So many that the writer is called, or else has everything to write.
  for (uint64_t i = 0; i <= Changes::kMost; ++i) stored.add(disk, {i * kMi, i * kMi + 4096}, {device, i * 4096});
  REQUIRE_FALSE(stored.store->close());
  CHECK(tell(*StoredMap(files).map).size() == Changes::kMost + 1);
}

TEST_CASE("changes are told once, and all at once where they are too many") {
  int many = 0;
  Changes changes([&] { ++many; });
  for (int round = 0; round < 2; ++round) {
    CHECK(changes.empty());
    for (uint64_t i = 0; i < 1000; ++i) {
      changes.mark(1, {i * 100, i * 100 + 100});
      changes.mark(2, {i * kMi, i * kMi + 512 * kKi});
      changes.mark(2, {kGi, 2 * kGi});
    }
    changes.mark(3, {UINT64_MAX - 1, UINT64_MAX});
    CHECK(changes.parts().size() == 1 + 2000 + 1000 + 1);
    CHECK(many == 0);
    for (uint64_t i = 0; i < Changes::kMost; ++i) changes.mark(4, {i * kMi, i * kMi + 1});
    CHECK(many == 1);
    CHECK(changes.everything());
    CHECK(changes.parts().size() == Changes::kMost);
    changes.clear();
    many = 0;
  }
}

TEST_CASE("a journal that has become long makes room for a snapshot") {
  MemoryFiles files;
  StoredMap stored(files);
  const DiskKey disk = stored.map->internDisk({"vm", "a"});
  const DeviceKey device = stored.map->internDevice("x");
  stored.add(disk, {64 * 100 * 4096, 64 * 101 * 4096}, {device, 0});
  for (uint64_t round = 0; countOf(files, Call::kRename) < 3; ++round) {
    REQUIRE(round < 200);
    for (uint64_t i = 0; i < 64 * 100; ++i) {
      stored.add(disk, {i * 4096, i * 4096 + 4096}, {device, (round + i * 7919) % 10'000 * 4096});
    }
    REQUIRE_FALSE(stored.store->flush());
    CHECK(files.bytesOf("map").size() < 8 * kMi);
  }
  REQUIRE_FALSE(stored.store->close());
  {
    std::lock_guard lock(stored.map->mutex());
    stored.map->staleAll();
  }
  CHECK(tell(*StoredMap(files).map) == tell(*stored.map));
}

TEST_CASE("it writes by itself, at every interval") {
  MemoryFiles files;
  std::atomic<int> written{0};
  files.fault = [&](const Call& call) {
    written += call.kind == Call::kSyncFolder;
    return 0;
  };
  StoredMap stored(files, "map", std::chrono::milliseconds(1));
  stored.add(stored.map->internDisk({"vm", "a"}), {0, 4096}, {stored.map->internDevice("x"), 0});
  while (written == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(stored.store->notices().empty());
}

TEST_CASE("it writes and is flushed while it changes") {
  MemoryFiles files;
  StoredMap stored(files, "map", std::chrono::milliseconds(1));
  const DeviceKey device = stored.map->internDevice("x");
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 2; ++thread) {
    threads.emplace_back([&, thread, disk = stored.map->internDisk({"vm", std::to_string(thread)})] {
      std::mt19937_64 random(thread);
      if (thread == 0) stored.map->mutex().own();  // as an I/O thread does
      for (int i = 0; i < 20'000; ++i) {
        const uint64_t begin = random() % 4096 * 4096;
        if (random() % 4 == 0) stored.remove(disk, {begin, begin + random() % (64 * kMi)});
        stored.add(disk, {begin, begin + 4096}, {device, random() % 100'000 * 4096});
      }
      if (thread == 0) stored.map->mutex().disown();
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; i < 20; ++i) CHECK_FALSE(stored.store->flush());
  });
  for (std::thread& thread : threads) thread.join();
  CHECK_FALSE(stored.store->close());
  {
    std::lock_guard lock(stored.map->mutex());
    stored.map->staleAll();
  }
  CHECK(tell(*StoredMap(files).map) == tell(*stored.map));
}

TEST_CASE("a map goes on that its store has let go of, at whatever instant") {
  for (int round = 0; round < 100; ++round) {
    MemoryFiles files;
    StoredMap stored(files, "map", std::chrono::milliseconds(1));
    const DeviceKey device = stored.map->internDevice("x");
    const DiskKey disk = stored.map->internDisk({"vm", "a"});
    std::atomic<bool> over{false};
    std::thread changing([&] {
      std::mt19937_64 random(round);
      while (!over) stored.add(disk, {0, 4096}, {device, random() % 100'000 * 4096});
    });
    std::this_thread::sleep_for(std::chrono::microseconds(20 * round));
    CHECK_FALSE(stored.store->close());
    stored.store.reset();
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    over = true;
    changing.join();
  }
}

TEST_CASE("one at a time") {
  MemoryFiles files;
  StoredMap first(files);
  REQUIRE_FALSE(first.failure);
  StoredMap second(files);
  CHECK(second.failure.code == std::string("ERR_STRATAMAP_BUSY"));
  CHECK(second.failure.message.find("map") != std::string::npos);
  REQUIRE_FALSE(first.store->flush());  // which puts another file there
  CHECK(StoredMap(files).failure.error == EBUSY);
  REQUIRE_FALSE(first.store->close());
  REQUIRE_FALSE(first.store->close());
  CHECK(first.store->flush().error == EBADF);
  CHECK_FALSE(StoredMap(files).failure);
}

TEST_CASE("what stood behind a torn record does not come back") {
  MemoryFiles files;
  size_t torn = 0;
  {
    StoredMap stored(files);
    const DiskKey disk = stored.map->internDisk({"vm", "a"});
    const DeviceKey device = stored.map->internDevice("x");
    stored.add(disk, {0, 4096}, {device, 0});
    REQUIRE_FALSE(stored.store->flush());
    torn = files.bytesOf("map").size();
    for (uint64_t i = 1; i <= 3; ++i) stored.add(disk, {i * kMi, i * kMi + 4096}, {device, i * 4096});
  }
  files.bytesOf("map")[torn + 20] ^= 1;
  {
    StoredMap stored(files);
    CHECK(tell(*stored.map).size() == 1);
    stored.add(stored.map->findDisk({"vm", "a"}), {kMi, kMi + 4096}, {stored.map->findDevice("x"), 4608});
  }
  CHECK(tell(*StoredMap(files).map).size() == 2);
}

TEST_CASE("what was known before a snapshot is not taken for known after it") {
  MemoryFiles files;
  StoredMap stored(files);
  const DiskKey disk = stored.map->internDisk({"vm", "a"});
  const DeviceKey device = stored.map->internDevice("x");
  for (uint64_t place : {0, 4096, 8192, 4096}) {
    stored.remove(disk, {0, 4096});
    stored.add(disk, {0, 4096}, {device, place});
    if (place == 8192) {
      std::lock_guard lock(stored.map->mutex());
      Changes* changes = stored.map->markIn(nullptr);
      changes->markEverything();
      stored.map->markIn(changes);
    }
    REQUIRE_FALSE(stored.store->flush());
  }
  REQUIRE_FALSE(stored.store->close());
  CHECK(countOf(files, Call::kRename) == 2);
  const std::vector<VirtualExtent> found = StoredMap(files).map->locate(0, 0, 4096);
  CHECK(found[0].places[0].offset == 4096);
}

TEST_CASE("on a real file system") {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("map-store-" + std::to_string(getpid()));
  std::filesystem::create_directory(folder);
  const std::string path = folder / "a.map";
  StoreFiles& system = StoreFiles::system();
  {
    StoredMap stored(system, path);
    REQUIRE_FALSE(stored.failure);
    CHECK(StoredMap(system, path).failure.error == EBUSY);
    REQUIRE_FALSE(stored.store->flush());
    chmod(path.c_str(), 0640);
    stored.add(stored.map->internDisk({"vm", "a"}), {0, 4096}, {stored.map->internDevice("x"), 0});
    std::lock_guard lock(stored.map->mutex());
    stored.map->markIn(nullptr)->markEverything();
  }
  std::ofstream(path + ".unfinished") << "what a crash has left";
  std::filesystem::create_symlink("a.map", folder / "link");
  {
    StoredMap stored(system, folder / "link");
    REQUIRE_FALSE(stored.failure);
    CHECK(StoredMap(system, path).failure.error == EBUSY);
    CHECK(tell(*stored.map).size() <= 1);
    stored.add(stored.map->internDisk({"vm", "b"}), {0, 4096}, {stored.map->internDevice("x"), 4096});
  }
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK_FALSE(std::filesystem::exists(path + ".unfinished"));
  struct stat st;
  REQUIRE(stat(path.c_str(), &st) == 0);
  CHECK((st.st_mode & 07777) == 0640);
  CHECK(StoredMap(system, folder).failure.code == std::string("ERR_STRATAMAP_MAP"));
  CHECK(StoredMap(system, "/dev/null").failure.code == std::string("ERR_STRATAMAP_MAP"));
  CHECK(StoredMap(system, folder / "none" / "map").failure.error == ENOENT);
  std::filesystem::remove_all(folder);
}
