#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "host/signature.h"
#include "stack_of.h"

using namespace sm::test;

namespace {

struct Medium {
  sm_device device{};
  std::vector<char> bytes;
  std::vector<std::pair<uint64_t, uint64_t>> reads;  // offset, length

  explicit Medium(uint64_t size, uint32_t block = 512) : bytes(size) {
    device.bytes = size;
    device.block_size = block;
  }
  void put(uint64_t offset, const std::string& what) { std::memcpy(bytes.data() + offset, what.data(), what.size()); }
  sm::Signature find() {
    sm::Signature found;
    CHECK(sm::findSignature(
              device,
              [&](uint64_t offset, void* data, uint64_t length) {
                CHECK(offset % device.block_size == 0);
                CHECK(length % device.block_size == 0);
                CHECK(offset + length <= bytes.size());
                std::memcpy(data, bytes.data() + offset, length);
                reads.emplace_back(offset, length);
                return 0;
              },
              &found) == 0);
    return found;
  }
};

struct Case {
  const char* name;
  uint64_t offset;
  std::string bytes;
};
constexpr uint64_t kSize = 4 << 20;
const std::vector<Case> kCases{{"ext2/3/4", 1080, "\x53\xef"},
                               {"xfs", 0, "XFSB"},
                               {"btrfs", 65600, "_BHRfS_M"},
                               {"swap", 4086, "SWAPSPACE2"},
                               {"LUKS", 0, "LUKS\xba\xbe"},
                               {"LVM2", 512, "LABELONE"},
                               {"VMFS", 1 << 20, "\x0d\xd0\x01\xc0"},
                               {"GPT", 512, "EFI PART"},
                               {"GPT (second header)", kSize - 512, "EFI PART"},
                               {"GPT (second header)", kSize - 4096, "EFI PART"},
                               {"qcow2", 0, "QFI\xfb"},
                               {"squashfs", 0, "hsqs"},
                               {"ZFS", 131072, std::string("\x0c\xb1\xba\0\0\0\0\0", 8)},
                               {"a stratamap volume", 0, "STRATAMP"},
                               {"a boot sector (MBR partitions, FAT)", 510, "\x55\xaa"}};

}  // namespace

TEST_CASE("known signatures are found wherever they lie, and named") {
  for (const Case& known : kCases) {
    for (uint32_t block : {512u, 4096u}) {
      Medium medium(kSize, block);
      CHECK(medium.find().name.empty());
      medium.put(known.offset, known.bytes);
      const sm::Signature found = medium.find();
      CHECK(found.name == known.name);
      CHECK(found.offset == known.offset);
    }
  }
}

TEST_CASE("a forced format leaves nothing wherever a signature may lie, but ours") {
  constexpr char kNoise = '\xee';
  for (const auto& [type, count] : {std::pair{"extent", 1}, std::pair{"log", 1}, std::pair{"stripe", 2}}) {
    for (const Case& known : kCases) {
      CAPTURE(known.name);
      TempFolder folder;
      std::vector<std::string> files;
      auto host = openHost();
      std::vector<sm_device*> devices;
      for (int i = 0; i < count; ++i) {
        const std::string name = "d" + std::to_string(i);
        files.push_back(folder.file(name, kSize));
        std::string content(kSize, kNoise);
        content.replace(known.offset, known.bytes.size(), known.bytes);
        std::ofstream(files.back(), std::ios::binary) << content;
        devices.push_back(sm::test::openDevice(*host, name, files.back()));
      }
      checkFailure(host->formatVolume(type, devices, {}, false), EEXIST, "ERR_STRATAMAP_SIGNATURE", "device",
                   known.name);
      REQUIRE_OK(host->formatVolume(type, devices, {}, true));
      REQUIRE_OK(host->close());
      for (const std::string& file : files) {
        Medium medium(kSize);
        std::ifstream(file, std::ios::binary).read(medium.bytes.data(), kSize);
        CHECK(medium.find().name == "a stratamap volume");
        medium.put(0, std::string(8, '\0'));  // it would hide all others
        CHECK(medium.find().name.empty());
        const std::string noise(4, kNoise);
        for (const auto& read : medium.reads) {
          CAPTURE(read.first);
          CHECK(std::string(medium.bytes.data() + read.first, read.second).find(noise) == std::string::npos);
        }
      }
    }
  }
}

TEST_CASE("a device smaller than where a signature would lie has none") {
  Medium medium(512);
  CHECK(medium.find().name.empty());
  medium.put(510, "\x55\xaa");
  CHECK(medium.find().offset == 510);
}

TEST_CASE("a read that fails is reported with its place") {
  sm_device device{};
  device.bytes = 1 << 20;
  device.block_size = 512;
  sm::Signature found;
  CHECK(sm::findSignature(
            device, [](uint64_t offset, void*, uint64_t) { return offset == 1024 ? -EIO : 0; }, &found) == -EIO);
  CHECK(found.offset == 1024);
}
