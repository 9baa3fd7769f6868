#include "devices/replay.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <unordered_map>
#include <utility>

#include "devices/check.h"
#include "devices/open.h"

namespace sm {

namespace {

constexpr uint64_t kSector = 512;  // bytes: what a medium writes whole or not at all
constexpr uint64_t kPiece = 1 << 20;
// What has no data may be as long as the medium: it is there or not in at most this many pieces.
constexpr uint64_t kPieces = kDeviceMaxTransfer / kSector;
// Of a change that is not durable much may be there or little: nothing, half of its sectors, or all.
constexpr uint64_t kQuarters[] = {0, 2, 2, 4};

// Reads or writes whole; 0 or a negative errno, -ENODATA where the file ends.
template <typename Call, typename Byte>
int32_t whole(Call call, int fd, Byte* data, uint64_t length, uint64_t offset) {
  while (length > 0) {
    const ssize_t moved = call(fd, data, length, static_cast<off_t>(offset));
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return moved < 0 ? -errno : -ENODATA;
    data += moved;
    length -= static_cast<uint64_t>(moved);
    offset += static_cast<uint64_t>(moved);
  }
  return 0;
}

int32_t readWhole(int fd, void* data, uint64_t length, uint64_t offset) {
  return whole(pread, fd, static_cast<char*>(data), length, offset);
}

int32_t writeWhole(int fd, const void* data, uint64_t length, uint64_t offset) {
  return whole(pwrite, fd, static_cast<const char*>(data), length, offset);
}

Failure wrongJournal(const std::string& path, const std::string& found) {
  return journalFailure(path, EINVAL, "ERR_STRATAMAP_JOURNAL", found + "; give the journal of a recording device");
}

}  // namespace

// Goes through a journal once, from its beginning.
class Journal::Reader {
 public:
  explicit Reader(Journal& journal) : journal_(journal), facts_(journal.facts_) {}

  Failure run() {
    struct stat st;
    if (fstat(journal_.fd_, &st) != 0) return system(-errno);
    if (!S_ISREG(st.st_mode)) return wrongJournal(journal_.path_, "it is not a regular file");
    size_ = static_cast<uint64_t>(st.st_size);
    if (Failure failure = header()) return failure;
    uint64_t at = sizeof(JournalHeader);
    for (;;) {
      JournalRecord record;
      bool torn = false;
      if (const int32_t status = next(at, &record, &torn)) return system(status);
      if (torn) break;
      const uint64_t dataAt = at + sizeof record;
      if (!take(record, dataAt)) {
        return wrongJournal(journal_.path_,
                            "the record at byte " + std::to_string(at) + " contradicts those before it");
      }
      at = dataAt + record.dataBytes();
    }
    facts_.tornBytes = size_ - at;
    facts_.changes = journal_.changes_.size();
    return {};
  }

 private:
  Failure system(int32_t status) const {
    return journalFailure(journal_.path_, -status, nullptr,
                          std::string("it cannot be read: ") + std::strerror(-status));
  }

  Failure header() {
    JournalHeader header{};
    if (size_ < sizeof header) return wrongJournal(journal_.path_, "it is too short to be one");
    if (const int32_t status = readWhole(journal_.fd_, &header, sizeof header, 0)) return system(status);
    if (std::memcmp(header.magic, kJournalMagic, sizeof header.magic) != 0) {
      return wrongJournal(journal_.path_, "it does not begin as one");
    }
    if (header.checksum != crc32(0, &header, offsetof(JournalHeader, checksum))) {
      return wrongJournal(journal_.path_, "the checksum of its header is wrong");
    }
    if (header.version != kJournalVersion) {
      return wrongJournal(journal_.path_, "it is of version " + std::to_string(header.version) + ", and " +
                                              std::to_string(kJournalVersion) + " is known");
    }
    if (header.blockSize < kSector || header.blockSize % kSector != 0 || header.bytes == 0 ||
        header.bytes % header.blockSize != 0 || header.bytes > INT64_MAX) {
      return wrongJournal(journal_.path_, "its medium has " + std::to_string(header.bytes) + " bytes in blocks of " +
                                              std::to_string(header.blockSize) + ", which none has");
    }
    facts_.bytes = header.bytes;
    facts_.blockSize = header.blockSize;
    facts_.from = facts_.to = header.from;
    return {};
  }

