// The driver recording and its journal, and the medium after a crash.
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <set>

#include "devices/journal.h"
#include "devices/replay.h"
#include "native/devices/rig.h"

using namespace sm;
using namespace sm::test;

namespace {

constexpr uint64_t kBytes = 1 << 20;

struct Bench {
  explicit Bench(uint32_t threads = 1) : file(folder / "image"), journal(file + ".journal"), rig(threads) {
    std::ofstream(file, std::ios::binary) << std::string(kBytes, 0);
  }
  sm_device* open() {
    const Failure failure = openDevice({.name = "r", .path = file, .driver = "recording"}, rig.threads, &device);
    INFO(failure.message);
    REQUIRE_FALSE(failure);
    return device->contract();
  }
  int32_t write(uint64_t offset, uint64_t length, char byte, uint32_t flags = 0) {
    Memory memory(length);
    std::memset(memory.data(), byte, length);
    return rig.write(device->contract(), offset, memory.data(), length, flags);
  }
  int32_t flush() { return rig.ranged(device->contract(), SM_OP_FLUSH, 0, 0); }
  std::unique_ptr<Journal> read() {
    std::unique_ptr<Journal> out;
    const Failure failure = Journal::open(journal, &out);
    INFO(failure.message);
    REQUIRE_FALSE(failure);
    return out;
  }
  std::string crash(const Journal& journal, uint64_t at, uint64_t seed = 1) {
    const Failure failure = journal.crash(at, seed, folder / "crashed");
    INFO(failure.message);
    REQUIRE_FALSE(failure);
    return readFile(folder / "crashed");
  }

  TempFolder folder;
  std::string file, journal;
  Rig rig;
  std::unique_ptr<Device> device;
};

bool all(const std::string& text, uint64_t offset, uint64_t length, char byte) {
  const auto from = text.begin() + static_cast<ptrdiff_t>(offset);
  return std::all_of(from, from + static_cast<ptrdiff_t>(length), [byte](char c) { return c == byte; });
}

// The bytes at the start of each sector of a range.
std::set<char> sectors(const std::string& text, uint64_t offset, uint64_t length) {
  std::set<char> found;
  for (uint64_t at = offset; at < offset + length; at += 512) {
    CHECK(all(text, at, 512, text[at]));
    found.insert(text[at]);
  }
  return found;
}

void checkRefused(const std::string& path, const std::string& says) {
  std::unique_ptr<Journal> journal;
  const Failure failure = Journal::open(path, &journal);
  CAPTURE(failure.message);
  CHECK(failure.code == "ERR_STRATAMAP_JOURNAL");
  CHECK(failure.layer == "device");
  CHECK(failure.message.find(says) != std::string::npos);
  CHECK_FALSE(journal);
}

}  // namespace

TEST_CASE("the journal has each change with when it was issued and completed, and what it wrote") {
  Bench b;
  b.open();
  CHECK(b.device->facts().driver == "recording");
  CHECK(b.device->facts().journal == b.journal);
  const uint64_t before = recordedInstant();
  CHECK(b.write(4096, 8192, 'a') == 0);
  CHECK(recordedInstant() == before + 2);
  CHECK(b.rig.ranged(b.device->contract(), SM_OP_WRITE_ZEROES, 8192, 4096, SM_FLAG_FUA) == 0);
  CHECK(b.rig.ranged(b.device->contract(), SM_OP_DISCARD, 65536, 4096) == 0);
  Memory memory(4096);
  CHECK(b.rig.read(b.device->contract(), 4096, memory.data(), 4096) == 0);
  CHECK(memory.data()[0] == 'a');
  CHECK(b.flush() == 0);
  CHECK(b.write(kBytes, 4096, 'x') == -ENOSPC);  // refused: nothing happened
  b.device.reset();
  CHECK(recordedInstant() == before + 8);
  const auto journal = b.read();
  const JournalFacts& facts = journal->facts();
  CHECK(facts.bytes == kBytes);
  CHECK(facts.from <= before);
  CHECK(facts.to == before + 8);
  CHECK(facts.changes == 3);
  CHECK(facts.flushes == 1);
  CHECK(facts.tornBytes == 0);
  const uint8_t ops[] = {SM_OP_WRITE, SM_OP_WRITE_ZEROES, SM_OP_DISCARD};
  const uint64_t offsets[] = {4096, 8192, 65536}, lengths[] = {8192, 4096, 4096};
  const uint64_t durable[] = {before + 7, before + 3, before + 7};
  REQUIRE(journal->changes().size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    const JournalChange& change = journal->changes()[i];
    CHECK(change.op == ops[i]);
    CHECK(change.flags == (i == 1 ? uint32_t{SM_FLAG_FUA} : 0));
    CHECK(change.offset == offsets[i]);
    CHECK(change.length == lengths[i]);
    CHECK(change.status == 0);
    CHECK(change.issued == before + 2 * i);
    CHECK(change.completed == before + 2 * i + 1);
    CHECK(change.durable == durable[i]);
    CHECK(change.issuedTime > 0);
    CHECK(change.issuedTime <= change.completedTime);
  }
  const std::string now = b.crash(*journal, facts.to);
  CHECK((now == readFile(b.file)));
  CHECK(all(now, 4096, 4096, 'a'));
  CHECK(all(now, 8192, 4096, 0));
}

