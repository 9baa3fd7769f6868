// The journal of a recording device: a file of what was asked of a medium and what was answered, in that order.
//
// A header, then records, each followed by its data where it has any; little endian, nothing aligned or padded. A
// record counts if it is whole and its checksum is right; the first that is not ends the journal, so that a journal cut
// off anywhere is a shorter journal. First come the records of what the medium held when it was opened (kBase; zeroes
// where there are none), then for each request that changes the medium or flushes it one when it is issued, before
// anything is done, and one when it has completed, before its issuer sees that.
//
// What is durable follows from the order. A flush covers every change whose completion is recorded before the flush is
// issued; they are durable when the flush has completed. A write or write-zeroes with FUA is durable when it has
// completed itself. Changes that overlap are carried out in the order in which they are issued.
//
// Thread contract: recordedInstant from anywhere; a JournalWriter under its owner's lock.
#pragma once

#include <stratamap/request.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/failure.h"

namespace sm {

constexpr char kJournalMagic[8] = {'S', 'M', 'J', 'O', 'U', 'R', 'N', 'L'};
constexpr uint32_t kJournalVersion = 1;

struct JournalHeader {
  char magic[8];
  uint32_t version;
  uint32_t blockSize;  // bytes
  uint64_t bytes;      // of the medium
  uint64_t from;       // the instant at which the recording began
  uint32_t reserved;
  uint32_t checksum;  // CRC-32 of the bytes before it
};
static_assert(sizeof(JournalHeader) == 40);

struct JournalRecord {
  enum Kind : uint8_t { kBase = 1, kIssue = 2, kComplete = 3 };
  uint32_t checksum;  // CRC-32 of the rest of the record and its data
  uint8_t kind;
  uint8_t op;  // enum sm_op
  uint16_t reserved;
  uint32_t flags;  // enum sm_flag
  int32_t status;  // of a completion
  uint64_t instant;
  uint64_t time;  // CLOCK_MONOTONIC, ns
  uint64_t id;    // of the request: the same in both of its records, counted from 1
  uint64_t offset;
  uint64_t length;  // bytes; of a base and of a write that is issued this many follow

  uint64_t dataBytes() const { return kind == kBase || (kind == kIssue && op == SM_OP_WRITE) ? length : 0; }
};
static_assert(sizeof(JournalRecord) == 56);

// CRC-32 as zlib computes it; `crc` is 0, or the result for the bytes before these.
uint32_t crc32(uint32_t crc, const void* data, size_t length);

// The process counts what its recording devices record: the instant of the next record. What is recorded at an instant
// before `recordedInstant()` happened before the call, on every device.
uint64_t recordedInstant();

Failure journalFailure(const std::string& path, int error, const char* code, const std::string& found);

class JournalWriter {
 public:
  // EEXIST where there is something at `path` already.
  static Failure create(const std::string& path, uint64_t bytes, uint32_t blockSize,
                        std::unique_ptr<JournalWriter>* out);
  ~JournalWriter();
  JournalWriter(const JournalWriter&) = delete;
  JournalWriter& operator=(const JournalWriter&) = delete;

  // Fills in instant, time and checksum. `request` has the data of a record that is followed by some. Returns 0 or a
  // negative errno; after a failure nothing is recorded any more, and every call returns it.
  int32_t append(JournalRecord record, const sm_request* request);
  int32_t writeOut();  // what is still in memory

 private:
  explicit JournalWriter(int fd);
  const int fd_;
  int32_t status_ = 0;
  std::vector<char> buffer_;
};

}  // namespace sm