  // The record at `at`, whole and right, or *torn.
  int32_t next(uint64_t at, JournalRecord* record, bool* torn) {
    *torn = true;
    if (size_ - at < sizeof *record) return 0;
    if (const int32_t status = readWhole(journal_.fd_, record, sizeof *record, at)) return status;
    const uint64_t length = record->dataBytes();
    if (length > kDeviceMaxTransfer || length > size_ - at - sizeof *record) return 0;
    data_.resize(kDeviceMaxTransfer);
    if (const int32_t status = readWhole(journal_.fd_, data_.data(), length, at + sizeof *record)) return status;
    const uint32_t crc = crc32(0, &record->kind, sizeof *record - offsetof(JournalRecord, kind));
    *torn = record->checksum != crc32(crc, data_.data(), length);
    return 0;
  }

  // False: no recording device has written that.
  bool take(const JournalRecord& record, uint64_t dataAt) {
    if (record.instant < facts_.to || record.instant == kNeverInstant) return false;
    if (record.kind != JournalRecord::kBase) facts_.to = record.instant + 1;
    switch (record.kind) {
      case JournalRecord::kBase:
        if (!inside(record) || !journal_.changes_.empty()) return false;
        journal_.base_.push_back(
            {.op = SM_OP_WRITE, .offset = record.offset, .length = record.length, .dataAt = dataAt});
        return true;
      case JournalRecord::kIssue:
        return issued(record, dataAt);
      case JournalRecord::kComplete:
        return completed(record);
      default:
        return false;
    }
  }

  bool inside(const JournalRecord& record) const {
    return record.offset <= facts_.bytes && record.length <= facts_.bytes - record.offset &&
           record.offset % facts_.blockSize == 0 && record.length % facts_.blockSize == 0;
  }

  bool issued(const JournalRecord& record, uint64_t dataAt) {
    const bool flush = record.op == SM_OP_FLUSH;
    if (!flush && (!sm_op_modifies(record.op) || !inside(record))) return false;
    const Running running{record.op, flush ? record.instant : journal_.changes_.size()};
    if (!running_.emplace(record.id, running).second) return false;
    facts_.flushes += flush;
    if (flush) return true;
    journal_.changes_.push_back({.op = record.op,
                                 .flags = record.flags,
                                 .offset = record.offset,
                                 .length = record.length,
                                 .issued = record.instant,
                                 .issuedTime = record.time,
                                 .dataAt = record.op == SM_OP_WRITE ? dataAt : 0});
    return true;
  }

  bool completed(const JournalRecord& record) {
    const auto found = running_.find(record.id);
    if (found == running_.end() || found->second.op != record.op) return false;
    const uint64_t index = found->second.index;
    running_.erase(found);
    if (record.op == SM_OP_FLUSH) {
      if (record.status == 0) flushed(index, record.instant);
      return true;
    }
    JournalChange& change = journal_.changes_[index];
    change.status = record.status;
    change.completed = record.instant;
    change.completedTime = record.time;
    if (record.status != 0) return true;  // it may have left anything of it: never durable
    if (change.flags & SM_FLAG_FUA && change.op != SM_OP_DISCARD) {
      change.durable = record.instant;
    } else {
      waiting_.push_back(index);
    }
    return true;
  }

  void flushed(uint64_t issued, uint64_t instant) {
    std::erase_if(waiting_, [&](size_t index) {
      JournalChange& change = journal_.changes_[index];
      if (change.completed >= issued) return false;
      change.durable = instant;
      return true;
    });
  }