TEST_CASE("a flush covers what had completed before it was issued, and nothing else") {
  Bench b;
  sm_device* device = b.open();
  // Twelve writes and a flush at once: whatever completes when, the two agree.
  for (int round = 0; round < 20; ++round) {
    std::vector<std::unique_ptr<Memory>> parts;
    std::vector<TestIo> ios;
    for (uint64_t i = 0; i < 13; ++i) {
      parts.push_back(std::make_unique<Memory>(4096));
      std::memset(parts.back()->data(), static_cast<int>('a' + i), 4096);
      if (i == 6) ios.push_back({.op = SM_OP_FLUSH});
      else
        ios.push_back({.op = SM_OP_WRITE, .offset = i * 4096, .length = 4096, .iov = {{parts.back()->data(), 4096}}});
    }
    b.rig.run(device, ios);
    for (const TestIo& io : ios) CHECK(io.status == 0);
  }
  b.device.reset();
  const auto journal = b.read();
  CHECK(journal->facts().flushes == 20);
  const auto& changes = journal->changes();
  REQUIRE(changes.size() == 240);
  // The flush of a round covers all of the rounds before, and nothing of its own, as that was issued at once with it.
  for (size_t i = 0; i < changes.size(); ++i) {
    const size_t next = i / 12 * 12 + 12, after = next + 12;
    CHECK((changes[i].durable == kNeverInstant) == (next == changes.size()));
    if (next == changes.size()) continue;
    CHECK(changes[i].durable > changes[next].issued);
    CHECK(changes[i].durable < (after < changes.size() ? changes[after].issued : journal->facts().to));
  }
}

TEST_CASE("a crash leaves what was flushed or written with FUA, and of the rest any sector, each whole") {
  Bench b;
  b.open();
  CHECK(b.write(0, 65536, 'a') == 0);
  CHECK(b.flush() == 0);
  CHECK(b.write(0, 65536, 'b') == 0);
  CHECK(b.write(65536, 65536, 'c', SM_FLAG_FUA) == 0);
  CHECK(b.write(131072, 65536, 'd') == 0);
  b.device.reset();
  const auto journal = b.read();
  const auto& changes = journal->changes();
  // Before the flush: nothing, a part, or all of it. While it is in flight as well.
  for (const uint64_t at : {changes[0].issued + 1, changes[0].completed + 1, changes[0].durable}) {
    std::set<size_t> kinds;
    for (uint64_t seed = 0; seed < 32; ++seed) {
      const auto found = sectors(b.crash(*journal, at, seed), 0, 65536);
      for (const char byte : found) CHECK((byte == 0 || byte == 'a'));
      kinds.insert(found.size() == 2 ? 2 : *found.begin() == 'a');
    }
    CHECK(kinds == std::set<size_t>{0, 1, 2});
  }
  CHECK(all(b.crash(*journal, journal->facts().from), 0, kBytes, 0));
  CHECK(all(b.crash(*journal, changes[0].issued), 0, kBytes, 0));
  CHECK(all(b.crash(*journal, changes[0].durable + 1), 0, 65536, 'a'));
  // After all of it.
  std::set<char> first, third;
  for (uint64_t seed = 0; seed < 32; ++seed) {
    const std::string crashed = b.crash(*journal, journal->facts().to, seed);
    CHECK((crashed == b.crash(*journal, journal->facts().to, seed)));
    first.merge(sectors(crashed, 0, 65536));
    CHECK(all(crashed, 65536, 65536, 'c'));
    third.merge(sectors(crashed, 131072, 65536));
    CHECK(all(crashed, 196608, kBytes - 196608, 0));
  }
  CHECK(first == std::set<char>{'a', 'b'});
  CHECK(third == std::set<char>{0, 'd'});
  // A FUA write before its completion is as any other.
  std::set<char> fua;
  for (uint64_t seed = 0; seed < 32; ++seed)
    fua.merge(sectors(b.crash(*journal, changes[2].completed, seed), 65536, 65536));
  CHECK(fua == std::set<char>{0, 'c'});
}

