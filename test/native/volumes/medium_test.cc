// What is on the devices: every damage gives its own error and never a crash, nothing is written to foreign media.
#include "volumes/medium.h"

#include <algorithm>
#include <cstring>

#include "scenario.h"
#include "volumes/crc32c.h"
#include "volumes/extent_table.h"
#include "volumes/superblock.h"

namespace sm::test {
namespace {

struct Opened {
  int32_t status;
  std::string message;
};

// Tries to open what is on these images, and reads everything where that works.
Opened tryOpen(const sm_volume_ops* ops, const std::vector<Bytes>& images, const Options& options = {}) {
  WorldOptions worldOptions;
  worldOptions.devices.clear();
  for (const Bytes& image : images) worldOptions.devices.push_back({image.size()});
  World world(worldOptions, &images);
  const auto list = toOptions(options);
  void* volume = nullptr;
  sm_error error{};
  const int32_t status = ops->open(world.services(), world.devices().data(), static_cast<uint32_t>(images.size()),
                                   list.data(), static_cast<uint32_t>(list.size()), &volume, &error);
  for (size_t i = 0; i < images.size(); ++i) CHECK(world.memory(i).counts[SM_OP_WRITE] == 0);
  if (status == 0) {
    sm_error ignored{};
    CHECK(ops->close(volume, &ignored) == 0);
  } else {
    CHECK(error.code == status);
    CHECK(strlen(error.message) > 20);
  }
  return {status, error.message};
}

// A volume with two disks that hold something.
std::vector<Bytes> makeVolume(const sm_volume_ops* ops, const Options& options = {}, uint32_t devices = 2) {
  WorldOptions worldOptions;
  worldOptions.devices.assign(devices, {1 << 20});
  World world(worldOptions);
  formatVolume(world, ops, options);
  Model model(world, ops, 512);
  model.open();
  for (int i = 0; i < 2; ++i) {
    REQUIRE(model.create(128 << 10));
    model.submit(model.state.disks.back(), SM_OP_WRITE, 0, 0, 128 << 10);
  }
  model.close();
  std::vector<Bytes> images;
  for (uint32_t i = 0; i < devices; ++i) images.push_back(world.memory(i).now);
  return images;
}

void seal(Bytes& image) {
  Superblock superblock;
  memcpy(&superblock, image.data(), sizeof superblock);
  superblock.crc = crc32c(0, &superblock, offsetof(Superblock, crc));
  memcpy(image.data(), &superblock, sizeof superblock);
}

bool says(const Opened& opened, const char* text) { return opened.message.find(text) != std::string::npos; }

TEST_CASE("crc32c is the one of RFC 3720") {
  CHECK(crc32c(0, "123456789", 9) == 0xe3069283);
  const Bytes zeroes(32);
  CHECK(crc32c(0, zeroes.data(), 32) == 0x8a9136aa);
  CHECK(crc32c(crc32c(0, "1234", 4), "56789", 5) == 0xe3069283);
}

TEST_CASE("a superblock that is not right is refused by name") {
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps}) {
    const std::vector<Bytes> good = makeVolume(ops), other = makeVolume(ops);
    CHECK(tryOpen(ops, good).status == 0);
    std::vector<Bytes> images = good;
    const auto expect = [&](int32_t status, const char* text) {
      const Opened opened = tryOpen(ops, images);
      CHECK_MESSAGE(opened.status == status, opened.message);
      CHECK_MESSAGE(says(opened, text), opened.message);
      images = good;
    };
    std::fill_n(images[1].begin(), 4096, uint8_t{0});
    expect(-EMEDIUMTYPE, "is empty");
    images[0].assign(1 << 20, 0x77);
    expect(-EMEDIUMTYPE, "something else");
    images[0][40] ^= 1;
    expect(-EBADMSG, "torn or damaged");
    images[1][8] = 9;
    expect(-EPROTONOSUPPORT, "format version 9");
    std::swap(images[0], images[1]);
    expect(-EXDEV, "in the order");
    images[1] = good[0];
    expect(-EXDEV, "in the order");
    images.pop_back();
    expect(-ENODEV, "has 2 devices, 1 is given");
    images.push_back(good[1]);
    expect(-ENODEV, "has 2 devices, 3 are given");
    images[1] = other[1];
    expect(-EXDEV, "another volume");
    images[1].resize(900 << 10);
    expect(-EOVERFLOW, "give it back its size");
    reinterpret_cast<Superblock*>(images[0].data())->words[0] = 12345;
    seal(images[0]);
    expect(-EBADMSG, "makes no sense");
    reinterpret_cast<Superblock*>(images[0].data())->deviceBytes = kTypeAt - 512;
    seal(images[0]);
    expect(-EBADMSG, "makes no sense");
    reinterpret_cast<Superblock*>(images[0].data())->blockSize = 513;
    seal(images[0]);
    expect(-EBADMSG, "blocks of 513");
    images[0].assign(1024, 0);
    expect(-EMEDIUMTYPE, "no stratamap volume");
    const sm_volume_ops* wrong = ops == &extentOps ? &stripeOps : &extentOps;
    CHECK(says(tryOpen(wrong, good), ops->type));
    CHECK(tryOpen(wrong, good).status == -EMEDIUMTYPE);
  }
}

