// Arbitrary bytes as the journal of a recording device, read and replayed. The first byte says what is put right, since
// random bytes pass no checksum: the header's checksum, and those of all records.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "devices/replay.h"
#include "fuzz/fuzz.h"

using namespace sm;

namespace {

// A file in memory, which has a path.
struct MemoryFile {
  explicit MemoryFile(const char* name) : fd(memfd_create(name, MFD_CLOEXEC)) { SM_MUST(fd >= 0); }
  ~MemoryFile() { close(fd); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd); }
  const int fd;
};

void putRight(std::vector<char>& bytes, uint8_t what) {
  JournalHeader header;
  if (bytes.size() < sizeof header) return;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (what & 1) {
    std::memcpy(header.magic, kJournalMagic, sizeof header.magic);
    header.version = kJournalVersion;
    header.checksum = crc32(0, &header, offsetof(JournalHeader, checksum));
    std::memcpy(bytes.data(), &header, sizeof header);
  }
  if (!(what & 2)) return;
  for (size_t at = sizeof header; bytes.size() - at >= sizeof(JournalRecord);) {
    JournalRecord record;
    std::memcpy(&record, &bytes[at], sizeof record);
    const uint64_t length = record.dataBytes();
    if (length > bytes.size() - at - sizeof record) return;
    const size_t from = at + offsetof(JournalRecord, kind), end = at + sizeof record + length;
    record.checksum = crc32(0, &bytes[from], end - from);
    std::memcpy(&bytes[at], &record, sizeof record.checksum);
    at = end;
  }
}

// What holds of every journal that is accepted, whatever its bytes were.
void checkSense(const Journal& journal) {
  const JournalFacts& facts = journal.facts();
  SM_MUST(facts.from <= facts.to);
  SM_MUST(facts.changes == journal.changes().size());
  uint64_t last = 0;
  for (const JournalChange& change : journal.changes()) {
    SM_MUST(sm_op_modifies(change.op));
    SM_MUST(change.offset <= facts.bytes && change.length <= facts.bytes - change.offset);
    SM_MUST(change.issued >= last && change.issued >= facts.from && change.issued < facts.to);
    SM_MUST(change.completed == kNeverInstant || (change.completed > change.issued && change.completed < facts.to));
    SM_MUST(change.durable == kNeverInstant || (change.completed <= change.durable && change.durable < facts.to));
    last = change.issued;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  std::vector<char> bytes(data + 1, data + size);
  putRight(bytes, data[0]);
  const MemoryFile file("journal");
  SM_MUST(write(file.fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  std::unique_ptr<Journal> journal;
  if (Failure failure = Journal::open(file.path(), &journal)) {
    SM_MUST(!journal && !failure.message.empty() && failure.code == "ERR_STRATAMAP_JOURNAL");
    return 0;
  }
  checkSense(*journal);
  const MemoryFile image("image");
  const JournalFacts& facts = journal->facts();
  for (const uint64_t at : {facts.from, facts.from + (facts.to - facts.from) / 2, facts.to}) {
    if (Failure failure = journal->crash(at, data[0], image.path())) continue;
    SM_MUST(static_cast<uint64_t>(lseek(image.fd, 0, SEEK_END)) == facts.bytes);
  }
  return 0;
}