  Journal& journal_;
  JournalFacts& facts_;
  uint64_t size_ = 0;
  std::vector<char> data_;
  struct Running {
    uint8_t op;
    uint64_t index;  // of a change; of a flush the instant of its issue
  };
  std::unordered_map<uint64_t, Running> running_;  // by id
  std::vector<size_t> waiting_;                    // completed, not durable
};

Journal::Journal(std::string path, int fd) : path_(std::move(path)), owned_(new OwnedFd(fd)), fd_(fd) {}

Journal::~Journal() = default;

Failure Journal::open(const std::string& path, std::unique_ptr<Journal>* out) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe does not block
  if (fd < 0) return journalFailure(path, errno, nullptr, std::strerror(errno));
  std::unique_ptr<Journal> journal(new Journal(path, fd));
  if (Failure failure = Reader(*journal).run()) return failure;
  *out = std::move(journal);
  return {};
}

// A part of a change, from its byte `from` on.
int32_t Journal::copy(const JournalChange& change, uint64_t from, uint64_t length, int to) const {
  const uint64_t offset = change.offset + from;
  if (!change.dataAt && fallocate(to, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                                  static_cast<off_t>(length)) == 0) {
    return 0;
  }
  std::vector<char> data(std::min(length, kPiece));
  for (uint64_t done = 0; done < length;) {
    const uint64_t step = std::min(length - done, kPiece);
    int32_t status = change.dataAt ? readWhole(fd_, data.data(), step, change.dataAt + from + done) : 0;
    if (status == 0) status = writeWhole(to, data.data(), step, offset + done);
    if (status != 0) return status;
    done += step;
  }
  return 0;
}

Failure Journal::crash(uint64_t at, uint64_t seed, const std::string& into) const {
  const auto failed = [&](int error, const char* code, const std::string& found) {
    return journalFailure(path_, error, code, "replay into " + into + ": " + found);
  };
  const int fd = ::open(into.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
  if (fd < 0) return failed(errno, nullptr, std::strerror(errno));
  const OwnedFd owned(fd);
  struct stat own {
  }, other{};
  if (fstat(fd_, &own) != 0 || fstat(fd, &other) != 0) return failed(errno, nullptr, std::strerror(errno));
  if (!S_ISREG(other.st_mode) || (own.st_dev == other.st_dev && own.st_ino == other.st_ino)) {
    return failed(EINVAL, nullptr, "it is the journal, or no regular file; give the path of another file");
  }
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return failed(EBUSY, "ERR_STRATAMAP_BUSY", "it is in use; close the device that it is, or give another path");
  }
  if (ftruncate(fd, 0) != 0 || ftruncate(fd, static_cast<off_t>(facts_.bytes)) != 0) {
    return failed(errno, nullptr, std::strerror(errno));
  }
  int32_t status = 0;
  for (const JournalChange& change : base_) {
    if (status == 0) status = copy(change, 0, change.length, fd);
  }
  std::seed_seq from{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), static_cast<uint32_t>(at),
                     static_cast<uint32_t>(at >> 32)};
  std::mt19937_64 random(from);
  for (const JournalChange& change : changes_) {
    if (change.issued >= at || status != 0) break;
    // What a discarded range holds is undefined for good: zeroes, or what was there.
    const bool certain = change.durable < at && change.op != SM_OP_DISCARD;
    const uint64_t quarters = certain ? 4 : kQuarters[random() % 4];
    if (quarters != 2) {
      if (quarters == 4) status = copy(change, 0, change.length, fd);
      continue;
    }
    const uint64_t piece = (change.length / kSector + kPieces - 1) / kPieces * kSector;
    uint64_t begin = 0;  // of the run of pieces that are there
    for (uint64_t at = 0; at < change.length && status == 0; at += piece) {
      if (random() % 2) continue;
      if (begin < at) status = copy(change, begin, at - begin, fd);
      begin = at + piece;
    }
    if (begin < change.length && status == 0) status = copy(change, begin, change.length - begin, fd);
  }
  if (status == 0) return {};
  return failed(-status, nullptr, status == -ENODATA ? "the journal has become shorter" : std::strerror(-status));
}

}  // namespace sm