TEST_CASE("a device whose blocks have become larger is refused") {
  const std::vector<Bytes> good = makeVolume(&extentOps);
  WorldOptions options;
  options.devices[1].blockSize = 4096;
  World world(options, &good);
  void* volume;
  sm_error error{};
  CHECK(extentOps.open(world.services(), world.devices().data(), 2, nullptr, 0, &volume, &error) == -EINVAL);
  CHECK(std::string(error.message).find("blocks of 4096") != std::string::npos);
}

TEST_CASE("the directory: one copy may be lost, not both, and sense is checked") {
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps}) {
    const std::vector<Bytes> good = makeVolume(ops);
    for (uint64_t copy : {0, 1}) {
      std::vector<Bytes> images = good;
      images[0][kDirectoryAt + copy * kDirectoryBytes + 100] ^= 0xff;
      // The first copy is the newer one, and the last disk has extents: they show that the older copy is not enough.
      const Opened older = tryOpen(ops, images);
      CHECK(older.status == (ops != &stripeOps && copy == 0 ? -EBADMSG : 0));
      if (older.status) CHECK_MESSAGE(says(older, "of disk 2 is in use"), older.message);
      images[0][kDirectoryAt + (1 - copy) * kDirectoryBytes + 10] ^= 0xff;
      const Opened opened = tryOpen(ops, images);
      CHECK(opened.status == -EBADMSG);
      CHECK(says(opened, "both copies of the directory"));
    }
    // Whole by its checksum, but absurd: a size that overflows, an id that is taken twice, a name without an end.
    const auto absurd = [&](int64_t at, std::vector<uint8_t> bytes) {
      std::vector<Bytes> images = good;
      for (uint64_t copy : {0, 1}) {
        uint8_t* directory = &images[0][kDirectoryAt + copy * kDirectoryBytes];
        uint32_t count;
        memcpy(&count, directory + 32, sizeof count);
        if (count < 2) continue;
        std::copy(bytes.begin(), bytes.end(), directory + 64 + at);  // the records; the header lies before them
        memset(directory + 60, 0, 4);
        const uint32_t crc = crc32c(0, directory, 64 + count * 160);
        memcpy(directory + 60, &crc, sizeof crc);
      }
      for (uint64_t copy : {0, 1}) {  // the older copy is not to help
        uint32_t count;
        memcpy(&count, &images[0][kDirectoryAt + copy * kDirectoryBytes + 32], sizeof count);
        if (count < 2) images[0][kDirectoryAt + copy * kDirectoryBytes] = 0;
      }
      return tryOpen(ops, images).status;
    };
    CHECK(absurd(0, {1}) == 0);  // as it was: the checksum here is right
    CHECK(absurd(8, {0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) != 0);
    CHECK(absurd(8, {1}) == -EBADMSG);
    CHECK(absurd(-28, {0, 0, 0, 0}) == -EBADMSG);                   // the next id
    CHECK(absurd(-56, std::vector<uint8_t>(8, 0xff)) == -EBADMSG);  // the sequence
    CHECK(absurd(0, {2}) == -EBADMSG);
    CHECK(absurd(0, {0}) == -EBADMSG);
    CHECK(absurd(32, std::vector<uint8_t>(64, 'x')) == -EBADMSG);
    if (ops == &stripeOps) {
      CHECK(absurd(16, std::vector<uint8_t>(8, 0xff)) == -EBADMSG);
      CHECK(absurd(160 + 16, {0}) == -EBADMSG);  // both disks in row 0
    }
  }
}

TEST_CASE("a damaged sector of the table of extents is found") {
  std::vector<Bytes> images = makeVolume(&extentOps);
  images[1][kTypeAt + 600] ^= 4;
  const Opened opened = tryOpen(&extentOps, images);
  CHECK(opened.status == -EBADMSG);
  CHECK(says(opened, "sector 1 of the table of extents on device 'd1'"));
}

TEST_CASE("an entry of the table that is newer than any can be is refused") {
  std::vector<Bytes> images = makeVolume(&extentOps);
  ExtentSector sector;
  memcpy(&sector, &images[1][kTypeAt], sizeof sector);
  sector.entries[0].sequence = UINT64_MAX;
  Superblock superblock;
  memcpy(&superblock, images[0].data(), sizeof superblock);
  sector.crc = crc32c(crc32c(0, superblock.uuid, 16), &sector, offsetof(ExtentSector, crc));
  memcpy(&images[1][kTypeAt], &sector, sizeof sector);
  const Opened opened = tryOpen(&extentOps, images);
  CHECK(opened.status == -EBADMSG);
  CHECK(says(opened, "makes no sense"));
}

