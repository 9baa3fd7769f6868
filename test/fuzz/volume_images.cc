#include "fuzz/volume_images.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "volumes/crc32c.h"
#include "volumes/directory.h"
#include "volumes/extent_table.h"
#include "volumes/log_page.h"
#include "volumes/superblock.h"

namespace sm::fuzz {
namespace {

constexpr uint64_t kHeader = 64;  // bytes of a directory's copy before its records
constexpr uint64_t kUuidAt = 16, kCountAt = 32, kCrcAt = 60;

template <typename T>
T get(const Bytes& image, uint64_t at) {
  T value;
  std::memcpy(&value, &image[at], sizeof value);
  return value;
}

template <typename T>
void put(Bytes& image, uint64_t at, const T& value) {
  std::memcpy(&image[at], &value, sizeof value);
}

void sealDirectory(Bytes& image, uint64_t at) {
  if (image.size() < at + kDirectoryBytes) return;
  const auto count = get<uint32_t>(image, at + kCountAt);
  if (count > kMaxDisks) return;
  put(image, at + kCrcAt, uint32_t{0});
  put(image, at + kCrcAt, crc32c(0, &image[at], kHeader + count * sizeof(DiskRecord)));
}

void sealTable(Bytes& image, const Superblock& first) {
  const uint64_t extentBytes = first.words[0];
  if (extentBytes < 4096) return;
  const ExtentLayout layout = extentLayout(get<Superblock>(image, 0).deviceBytes, extentBytes);
  for (uint32_t i = 0; i < layout.sectors; ++i) {
    const uint64_t at = layout.tableAt + i * sizeof(ExtentSector);
    if (at + sizeof(ExtentSector) > image.size()) return;
    const uint32_t crc = crc32c(crc32c(0, first.uuid, sizeof first.uuid), &image[at], offsetof(ExtentSector, crc));
    put(image, at + offsetof(ExtentSector, crc), crc);
  }
}

void sealPages(Bytes& image) {
  for (uint64_t at = kTypeAt; at + kPage <= image.size(); at += kPage) {
    LogPage page = get<LogPage>(image, at);
    if (page.magic != kLogMagic) continue;
    page.crc = logChecksum(page);
    put(image, at, page);
  }
}

// What makes each type as small as it can be.
struct Shape {
  const char* type;
  sm_option smallest;
};
constexpr Shape kShapes[] = {
    {"extent", {"extentSize", "4K"}}, {"stripe", {"chunkSize", "4K"}}, {"log", {"segmentSize", "16K"}}};

std::vector<Bytes> make(const sm_volume_ops* ops) {
  test::World world({.seed = 1, .devices = std::vector<test::DeviceShape>(kDevices, {.bytes = kDeviceBytes})});
  sm_error error{};
  const auto shape = std::find_if(std::begin(kShapes), std::end(kShapes),
                                  [&](const Shape& each) { return !std::strcmp(each.type, ops->type); });
  const bool known = shape != std::end(kShapes);
  SM_MUST(ops->format(world.services(), world.devices().data(), kDevices, known ? &shape->smallest : nullptr, known,
                      &error) == 0);
  void* volume = nullptr;
  SM_MUST(ops->open(world.services(), world.devices().data(), kDevices, nullptr, 0, &volume, &error) == 0);
  for (const char* name : {"a", "b", "c"}) {
    SM_MUST(ops->disk_create(volume, "vm", name, 20 << 10, &error) == 0);
    void* disk = nullptr;
    uint64_t bytes = 0;
    SM_MUST(ops->disk_open(volume, "vm", name, &disk, &bytes, &error) == 0);
    Bytes data(12 << 10, static_cast<uint8_t>(*name));
    iovec iov{data.data(), data.size()};
    sm_request* request = world.parent();
    request->op = SM_OP_WRITE;
    request->length = data.size();
    request->iov = &iov;
    request->iov_count = 1;
    bool done = false;
    sm_request_push(
        request, [](sm_request*, void* done, uint64_t) { *static_cast<bool*>(done) = true; }, &done, 0);
    ops->submit(volume, disk, request);
    world.runUntil([&] { return done; });
    SM_MUST(request->status == 0);
    world.releaseParent(request);
    ops->disk_close(volume, disk);
  }
  SM_MUST(ops->close(volume, &error) == 0);
  std::vector<Bytes> images;
  for (size_t i = 0; i < kDevices; ++i) images.push_back(world.memory(i).now);
  // The volume's own name is random: the same input is to do the same each time.
  for (Bytes& image : images) std::fill_n(image.begin() + offsetof(Superblock, uuid), 16, uint8_t{0x5a});
  for (uint64_t copy : {0, 1})
    std::fill_n(images[0].begin() + kDirectoryAt + copy * kDirectoryBytes + kUuidAt, 16, 0x5a);
  for (uint64_t at = kTypeAt; at + kPage <= images[0].size(); at += kPage) {
    if (get<uint64_t>(images[0], at) != kLogMagic) continue;
    std::fill_n(images[0].begin() + static_cast<ptrdiff_t>(at + offsetof(LogPage, uuid)), 16, 0x5a);
  }
  seal(images, kSuperblocks | kDirectory | kTables);
  return images;
}

}  // namespace

const std::vector<Bytes>& formatted(const sm_volume_ops* ops) {
  static std::map<const sm_volume_ops*, std::vector<Bytes>> made;
  auto& images = made[ops];
  if (images.empty()) images = make(ops);
  return images;
}

void damage(FuzzedDataProvider& input, std::vector<Bytes>& images) {
  for (int edits = input.ConsumeIntegralInRange(0, 8); edits > 0; --edits) {
    Bytes& image = images[input.ConsumeIntegralInRange<size_t>(0, images.size() - 1)];
    uint64_t at = 0;
    switch (input.ConsumeIntegralInRange(0, 4)) {
      case 0:
        at = input.ConsumeIntegralInRange<uint64_t>(0, sizeof(Superblock) - 1);
        break;
      case 1:
      case 2:  // a copy of the directory, on the first device
        at = kDirectoryAt + input.ConsumeBool() * kDirectoryBytes;
        at += input.ConsumeIntegralInRange<uint64_t>(0, kHeader + 4 * sizeof(DiskRecord));
        break;
      case 3:
        at = kTypeAt + input.ConsumeIntegralInRange<uint64_t>(0, 4095);
        break;
      default:
        at = input.ConsumeIntegralInRange<uint64_t>(0, kDeviceBytes - 1);
    }
    const auto bytes = input.ConsumeBytes<uint8_t>(input.ConsumeIntegralInRange<size_t>(1, 32));
    for (size_t i = 0; i < bytes.size() && at + i < image.size(); ++i) image[at + i] = bytes[i];
  }
}

void seal(std::vector<Bytes>& images, uint8_t what) {
  for (Bytes& image : images) {
    if (image.size() < sizeof(Superblock)) return;
    if (what & kSuperblocks) put(image, offsetof(Superblock, crc), crc32c(0, image.data(), offsetof(Superblock, crc)));
  }
  if (what & kDirectory)
    for (uint64_t copy : {0, 1}) sealDirectory(images[0], kDirectoryAt + copy * kDirectoryBytes);
  if (!(what & kTables)) return;
  const auto first = get<Superblock>(images[0], 0);
  if (!std::strncmp(first.type, "log", sizeof first.type)) return sealPages(images[0]);
  if (std::strncmp(first.type, "extent", sizeof first.type) != 0) return;
  for (Bytes& image : images) sealTable(image, first);
}

bool isOwn(const sm_volume_ops* ops, const std::vector<Bytes>& images) {
  return std::all_of(images.begin(), images.end(), [&](const Bytes& image) {
    return image.size() >= sizeof(Superblock) && !std::memcmp(image.data(), "STRATAMP", 8) &&
           !std::strncmp(reinterpret_cast<const char*>(&image[offsetof(Superblock, type)]), ops->type,
                         sizeof(Superblock::type));
  });
}

}  // namespace sm::fuzz
