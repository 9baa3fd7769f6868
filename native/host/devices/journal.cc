#include "devices/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "devices/check.h"

namespace sm {

static_assert(std::endian::native == std::endian::little, "the journal is written as it lies in memory");

namespace {

constexpr size_t kBuffer = 1 << 20;  // bytes that wait in memory, beside one record

std::atomic<uint64_t> nextInstant{1};

constexpr std::array<uint32_t, 256> kTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) table[i] = (table[i] >> 1) ^ (table[i] & 1 ? 0xedb88320u : 0);
  }
  return table;
}();

uint64_t monotonic() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

uint32_t crc32(uint32_t crc, const void* data, size_t length) {
  const auto* byte = static_cast<const uint8_t*>(data);
  crc = ~crc;
  for (size_t i = 0; i < length; ++i) crc = kTable[(crc ^ byte[i]) & 0xff] ^ (crc >> 8);
  return ~crc;
}

uint64_t recordedInstant() { return nextInstant.load(); }

Failure journalFailure(const std::string& path, int error, const char* code, const std::string& found) {
  return failed(error, "device", "journal " + path + ": " + found, code);
}

JournalWriter::JournalWriter(int fd) : fd_(fd) { buffer_.reserve(kBuffer); }

JournalWriter::~JournalWriter() {
  writeOut();
  close(fd_);
}

Failure JournalWriter::create(const std::string& path, uint64_t bytes, uint32_t blockSize,
                              std::unique_ptr<JournalWriter>* out) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);  // it holds user's data
  if (fd < 0) {
    const int error = errno;
    std::string found = std::strerror(error);
    if (error == EEXIST) found = "there is such a file already; delete it, or give another path as the journal";
    return journalFailure(path, error, nullptr, found);
  }
  out->reset(new JournalWriter(fd));
  JournalHeader header{.version = kJournalVersion, .blockSize = blockSize, .bytes = bytes, .from = recordedInstant()};
  std::memcpy(header.magic, kJournalMagic, sizeof header.magic);
  header.checksum = crc32(0, &header, offsetof(JournalHeader, checksum));
  const char* text = reinterpret_cast<const char*>(&header);
  (*out)->buffer_.assign(text, text + sizeof header);
  return {};
}

int32_t JournalWriter::append(JournalRecord record, const sm_request* request) {
  if (status_ != 0) return status_;
  record.instant = nextInstant.fetch_add(1);
  record.time = monotonic();
  uint32_t crc = crc32(0, &record.kind, sizeof record - offsetof(JournalRecord, kind));
  eachPiece(*request, 0, record.dataBytes(),
            [&crc](const char* data, uint64_t bytes) { crc = crc32(crc, data, bytes); });
  record.checksum = crc;
  const char* text = reinterpret_cast<const char*>(&record);
  buffer_.insert(buffer_.end(), text, text + sizeof record);
  eachPiece(*request, 0, record.dataBytes(),
            [this](const char* data, uint64_t bytes) { buffer_.insert(buffer_.end(), data, data + bytes); });
  return buffer_.size() >= kBuffer ? writeOut() : 0;
}

int32_t JournalWriter::writeOut() {
  for (size_t done = 0; done < buffer_.size() && status_ == 0;) {
    const ssize_t moved = write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (moved > 0) done += moved;
    else if (moved == 0 || errno != EINTR) status_ = moved == 0 ? -EIO : -errno;
  }
  buffer_.clear();
  return status_;
}

}  // namespace sm
