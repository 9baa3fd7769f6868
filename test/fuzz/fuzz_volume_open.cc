// Arbitrary bytes on the devices of a volume. Every volume that is registered opens them; where it does, its disks are
// used as the input says, and everything written must be there: after each reopen too. Nothing crashes, leaks, hangs
// (the harness sees that), touches a byte outside the devices (so does it), or allocates by what the medium says
// (-malloc_limit_mb); nor is anything written to a medium that is not the volume's own.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "fuzz/volume_images.h"
#include "volumes/registry.h"

using namespace sm;
using namespace sm::fuzz;

namespace {

constexpr uint64_t kBlock = 512;
constexpr uint64_t kLongest = 64 << 10;  // bytes of one request
constexpr size_t kMostDisks = 6;         // that are used

struct Disk {
  std::string vm, name;
  uint64_t bytes = 0;
  void* handle = nullptr;
  std::vector<std::optional<uint8_t>> blocks;  // what each is filled with, where that is known
};

class Session {
 public:
  Session(const sm_volume_ops* ops, test::World& world) : ops_(ops), world_(world) {}
  ~Session() { SM_MUST(!volume_); }

  bool open() {
    sm_error error{};
    const auto& devices = world_.devices();
    const int32_t status = ops_->open(world_.services(), devices.data(), static_cast<uint32_t>(devices.size()), nullptr,
                                      0, &volume_, &error);
    if (status == 0) return true;
    SM_MUST(error.code == status && std::strlen(error.message) > 20);
    volume_ = nullptr;
    return false;
  }

  // Opens every disk: those that are known must be there as they were, the first time all are new.
  void openDisks() {
    std::vector<Disk> found;
    sm_error error{};
    SM_MUST(ops_->disk_list(
                volume_,
                [](void* found, const sm_disk_info* info) {
                  SM_MUST(std::memchr(info->vm, 0, sizeof info->vm) && std::memchr(info->name, 0, sizeof info->name));
                  static_cast<std::vector<Disk>*>(found)->push_back({info->vm, info->name, info->bytes, nullptr, {}});
                },
                &found, &error) == 0);
    if (reopened_) SM_MUST(found.size() == listed_);
    listed_ = found.size();
    for (const Disk& disk : found) {
      if (disks_.size() < kMostDisks && !reopened_) disks_.push_back(disk);
      const auto known = std::find_if(disks_.begin(), disks_.end(),
                                      [&](const Disk& each) { return each.vm == disk.vm && each.name == disk.name; });
      if (known != disks_.end()) SM_MUST(known->bytes == disk.bytes);
    }
    for (Disk& disk : disks_) openDisk(disk);
    reopened_ = true;
  }

  void act(FuzzedDataProvider& input) {
    const auto kind = input.ConsumeIntegralInRange<uint8_t>(0, 8);
    if (kind == 6) return create(input);
    if (disks_.empty()) return;
    const size_t index = input.ConsumeIntegralInRange<size_t>(0, disks_.size() - 1);
    Disk& disk = disks_[index];
    sm_error error{};
    if (kind == 7) {
      closeDisk(disk);
      SM_MUST(ops_->disk_delete(volume_, disk.vm.c_str(), disk.name.c_str(), &error) == 0);
      disks_.erase(disks_.begin() + static_cast<long>(index));
      --listed_;
    } else if (kind == 8) {
      const uint64_t bytes = input.ConsumeIntegralInRange<uint64_t>(1, 128) * kBlock;
      if (ops_->disk_resize(volume_, disk.handle, bytes, &error)) return;
      // What was cut off reads as zeroes when it comes back.
      disk.blocks.resize(bytes / kBlock, uint8_t{0});
      disk.bytes = bytes;
    } else {
      static constexpr uint8_t kOps[] = {SM_OP_READ,    SM_OP_WRITE,        SM_OP_FLUSH,
                                         SM_OP_DISCARD, SM_OP_WRITE_ZEROES, SM_OP_WRITE};
      const uint64_t first = input.ConsumeIntegralInRange<uint64_t>(0, disk.blocks.size() - 1);
      const uint64_t most = std::min(disk.blocks.size() - first, kLongest / kBlock);
      request(disk, kOps[kind], first, input.ConsumeIntegralInRange<uint64_t>(1, most),
              input.ConsumeIntegral<uint8_t>(), input.ConsumeBool() ? SM_FLAG_FUA : 0);
    }
  }

  void verify() {
    for (Disk& disk : disks_)
      for (uint64_t at = 0; at < disk.blocks.size(); at += kLongest / kBlock)
        request(disk, SM_OP_READ, at, std::min(disk.blocks.size() - at, kLongest / kBlock), 0, 0);
  }

  void close() {
    for (Disk& disk : disks_) closeDisk(disk);
    sm_error error{};
    SM_MUST(ops_->close(volume_, &error) == 0);
    volume_ = nullptr;
  }

 private:
  void openDisk(Disk& disk) {
    sm_error error{};
    uint64_t bytes = 0;
    SM_MUST(ops_->disk_open(volume_, disk.vm.c_str(), disk.name.c_str(), &disk.handle, &bytes, &error) == 0);
    SM_MUST(bytes == disk.bytes && bytes > 0 && bytes % kBlock == 0 && bytes <= kDevices * kDeviceBytes);
    disk.blocks.resize(bytes / kBlock);
  }

