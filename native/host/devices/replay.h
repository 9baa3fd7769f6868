// The journal of a recording device, read: what was asked of the medium, and the medium as a crash may leave it.
//
// Thread contract: const once open; each call does I/O of its own, so not on an I/O thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/journal.h"

namespace sm {

class OwnedFd;  // devices/open.h

struct JournalFacts {
  uint64_t bytes = 0;      // of the medium
  uint32_t blockSize = 0;  // bytes
  // Instants: at `from` the medium is as it was opened; at `to` all that is in the journal has happened.
  uint64_t from = 0, to = 0;
  uint64_t changes = 0, flushes = 0;
  uint64_t tornBytes = 0;  // at the end, that are no whole record
};

constexpr uint64_t kNeverInstant = UINT64_MAX;

// A change of the medium. One that `completed` before an instant had done so; others were in flight, or are to come.
struct JournalChange {
  uint8_t op = 0;
  uint32_t flags = 0;
  int32_t status = 0;
  uint64_t offset = 0, length = 0;  // bytes
  uint64_t issued = 0, completed = kNeverInstant;
  uint64_t durable = kNeverInstant;            // since when it is, by a flush or its own FUA
  uint64_t issuedTime = 0, completedTime = 0;  // CLOCK_MONOTONIC, ns
  uint64_t dataAt = 0;                         // in the journal's file; 0: zeroes
};

class Journal {
 public:
  // ERR_STRATAMAP_JOURNAL: it is none, or says what no recording device writes. What is torn at its end is left out.
  static Failure open(const std::string& path, std::unique_ptr<Journal>* out);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const JournalFacts& facts() const { return facts_; }
  const std::vector<JournalChange>& base() const { return base_; }        // what the medium held
  const std::vector<JournalChange>& changes() const { return changes_; }  // in the order of issue

  // Makes the file `into` what a crash may leave when everything recorded before the instant `at` had happened, and
  // nothing else: all that was durable; of every other change issued by then, and of every discard, a random part, in
  // sectors of 512 bytes (in multiples of them where it is longer than a request with data can be).
  // The same for the same journal, instant and seed. An existing file is overwritten; ERR_STRATAMAP_BUSY where someone
  // has locked it, as an open device is.
  Failure crash(uint64_t at, uint64_t seed, const std::string& into) const;

 private:
  class Reader;
  Journal(std::string path, int fd);
  int32_t copy(const JournalChange& change, uint64_t from, uint64_t length, int to) const;

  const std::string path_;
  const std::unique_ptr<OwnedFd> owned_;
  const int fd_;
  JournalFacts facts_;
  std::vector<JournalChange> base_, changes_;
};

}  // namespace sm
