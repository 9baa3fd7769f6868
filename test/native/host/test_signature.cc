#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "host/signature.h"

namespace {

struct Medium {
  sm_device device{};
  std::vector<char> bytes;
  std::vector<uint64_t> unaligned;

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
                return 0;
              },
              &found) == 0);
    return found;
  }
};

}  // namespace

TEST_CASE("known signatures are found wherever they lie, and named") {
  struct Case {
    const char* name;
    uint64_t offset;
    std::string bytes;
  };
  const uint64_t size = 4 << 20;
  for (const Case& known : std::initializer_list<Case>{{"ext2/3/4", 1080, "\x53\xef"},
                                                       {"xfs", 0, "XFSB"},
                                                       {"btrfs", 65600, "_BHRfS_M"},
                                                       {"swap", 4086, "SWAPSPACE2"},
                                                       {"LUKS", 0, "LUKS\xba\xbe"},
                                                       {"LVM2", 512, "LABELONE"},
                                                       {"GPT", 512, "EFI PART"},
                                                       {"GPT (second header)", size - 512, "EFI PART"},
                                                       {"qcow2", 0, "QFI\xfb"},
                                                       {"squashfs", 0, "hsqs"},
                                                       {"ZFS", 131072, std::string("\x0c\xb1\xba\0\0\0\0\0", 8)},
                                                       {"a stratamap volume", 0, "STRATAMP"},
                                                       {"a boot sector (MBR partitions, FAT)", 510, "\x55\xaa"}}) {
    for (uint32_t block : {512u, 4096u}) {
      Medium medium(size, block);
      CHECK(medium.find().name.empty());
      medium.put(known.offset, known.bytes);
      const sm::Signature found = medium.find();
      CHECK(found.name == known.name);
      CHECK(found.offset == known.offset);
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
