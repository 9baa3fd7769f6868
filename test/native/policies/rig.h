// What the tests of policies share: a real host on real files with a volume and some disks, requests straight to a
// device, and interposers that watch.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "intercept/dispatch.h"
#include "intercept/probe.h"
#include "native/host/stack_of.h"
#include "policies/policy.h"

namespace sm::test {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSecond = 1'000'000'000, kHour = 3600 * kSecond;

struct Rig {
  TempFolder folder;
  std::unique_ptr<Host> host;
  std::vector<sm_device*> devices;
  std::vector<std::string> paths;
  Volume* volume = nullptr;
  std::vector<VirtualDisk*> disks;
  std::shared_ptr<AddressMap> map = std::make_shared<AddressMap>();
  std::unique_ptr<Probe> probe;
  bool closesWell = true;  // false: the volume may say at its end that it lost something

  explicit Rig(uint32_t threads = 1, int deviceCount = 1, uint64_t bytes = 32 * kMiB) {
    HostOptions options;
    options.threads = threads;
    host = openHost(options);
    for (int i = 0; i < deviceCount; ++i) {
      const std::string name = "d" + std::to_string(i);
      paths.push_back(folder.file(name, bytes));
      devices.push_back(openDevice(*host, name, paths.back()));
    }
  }
  ~Rig() {
    if (probe) CHECK(probe->detach(10 * kSecond) == 0);
    probe.reset();
    const Failure failure = host->close();
    CHECK_MESSAGE((!failure || !closesWell), failure.message);
  }

  void open(const std::string& type, int diskCount, uint64_t bytes = 8 * kMiB) {
    REQUIRE_OK(host->formatVolume(type, devices, {}, false));
    REQUIRE_OK(host->openVolume("v0", type, devices, {}, &volume));
    for (int i = 0; i < diskCount; ++i) {
      VirtualDisk* disk = nullptr;
      REQUIRE_OK(volume->createDisk("vm-" + std::to_string(i), "vda", bytes, &disk));
      disks.push_back(disk);
    }
  }
  void attach(const std::string& association = "serial", const std::string& correlation = "descend") {
    ProbeOptions options;
    options.association = association;
    options.correlation = correlation;
    std::string why;
    REQUIRE_MESSAGE(Probe::create(host->stack(), map, options, &probe, &why) == 0, why);
    for (VirtualDisk* disk : disks) REQUIRE(probe->addDisk(disk->contract()) == 0);
    for (sm_device* device : devices) REQUIRE(probe->addDevice(device) == 0);
    probe->begin();
    REQUIRE(probe->learning());
  }
  void add(Policy& policy, size_t position = 0) {
    for (sm_device* device : devices) REQUIRE(policy.addDevice(device, position) == 0);
  }
  void put(std::vector<std::unique_ptr<Interposer>>& each, size_t position = 0) {
    for (size_t i = 0; i < devices.size(); ++i) {
      REQUIRE(DispatchChain::of(devices[i]).insert(each[i].get(), position) == 0);
    }
  }
  void take(std::vector<std::unique_ptr<Interposer>>& each) {
    for (size_t i = 0; i < devices.size(); ++i) {
      CHECK(DispatchChain::of(devices[i]).remove(host->stack(), each[i].get(), 10 * kSecond) == 0);
    }
  }
  // What is in the file, read outside the stack.
  std::vector<char> medium(int device, uint64_t offset, uint64_t length) const {
    std::vector<char> bytes(length);
    const int fd = ::open(paths[static_cast<size_t>(device)].c_str(), O_RDONLY);
    REQUIRE(fd >= 0);
    CHECK(pread(fd, bytes.data(), length, static_cast<off_t>(offset)) == static_cast<ssize_t>(length));
    close(fd);
    return bytes;
  }
  // Every mapped byte is compared with the disk's; returns how many there are.
  uint64_t verifyMap() {
    uint64_t mapped = 0;
    for (size_t i = 0; i < disks.size(); ++i) {
      const DiskKey key = map->findDisk({"vm-" + std::to_string(i), "vda"});
      for (const VirtualExtent& extent : map->extents(key, 0, SIZE_MAX)) {
        if (extent.state != State::kMapped) continue;
        std::vector<char> above(extent.length);
        for (uint64_t at = 0; at < extent.length; at += kMaxTransfer) {
          const uint64_t part = std::min(kMaxTransfer, extent.length - at);
          REQUIRE(diskIo(*disks[i], SM_OP_READ, extent.diskOffset + at, above.data() + at, part) == 0);
        }
        for (const Place& place : extent.places) {
          const int device = std::stoi(map->deviceName(place.device).substr(1));
          CHECK(above == medium(device, place.offset, extent.length));
        }
        mapped += extent.length;
      }
    }
    return mapped;
  }
};

// A request of one's own, straight to a device.
struct DeviceIo {
  IoThread* thread;
  sm_device* device;
  uint8_t op;
  uint64_t offset;
  iovec iov;
  std::promise<int32_t> promise;
  std::future<int32_t> done = promise.get_future();

  DeviceIo(Host& host, sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length)
      : thread(host.threads()[0].get()), device(device), op(op), offset(offset), iov{data, length} {
    onThread(*thread, [this] {
      sm_request* request = thread->allocate();
      REQUIRE(request);
      request->op = this->op;
      request->offset = this->offset;
      request->length = iov.iov_len;
      if (iov.iov_base) {
        request->iov = &iov;
        request->iov_count = 1;
      }
      sm_request_push(
          request,
          [](sm_request* request, void* context, uint64_t) {
            auto* io = static_cast<DeviceIo*>(context);
            const int32_t status = request->status;
            io->thread->release(request);
            io->promise.set_value(status);
          },
          this, 0);
      sm_device_submit(this->device, request);
    });
  }
};

inline int32_t deviceIo(Host& host, sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length) {
  DeviceIo io(host, device, op, offset, data, length);
  return io.done.get();
}

template <typename F>
bool eventually(F&& holds) {
  for (int i = 0; i < 60'000 && !holds(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return holds();
}

// Marks what a disk is asked, so that what a volume clones for it can be told below by other means than ours.
struct Mark {
  static constexpr int kField = 1;  // of spare: associations use it for `inline` alone
  uint64_t number;
  bool each = false;  // each request gets a number of its own, from `number` on
  std::atomic<uint64_t> next{0};

  static const sm_filter_ops* ops() {
    static const sm_filter_ops table{SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "mark",
                                     [](void* self, sm_request* request) -> int {
                                       auto* mark = static_cast<Mark*>(self);
                                       request->spare[kField] = mark->number + (mark->each ? mark->next++ : 0);
                                       return SM_FILTER_NEXT;
                                     },
                                     nullptr};
    return &table;
  }
};

}  // namespace sm::test
