#include "host/signature.h"

#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

namespace sm {
namespace {

using namespace std::string_view_literals;

struct Known {
  const char* name;
  int64_t offset;  // bytes; negative: from the end of the device
  std::string_view bytes;
};

// Offsets and bytes are those of libblkid (util-linux, libblkid/src/superblocks and src/partitions). What is more
// specific comes first: a file system may carry a boot sector's mark as well.
constexpr Known kKnown[] = {
    {"a stratamap volume", 0, "STRATAMP"sv},
    {"ext2/3/4", 1024 + 56, "\x53\xef"sv},
    {"xfs", 0, "XFSB"sv},
    {"btrfs", 65536 + 64, "_BHRfS_M"sv},
    {"f2fs", 1024, "\x10\x20\xf5\xf2"sv},
    {"erofs", 1024, "\xe2\xe1\xf5\xe0"sv},
    {"squashfs", 0, "hsqs"sv},
    {"jfs", 32768, "JFS1"sv},
    {"reiserfs", 65536 + 52, "ReIsEr"sv},
    {"nilfs2", 1024 + 6, "\x34\x34"sv},
    {"bcachefs or bcache", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"sv},
    {"ntfs", 3, "NTFS    "sv},
    {"exfat", 3, "EXFAT   "sv},
    {"iso9660", 32768 + 1, "CD001"sv},
    {"udf", 32768 + 1, "BEA01"sv},
    {"swap", 4096 - 10, "SWAPSPACE2"sv},
    {"swap", 8192 - 10, "SWAPSPACE2"sv},
    {"swap", 16384 - 10, "SWAPSPACE2"sv},
    {"swap", 65536 - 10, "SWAPSPACE2"sv},
    {"suspended system (swap)", 4096 - 10, "S1SUSPEND"sv},
    {"LUKS", 0, "LUKS\xba\xbe"sv},
    {"LUKS (second header)", 16384, "SKUL\xba\xbe"sv},
    {"LVM2", 0, "LABELONE"sv},
    {"LVM2", 512, "LABELONE"sv},
    {"LVM2", 1024, "LABELONE"sv},
    {"LVM2", 1536, "LABELONE"sv},
    {"Linux RAID", 0, "\xfc\x4e\x2b\xa9"sv},
    {"Linux RAID", 4096, "\xfc\x4e\x2b\xa9"sv},
    {"ZFS", 128 * 1024, "\x0c\xb1\xba\x00\x00\x00\x00\x00"sv},
    {"ZFS", 132 * 1024, "\x0c\xb1\xba\x00\x00\x00\x00\x00"sv},
    {"Ceph BlueStore", 0, "bluestore block device"sv},
    {"VMFS", 1024 * 1024, "\x0d\xd0\x01\xc0"sv},
    {"qcow2", 0, "QFI\xfb"sv},
    {"VMDK", 0, "KDMV"sv},
    {"VHDX", 0, "vhdxfile"sv},
    {"VDI", 64, "\x7f\x10\xda\xbe"sv},
    {"VHD", -512, "conectix"sv},
    {"GPT", 512, "EFI PART"sv},
    {"GPT", 4096, "EFI PART"sv},
    {"GPT (second header)", -512, "EFI PART"sv},
    {"GPT (second header)", -4096, "EFI PART"sv},
    {"a boot sector (MBR partitions, FAT)", 510, "\x55\xaa"sv},
};

}  // namespace

int findSignature(const sm_device& device, const ReadDevice& read, Signature* out) {
  *out = {};
  const uint64_t block = device.block_size;
  for (const Known& known : kKnown) {
    const uint64_t back = known.offset < 0 ? static_cast<uint64_t>(-known.offset) : 0;
    if (back > device.bytes) continue;
    const uint64_t offset = back ? device.bytes - back : static_cast<uint64_t>(known.offset);
    if (offset > device.bytes || known.bytes.size() > device.bytes - offset) continue;
    const uint64_t first = offset / block * block;
    const uint64_t end = (offset + known.bytes.size() + block - 1) / block * block;
    std::vector<char> data(end - first);
    out->offset = first;
    if (int status = read(first, data.data(), data.size())) return status;
    if (std::memcmp(data.data() + (offset - first), known.bytes.data(), known.bytes.size()) != 0) continue;
    *out = {known.name, offset};
    return 0;
  }
  *out = {};
  return 0;
}

Failure checkUnsigned(const sm_device& device, const ReadDevice& read) {
  Signature found;
  const int status = findSignature(device, read, &found);
  if (status == 0 && found.name.empty()) return {};
  const std::string message =
      std::string("cannot format device ") + device.name + ": at offset " + std::to_string(found.offset);
  Failure failure = status ? failed(-status, "device", message + " it could not be read to see what it holds")
                           : failed(EEXIST, "device",
                                    message + " it holds " + found.name +
                                        "; use another device, or force the format to destroy what is there",
                                    "ERR_STRATAMAP_SIGNATURE");
  failure.device = device.name;
  failure.offset = static_cast<int64_t>(found.offset);
  return failure;
}

}  // namespace sm