TEST_CASE("a device with room for the metadata alone is part of a volume") {
  for (const uint64_t bytes : {kTypeAt, kTypeAt + 512, kTypeAt + 4096, kTypeAt + 8192}) {
    WorldOptions options;
    options.devices[1].bytes = bytes;
    World world(options);
    formatVolume(world, &extentOps, {{"extentSize", "4K"}});
    CHECK(tryOpen(&extentOps, {world.memory(0).now, world.memory(1).now}).status == 0);
  }
}

TEST_CASE("random damage to metadata never crashes, and never goes unnoticed where it matters") {
  Random random(4);
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps}) {
    const std::vector<Bytes> good = makeVolume(ops);
    for (int i = 0; i < 150; ++i) {
      std::vector<Bytes> images = good;
      for (uint64_t n = 1 + below(random, 3); n > 0; --n) {
        Bytes& image = images[below(random, 2)];
        const uint64_t at = chance(random, 50) ? below(random, 512) : below(random, kTypeAt + 4096);
        const uint64_t length = 1 + below(random, chance(random, 50) ? 4 : 8192);
        for (uint64_t j = at; j < std::min<uint64_t>(at + length, image.size()); ++j)
          image[j] = static_cast<uint8_t>(random());
      }
      tryOpen(ops, images);
    }
  }
}

TEST_CASE("options are checked") {
  World world({});
  const auto format = [&](const sm_volume_ops* ops, const char* key, const char* value) {
    const sm_option option{key, value};
    sm_error error{};
    return ops->format(world.services(), world.devices().data(), 2, &option, 1, &error);
  };
  CHECK(format(&extentOps, "extentSize", "4096") == 0);
  CHECK(format(&extentOps, "extentSize", "64K") == 0);
  CHECK(format(&extentOps, "seed", "18446744073709551615") == 0);
  CHECK(format(&stripeOps, "issue", "fresh") == 0);
  for (const char* bad :
       {"", "0", "5000", "2048", "32M", "64k", "-4096", "4096 ", "99999999999999999999", "18014398509481985K"})
    CHECK(format(&extentOps, "extentSize", bad) == -EINVAL);
  CHECK(format(&extentOps, "seed", "18446744073709551616") == -EINVAL);
  CHECK(format(&extentOps, "chunkSize", "64K") == -EINVAL);
  CHECK(format(&stripeOps, "extentSize", "64K") == -EINVAL);
  CHECK(format(&stripeOps, "issue", "other") == -EINVAL);
  CHECK(format(&extentOps, "extentSize", "16M") == -ENOSPC);
  const std::vector<Bytes> images = makeVolume(&extentOps, {{"extentSize", "4K"}});
  CHECK(tryOpen(&extentOps, images, {{"issue", "fresh"}, {"seed", "9"}}).status == 0);
  CHECK(says(tryOpen(&extentOps, images, {{"extentSize", "4K"}}), "fixed when the volume is formatted"));
  CHECK(says(tryOpen(&extentOps, images, {{"speed", "9"}}), "it has: seed, issue"));
}

TEST_CASE("devices that do not suit are refused before anything is written") {
  sm_error error{};
  {
    World world({1, {{1 << 20}}});
    CHECK(stripeOps.format(world.services(), world.devices().data(), 1, nullptr, 0, &error) == -EINVAL);
    CHECK(extentOps.format(world.services(), world.devices().data(), 0, nullptr, 0, &error) < 0);
    sm_device* twice[] = {world.devices()[0], world.devices()[0]};
    CHECK(extentOps.format(world.services(), twice, 2, nullptr, 0, &error) == -EINVAL);
    CHECK(world.memory(0).counts[SM_OP_WRITE] == 0);
  }
  World world({1, {{300 << 10}, {1 << 20}}});
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps})
    CHECK(ops->format(world.services(), world.devices().data(), 2, nullptr, 0, &error) == -ENOSPC);
  CHECK(world.memory(0).counts[SM_OP_WRITE] + world.memory(1).counts[SM_OP_WRITE] == 0);
}

TEST_CASE("format that is cut off leaves no volume, or a whole one") {
  for (const sm_volume_ops* ops : {&extentOps, &logOps, &stripeOps}) {
    const std::vector<Bytes> before = makeVolume(ops);
    std::vector<std::vector<Bytes>> captures;
    WorldOptions options;
    World world(options, &before);
    world.onStep = [&] { captures.push_back(world.crash()); };
    formatVolume(world, ops, {});
    CHECK(captures.size() > 5);
    uint32_t refused = 0;
    for (const auto& images : captures) {
      const Opened opened = tryOpen(ops, images);
      refused += opened.status != 0;
      CHECK_MESSAGE((opened.status == 0 || opened.status == -EMEDIUMTYPE), opened.message);
    }
    CHECK(refused > 0);
  }
}

}  // namespace
}  // namespace sm::test
