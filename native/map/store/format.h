// The file of a stored map: a header, a snapshot, a journal; little endian, nothing aligned or padded.
//
// Both are records. The snapshot ends with a record that says so; what follows is the journal, and ends with the first
// record that is not whole and right, for that is what a crash leaves of it. Journal and snapshot change over together,
// since both are in the one file that is renamed.
//
// A record of a range says all that was known of the range of a disk when it was written: the last one counts, and
// without extents it says that nothing is known. Disks and devices are numbered in the order of their records. The
// checksum of a record takes in the generation of its file, and its number in it: what an earlier file has left on the
// medium is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "map/address_map.h"

namespace sm {

constexpr char kStoreMagic[8] = {'S', 'M', 'A', 'D', 'D', 'M', 'A', 'P'};
constexpr uint32_t kStoreVersion = 1;

struct StoreHeader {
  char magic[8];
  uint32_t version;
  uint32_t reserved;
  uint64_t generation;  // one more with every snapshot
  uint32_t reserved2;
  uint32_t checksum;  // CRC-32C of the bytes before it
};
static_assert(sizeof(StoreHeader) == 32);

struct StoreRecord {
  uint32_t checksum;  // CRC-32C of the file's generation, the rest of the record, and its payload
  uint32_t length;    // of the payload that follows: at least 1, at most kMostPayload
  uint64_t number;    // counted from 1 in its file
};
static_assert(sizeof(StoreRecord) == 16);
constexpr uint32_t kMostPayload = 1 << 20;

// The first byte of a payload.
enum class Kind : uint8_t {
  kDisk = 1,    // length and bytes of the VM's name, and of the disk's
  kDevice = 2,  // length and bytes of the name
  kRange = 3,   // disk, begin, length; for each extent: begin, length, device, offset (see encodeRange)
  kEnd = 4      // of the snapshot
};

// `crc` is 0, or the result for the bytes before these.
uint32_t checksumOf(uint32_t crc, const void* data, size_t length);

StoreHeader makeHeader(uint64_t generation);
// Appends a record with this payload.
void appendRecord(std::string* out, uint64_t generation, uint64_t number, std::string_view payload);
bool isRight(const StoreRecord& record, uint64_t generation, const char* payload);

// The numbers that disks or devices have in a file.
class FileNumbers {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  uint32_t of(uint32_t key) const { return key < numbers_.size() ? numbers_[key] : kNone; }
  uint32_t keyOf(uint64_t number) const { return number < keys_.size() ? keys_[number] : kNoKey; }
  uint32_t add(uint32_t key);
  uint32_t count() const { return static_cast<uint32_t>(keys_.size()); }
  void cut(uint32_t count);  // forgets those from `count` on

 private:
  std::vector<uint32_t> keys_, numbers_;
};

struct FileNames {
  FileNumbers disks, devices;
};

void encodeDisk(std::string* out, const DiskName& name);
void encodeDevice(std::string* out, const std::string& name);
// All names that it takes have numbers.
void encodeRange(std::string* out, const FileNames& names, DiskKey disk, Range virt, std::span<const Mapping> mappings);

// One record, read.
struct Decoded {
  Kind kind;
  std::string_view vm, name;  // of a disk; `name` alone of a device
  DiskKey disk = kNoKey;
  Range virt;
  std::vector<Mapping>* mappings;  // of a range: in it, not empty, and where their devices' bytes can be
};
// False: it is none that a store has written.
bool decode(std::string_view payload, const FileNames& names, Decoded* out);

}  // namespace sm