TEST_CASE("a discarded range may hold anything of what it held, also after a flush; a zeroed one may not") {
  Bench b;
  b.open();
  CHECK(b.write(0, 131072, 'a') == 0);
  CHECK(b.rig.ranged(b.device->contract(), SM_OP_DISCARD, 0, 65536) == 0);
  CHECK(b.rig.ranged(b.device->contract(), SM_OP_WRITE_ZEROES, 65536, 65536) == 0);
  CHECK(b.flush() == 0);
  b.device.reset();
  const auto journal = b.read();
  std::set<char> discarded;
  for (uint64_t seed = 0; seed < 32; ++seed) {
    const std::string crashed = b.crash(*journal, journal->facts().to, seed);
    discarded.merge(sectors(crashed, 0, 65536));
    CHECK(all(crashed, 65536, 65536, 0));
  }
  CHECK(discarded == std::set<char>{0, 'a'});
}

TEST_CASE("changes that overlap are carried out in the order in which they are issued, from every thread") {
  constexpr uint32_t kDepth = 64;
  Bench b(2);
  sm_device* device = b.open();
  for (int round = 0; round < 20; ++round) {
    std::vector<std::unique_ptr<Memory>> parts;
    std::vector<TestIo> ios;
    for (uint32_t i = 0; i < kDepth; ++i) {
      parts.push_back(std::make_unique<Memory>(16384));
      std::memset(parts.back()->data(), static_cast<int>(1 + i + (round % 3) * kDepth), 16384);
      const uint64_t offset = i * 7 % 5 * 4096;
      if (i % 8 == 7) ios.push_back({.op = SM_OP_WRITE_ZEROES, .offset = offset, .length = 8192});
      else
        ios.push_back({.op = SM_OP_WRITE, .offset = offset, .length = 16384, .iov = {{parts.back()->data(), 16384}}});
    }
    b.rig.run(device, ios, round % 2);
    for (const TestIo& io : ios) CHECK((io.status == 0 && io.completions == 1 && !io.elsewhere));
  }
  CHECK(b.flush() == 0);
  b.device.reset();
  const auto journal = b.read();
  CHECK((b.crash(*journal, journal->facts().to) == readFile(b.file)));
}