  void closeDisk(Disk& disk) {
    if (disk.handle) ops_->disk_close(volume_, disk.handle);
    disk.handle = nullptr;
  }

  void create(FuzzedDataProvider& input) {
    Disk disk{"new",
              std::string(1, static_cast<char>('a' + input.ConsumeIntegralInRange(0, 2))),
              input.ConsumeIntegralInRange<uint64_t>(1, 64) * kBlock,
              nullptr,
              {}};
    sm_error error{};
    if (ops_->disk_create(volume_, disk.vm.c_str(), disk.name.c_str(), disk.bytes, &error)) return;
    ++listed_;
    disk.blocks.resize(disk.bytes / kBlock, uint8_t{0});
    openDisk(disk);
    disks_.push_back(std::move(disk));
  }

  // One request, and its completion awaited. What is read must be what was written.
  void request(Disk& disk, uint8_t op, uint64_t first, uint64_t count, uint8_t value, uint32_t flags) {
    const bool flush = op == SM_OP_FLUSH, data = op == SM_OP_READ || op == SM_OP_WRITE;
    test::Bytes memory(data ? count * kBlock : 0, value);
    iovec iov{memory.data(), memory.size()};
    sm_request* request = world_.parent();
    request->op = op;
    request->flags = flags;
    request->offset = flush ? 0 : first * kBlock;
    request->length = flush ? 0 : count * kBlock;
    request->iov = data ? &iov : nullptr;
    request->iov_count = data;
    bool done = false;
    sm_request_push(
        request, [](sm_request*, void* done, uint64_t) { *static_cast<bool*>(done) = true; }, &done, 0);
    ops_->submit(volume_, disk.handle, request);
    world_.runUntil([&] { return done; });
    const int32_t status = request->status;
    world_.releaseParent(request);
    SM_MUST(status == 0 || (status == -ENOSPC && op != SM_OP_READ));
    if (flush) return;
    for (uint64_t i = 0; i < count; ++i) {
      auto& block = disk.blocks[first + i];
      if (op == SM_OP_READ) {
        const uint8_t* from = &memory[i * kBlock];
        if (block) SM_MUST(std::all_of(from, from + kBlock, [&](uint8_t byte) { return byte == *block; }));
      } else if (status) {
        block.reset();
      } else {
        block = op == SM_OP_WRITE ? value : 0;
      }
    }
  }

  const sm_volume_ops* const ops_;
  test::World& world_;
  void* volume_ = nullptr;
  std::vector<Disk> disks_;
  size_t listed_ = 0;
  bool reopened_ = false;
};

// What the harness requires ends the fuzzer as SM_MUST does.
void setUp() {
  static doctest::Context context;
  static const bool once = [] {
    context.setAsDefaultForAssertsOutOfTestCases();
    context.setAssertHandler([](const doctest::AssertData& failed) {
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", failed.m_file, failed.m_line, failed.m_expr);
      std::abort();
    });
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  setUp();
  FuzzedDataProvider input(data, size);
  size_t count = 0;
  const sm_volume_ops* const* volumes = volumeRegistry(&count);
  while (!volumes[count - 1]->format) --count;  // the last of them keep nothing on a medium
  const sm_volume_ops* ops = volumes[input.ConsumeIntegralInRange<size_t>(0, 15) % count];
  // Usually as formatted; else empty, or of another type.
  const auto base = input.ConsumeIntegralInRange<uint8_t>(0, 15);
  std::vector<Bytes> images(kDevices, Bytes(kDeviceBytes));
  if (base != 15) images = formatted(base == 14 ? volumes[0] : ops);
  damage(input, images);
  const auto unsealed = input.ConsumeIntegralInRange<uint8_t>(0, 15);
  seal(images, unsealed > 7 ? uint8_t{kSuperblocks | kDirectory | kTables} : static_cast<uint8_t>(~unsealed));
  test::WorldOptions options;
  options.seed = input.ConsumeIntegral<uint8_t>();
  options.devices.assign(kDevices, {.bytes = kDeviceBytes});
  for (test::DeviceShape& shape : options.devices)
    if (input.ConsumeIntegral<uint8_t>() == 1) shape.bytes = input.ConsumeIntegralInRange<uint64_t>(1, 832) * kBlock;
  for (size_t i = 0; i < kDevices; ++i) images[i].resize(options.devices[i].bytes);

  test::World world(options, &images);
  Session session(ops, world);
  const bool opened = session.open();
  if (!isOwn(ops, images))
    for (size_t i = 0; i < kDevices; ++i)
      for (const uint8_t op : {SM_OP_WRITE, SM_OP_DISCARD, SM_OP_WRITE_ZEROES})
        SM_MUST(world.memory(i).counts[op] == 0);
  if (!opened) return 0;
  for (int round = 0; round < 2; ++round) {
    session.openDisks();
    for (int acts = input.ConsumeIntegralInRange(0, 12); acts > 0; --acts) session.act(input);
    session.verify();
    session.close();
    SM_MUST(session.open());  // what it leaves behind, it can open
  }
  session.openDisks();
  session.verify();
  session.close();
  return 0;
}
