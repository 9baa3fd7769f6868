#include "map/store/format.h"

#include <array>
#include <cstring>

namespace sm {

namespace {

constexpr std::array<uint32_t, 256> makeTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78u : 0);
    table[i] = value;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = makeTable();

uint32_t recordChecksum(const StoreRecord& record, uint64_t generation, std::string_view payload) {
  uint32_t crc = checksumOf(0, &generation, sizeof generation);
  crc = checksumOf(crc, &record.length, sizeof record - offsetof(StoreRecord, length));
  return checksumOf(crc, payload.data(), payload.size());
}

// Numbers in 7 bits a byte, the lowest first; differences, which may be negative, with the sign in the lowest bit.
void putNumber(std::string* out, uint64_t number) {
  for (; number >= 0x80; number >>= 7) out->push_back(static_cast<char>(number | 0x80));
  out->push_back(static_cast<char>(number));
}
void putDifference(std::string* out, uint64_t difference) {
  putNumber(out, difference << 1 ^ (difference >> 63 != 0 ? ~uint64_t{0} : 0));
}
void putText(std::string* out, const std::string& text) {
  putNumber(out, text.size());
  out->append(text);
}

bool takeNumber(std::string_view* from, uint64_t* number) {
  *number = 0;
  for (int shift = 0; shift < 64 && !from->empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(from->front());
    from->remove_prefix(1);
    *number |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return shift < 63 || byte < 2;
  }
  return false;
}
bool takeDifference(std::string_view* from, uint64_t* difference) {
  uint64_t number;
  if (!takeNumber(from, &number)) return false;
  *difference = number >> 1 ^ ((number & 1) != 0 ? ~uint64_t{0} : 0);
  return true;
}
bool takeText(std::string_view* from, std::string_view* text) {
  uint64_t length;
  if (!takeNumber(from, &length) || length > from->size()) return false;
  *text = from->substr(0, length);
  from->remove_prefix(length);
  return true;
}
bool takeRange(std::string_view* from, uint64_t begin, Range* range) {
  uint64_t length;
  if (!takeNumber(from, &length) || length == 0 || length > UINT64_MAX - begin) return false;
  *range = {begin, begin + length};
  return true;
}

bool decodeRange(std::string_view from, const FileNames& names, Decoded* out) {
  uint64_t disk, begin;
  if (!takeNumber(&from, &disk) || !takeNumber(&from, &begin) || !takeRange(&from, begin, &out->virt)) return false;
  out->disk = names.disks.keyOf(disk);
  if (out->disk == kNoKey) return false;
  out->mappings->clear();
  uint64_t at = begin, offset = 0;
  while (!from.empty()) {
    Mapping mapping{.disk = out->disk, .state = State::kStale};
    uint64_t gap, device, jump;
    if (!takeDifference(&from, &gap) || !takeRange(&from, at + gap, &mapping.virt) || !takeNumber(&from, &device) ||
        !takeDifference(&from, &jump)) {
      return false;
    }
    offset += jump;
    mapping.place = {names.devices.keyOf(device), offset};
    const uint64_t length = mapping.virt.length();
    if (mapping.place.device == kNoKey || offset > UINT64_MAX - length) return false;
    if (mapping.virt.begin < out->virt.begin || mapping.virt.end > out->virt.end) return false;
    out->mappings->push_back(mapping);
    at = mapping.virt.end;
    offset += length;
  }
  return true;
}

}  // namespace

uint32_t checksumOf(uint32_t crc, const void* data, size_t length) {
  const auto* byte = static_cast<const uint8_t*>(data);
  crc = ~crc;
  for (size_t i = 0; i < length; ++i) crc = kTable[(crc ^ byte[i]) & 0xff] ^ (crc >> 8);
  return ~crc;
}

StoreHeader makeHeader(uint64_t generation) {
  StoreHeader header{.version = kStoreVersion, .generation = generation};
  std::memcpy(header.magic, kStoreMagic, sizeof header.magic);
  header.checksum = checksumOf(0, &header, offsetof(StoreHeader, checksum));
  return header;
}

void appendRecord(std::string* out, uint64_t generation, uint64_t number, std::string_view payload) {
  StoreRecord record{.length = static_cast<uint32_t>(payload.size()), .number = number};
  record.checksum = recordChecksum(record, generation, payload);
  out->append(reinterpret_cast<const char*>(&record), sizeof record);
  out->append(payload);
}

bool isRight(const StoreRecord& record, uint64_t generation, const char* payload) {
  return record.checksum == recordChecksum(record, generation, {payload, record.length});
}

uint32_t FileNumbers::add(uint32_t key) {
  if (numbers_.size() <= key) numbers_.resize(key + 1, kNone);
  numbers_[key] = count();
  keys_.push_back(key);
  return numbers_[key];
}

void FileNumbers::cut(uint32_t count) {
  for (; keys_.size() > count; keys_.pop_back()) numbers_[keys_.back()] = kNone;
}

void encodeDisk(std::string* out, const DiskName& name) {
  out->push_back(static_cast<char>(Kind::kDisk));
  putText(out, name.vm);
  putText(out, name.disk);
}

void encodeDevice(std::string* out, const std::string& name) {
  out->push_back(static_cast<char>(Kind::kDevice));
  putText(out, name);
}

// Each extent begins, above and below, where the one before it has ended, plus a difference.
void encodeRange(std::string* out, const FileNames& names, DiskKey disk, Range virt,
                 std::span<const Mapping> mappings) {
  out->push_back(static_cast<char>(Kind::kRange));
  putNumber(out, names.disks.of(disk));
  putNumber(out, virt.begin);
  putNumber(out, virt.length());
  uint64_t at = virt.begin, offset = 0;
  for (const Mapping& each : mappings) {
    putDifference(out, each.virt.begin - at);
    putNumber(out, each.virt.length());
    putNumber(out, names.devices.of(each.place.device));
    putDifference(out, each.place.offset - offset);
    at = each.virt.end;
    offset = each.place.offset + each.virt.length();
  }
}

bool decode(std::string_view payload, const FileNames& names, Decoded* out) {
  if (payload.empty()) return false;
  out->kind = static_cast<Kind>(payload.front());
  payload.remove_prefix(1);
  switch (out->kind) {
    case Kind::kDisk:
      return takeText(&payload, &out->vm) && takeText(&payload, &out->name) && payload.empty();
    case Kind::kDevice:
      return takeText(&payload, &out->name) && payload.empty();
    case Kind::kRange:
      return decodeRange(payload, names, out);
    case Kind::kEnd:
      return payload.empty();
  }
  return false;
}

}  // namespace sm