TEST_CASE("what the medium held before is in the journal, but not its zeroes") {
  Bench b;
  std::string held(kBytes, 0);
  const std::string data = randomBytes(200'000, 3);
  held.replace(300'000, data.size(), data);
  held.back() = 'z';
  std::ofstream(b.file, std::ios::binary) << held;
  b.open();
  CHECK(std::filesystem::file_size(b.journal) < 500'000);
  CHECK(b.write(307'200, 4096, 'n', SM_FLAG_FUA) == 0);
  b.device.reset();
  const auto journal = b.read();
  CHECK_FALSE(journal->base().empty());
  CHECK((b.crash(*journal, 0) == held));
  held.replace(307'200, 4096, 4096, 'n');
  CHECK((b.crash(*journal, journal->facts().to) == held));
}

TEST_CASE("a discard as long as a very large medium is replayed in few pieces") {
  constexpr uint64_t kLarge = uint64_t{1} << 42;  // a hole: as long as the file system lets a file be
  JournalHeader header{.version = kJournalVersion, .blockSize = 512, .bytes = kLarge, .from = 1};
  std::memcpy(header.magic, kJournalMagic, sizeof header.magic);
  header.checksum = crc32(0, &header, offsetof(JournalHeader, checksum));
  std::string text(reinterpret_cast<char*>(&header), sizeof header);
  for (uint64_t i = 0; i < 8; ++i) {
    JournalRecord record{
        .kind = JournalRecord::kIssue, .op = SM_OP_DISCARD, .instant = 1 + i, .id = 1 + i, .length = kLarge};
    record.checksum = crc32(0, &record.kind, sizeof record - offsetof(JournalRecord, kind));
    text.append(reinterpret_cast<char*>(&record), sizeof record);
  }
  Bench b;
  std::ofstream(b.journal, std::ios::binary) << text;
  const auto journal = b.read();
  const Failure failure = journal->crash(journal->facts().to, 1, b.folder / "crashed");
  INFO(failure.message);
  CHECK_FALSE(failure);
  CHECK(std::filesystem::file_size(b.folder / "crashed") == kLarge);
}

TEST_CASE("a journal that ends anywhere is a shorter one") {
  Bench b;
  b.open();
  const uint64_t before = recordedInstant();
  CHECK(b.write(0, 4096, 'a') == 0);
  CHECK(b.flush() == 0);
  CHECK(b.write(0, 4096, 'b', SM_FLAG_FUA) == 0);
  b.device.reset();
  const std::string whole = readFile(b.journal);
  const uint64_t write = sizeof(JournalRecord) + 4096, other = sizeof(JournalRecord);
  const uint64_t ends[] = {write, other, other, other, write, other};  // of the six records
  REQUIRE(whole.size() == sizeof(JournalHeader) + 2 * write + 4 * other);
  for (uint64_t size = sizeof(JournalHeader); size <= whole.size(); size += size % 61 == 0 ? 1 : 8) {
    CAPTURE(size);
    b.journal = b.folder / "cut";
    std::ofstream(b.journal, std::ios::binary) << whole.substr(0, size);
    const auto journal = b.read();
    uint64_t records = 0, at = sizeof(JournalHeader);
    while (records < 6 && at + ends[records] <= size) at += ends[records++];
    CHECK(journal->facts().tornBytes == size - at);
    CHECK(journal->facts().to == (records ? before + records : journal->facts().from));
    const auto found = sectors(b.crash(*journal, UINT64_MAX - 1), 0, 4096);
    if (records == 0) CHECK(found == std::set<char>{0});
    if (records == 4) CHECK(found == std::set<char>{'a'});
    if (records == 6) CHECK(found == std::set<char>{'b'});
  }
  // A byte that is wrong ends it as well.
  for (uint64_t at = sizeof(JournalHeader); at < whole.size(); at += 97) {
    CAPTURE(at);
    std::string wrong = whole;
    wrong[at] = static_cast<char>(wrong[at] ^ 0x10);
    std::ofstream(b.journal, std::ios::binary) << wrong;
    const auto journal = b.read();
    CHECK(journal->facts().tornBytes >= whole.size() - at);
    CHECK(journal->facts().to < before + 6);
  }
}

TEST_CASE("what is no journal, or contradicts itself, is refused") {
  Bench b;
  b.open();
  CHECK(b.write(0, 4096, 'a') == 0);
  b.device.reset();
  const std::string whole = readFile(b.journal);
  const std::string path = b.folder / "wrong";
  const auto written = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return path;
  };
  checkRefused(written(""), "too short");
  checkRefused(written(whole.substr(0, sizeof(JournalHeader) - 1)), "too short");
  checkRefused(written(std::string(4096, 'x')), "does not begin");
  checkRefused(b.folder / "", "not a regular file");
  const auto header = [&](auto change) {
    JournalHeader header;
    std::memcpy(&header, whole.data(), sizeof header);
    change(header);
    header.checksum = crc32(0, &header, offsetof(JournalHeader, checksum));
    return written(std::string(reinterpret_cast<char*>(&header), sizeof header) + whole.substr(sizeof header));
  };
  checkRefused(header([](JournalHeader& h) { h.version = 2; }), "version 2");
  checkRefused(header([](JournalHeader& h) { h.bytes = 1000; }), "1000 bytes");
  checkRefused(header([](JournalHeader& h) { h.bytes = 0; }), "0 bytes");
  checkRefused(header([](JournalHeader& h) { h.blockSize = 0; }), "blocks of 0");
  checkRefused(header([](JournalHeader& h) { h.bytes = uint64_t{1} << 63; }), "which none has");
  std::string sum = whole;
  sum[8] ^= 1;
  checkRefused(written(sum), "checksum");
  // Records that are right in themselves, put behind the others.
  const auto record = [&](auto change) {
    JournalRecord record{
        .kind = JournalRecord::kIssue, .op = SM_OP_DISCARD, .instant = recordedInstant(), .id = 7, .length = 4096};
    change(record);
    record.checksum = crc32(0, &record.kind, sizeof record - offsetof(JournalRecord, kind));
    return written(whole + std::string(reinterpret_cast<char*>(&record), sizeof record));
  };
  std::unique_ptr<Journal> journal;
  CHECK_FALSE(Journal::open(record([](JournalRecord&) {}), &journal));
  const std::string says = "contradicts";
  checkRefused(record([](JournalRecord& r) { r.kind = 9; }), says);
  checkRefused(record([](JournalRecord& r) { r.kind = JournalRecord::kBase, r.length = 0; }), says);
  checkRefused(record([](JournalRecord& r) { r.kind = JournalRecord::kComplete; }), says);
  checkRefused(record([](JournalRecord& r) { r.op = SM_OP_READ; }), says);
  checkRefused(record([](JournalRecord& r) { r.op = 77; }), says);
  checkRefused(record([](JournalRecord& r) { r.offset = kBytes; }), says);
  checkRefused(record([](JournalRecord& r) { r.offset = UINT64_MAX - 511; }), says);
  checkRefused(record([](JournalRecord& r) { r.length = 100; }), says);
  checkRefused(record([](JournalRecord& r) { r.instant = 0; }), says);
  checkRefused(record([](JournalRecord& r) { r.instant = UINT64_MAX; }), says);
  {
    const std::string issued = readFile(record([](JournalRecord&) {})).substr(whole.size());
    JournalRecord other{.kind = JournalRecord::kComplete, .op = SM_OP_FLUSH, .instant = recordedInstant() + 1, .id = 7};
    other.checksum = crc32(0, &other.kind, sizeof other - offsetof(JournalRecord, kind));
    checkRefused(written(whole + issued + std::string(reinterpret_cast<char*>(&other), sizeof other)), says);
  }
  // A length that would take the checksum beyond the end.
  CHECK_FALSE(Journal::open(record([](JournalRecord& r) { r.op = SM_OP_WRITE, r.length = UINT64_MAX; }), &journal));
  CHECK(journal->facts().tornBytes == sizeof(JournalRecord));
  CHECK(Journal::open(b.folder / "none", &journal).code == "ENOENT");
}

TEST_CASE("neither a journal nor a medium in use is overwritten") {
  Bench b;
  b.open();
  CHECK(b.write(0, 4096, 'a') == 0);
  CHECK(b.flush() == 0);  // and the journal has it
  const auto journal = b.read();
  CHECK(journal->facts().changes == 1);
  CHECK(journal->crash(1, 1, b.file).code == "ERR_STRATAMAP_BUSY");
  CHECK(all(readFile(b.file), 0, 4096, 'a'));
  CHECK(journal->crash(1, 1, b.journal).code == "EINVAL");
  CHECK(journal->crash(1, 1, "/dev/null").code == "EINVAL");
  CHECK(journal->crash(1, 1, b.folder / "none/there").code == "ENOENT");
  b.device.reset();
  const std::string before = readFile(b.journal);
  Failure failure = openDevice({.name = "r", .path = b.file, .driver = "recording"}, b.rig.threads, &b.device);
  CHECK(failure.code == "EEXIST");
  CHECK(failure.device == "r");
  CHECK(failure.message.find(b.journal) != std::string::npos);
  CHECK((readFile(b.journal) == before));
  const std::string other = b.folder / "other";
  REQUIRE_FALSE(
      openDevice({.name = "r", .path = b.file, .driver = "recording", .journal = other}, b.rig.threads, &b.device));
  CHECK(b.device->facts().journal == other);
}

TEST_CASE("on a block device the journal's path has to be given") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  Bench b;
  const Loop loop(LoopOptions{.file = b.file, .autoclear = true});
  DeviceSpec spec{.name = "r", .path = loop.device.path, .driver = "recording"};
  CHECK(openDevice(spec, b.rig.threads, &b.device).code == "ERR_STRATAMAP_JOURNAL");
  spec.journal = b.journal;
  REQUIRE_FALSE(openDevice(spec, b.rig.threads, &b.device));
  CHECK(b.write(4096, 4096, 'a', SM_FLAG_FUA) == 0);
  b.device.reset();
  const auto journal = b.read();
  CHECK(all(b.crash(*journal, journal->facts().to), 4096, 4096, 'a'));
}

TEST_CASE("what cannot be recorded is not done") {
  TempFolder folder;
  const std::string file = folder.file("image", kBytes);
  const int result = inChild([&] {
    const rlimit limit{2 << 20, 2 << 20};  // the journal may grow to that, and begins with 1 MiB
    signal(SIGXFSZ, SIG_IGN);
    Rig rig;
    std::unique_ptr<Device> device;
    if (openDevice({.name = "r", .path = file, .driver = "recording"}, rig.threads, &device)) return 1;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
    Memory memory(65536);
    std::memset(memory.data(), 'a', 65536);
    int failed = 0;
    for (uint64_t i = 0; i < 40; ++i) {
      const int32_t status = rig.write(device->contract(), 0, memory.data(), 65536, 0);
      if (status != 0 && status != -EFBIG) return 3;
      failed += status != 0;
      if (failed == 1) std::memset(memory.data(), 'b', 65536);
    }
    if (failed == 0) return 4;
    if (rig.ranged(device->contract(), SM_OP_FLUSH, 0, 0) != -EFBIG) return 5;
    return rig.read(device->contract(), 0, memory.data(), 65536) == 0 && memory.data()[0] == 'a' ? 0 : 6;
  });
  CHECK(result == 0);
}
