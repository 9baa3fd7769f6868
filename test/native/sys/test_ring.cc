#include <fcntl.h>
#include <sys/eventfd.h>

#include <memory>

#include "native/sys/deprive.h"
#include "native/sys/temp.h"
#include "sys/ring.h"

using namespace sm;
using namespace sm::test;

namespace {

struct Op : RingOp {
  Op() {
    done = [](RingOp* op, int result) {
      static_cast<Op*>(op)->result = result;
      ++static_cast<Op*>(op)->times;
    };
  }
  int result = 12345;
  int times = 0;
};

void drain(Ring& ring) {
  while (ring.inFlight() > 0) {
    ring.enter(Ring::kForever);
    ring.reap();
  }
}

struct Fixture {
  explicit Fixture(uint32_t entries = 64, uint32_t completions = 64) {
    ring = Ring::create(entries, completions, &why);
    fd = open(folder.file("data", 1 << 20).c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
  }
  ~Fixture() { close(fd); }
  TempFolder folder;
  std::string why;
  std::unique_ptr<Ring> ring;
  int fd;
};

}  // namespace

TEST_CASE("what is written through a ring is in the file, and comes back") {
  Fixture f;
  if (!f.ring) SM_SKIP(f.why);
  const int slot = f.ring->addFile(f.fd);
  REQUIRE(slot >= 0);
  void* region = std::aligned_alloc(4096, 65536);
  char* bytes = static_cast<char*>(region);
  for (int i = 0; i < 65536; ++i) bytes[i] = static_cast<char>(i * 31);
  const bool fixed = f.ring->addBuffers(region, 65536) == 0;
  CHECK(f.ring->fixed(bytes + 100, 1000) == fixed);
  CHECK_FALSE(f.ring->fixed(bytes + 65000, 1000));
  CHECK_FALSE(f.ring->fixed(&f, 1));

  Op plain, vectored, registered, sync;
  f.ring->queue(&plain, {.code = RingCode::kWrite, .file = {f.fd}, .offset = 0, .data = bytes, .length = 5000});
  const iovec parts[] = {{bytes + 10, 100}, {bytes + 300, 50}};
  f.ring->queue(&vectored,
                {.code = RingCode::kWritev, .file = {slot, true}, .offset = 8192, .data = parts, .length = 2});
  if (fixed) {
    f.ring->queue(
        &registered,
        {.code = RingCode::kWriteFixed, .file = {slot, true}, .offset = 65536, .data = bytes + 4096, .length = 4096});
  }
  drain(*f.ring);
  f.ring->queue(&sync, {.code = RingCode::kFdatasync, .file = {slot, true}});
  drain(*f.ring);
  CHECK(plain.result == 5000);
  CHECK(vectored.result == 150);
  CHECK(registered.result == (fixed ? 4096 : 12345));
  CHECK(sync.result == 0);
  const std::string data = readFile(f.folder / "data");
  CHECK(data.substr(0, 5000) == std::string(bytes, 5000));
  CHECK(data.substr(8192, 150) == std::string(bytes + 10, 100) + std::string(bytes + 300, 50));
  if (fixed) CHECK(data.substr(65536, 4096) == std::string(bytes + 4096, 4096));

  Op back;
  f.ring->queue(&back, {.code = fixed ? RingCode::kReadFixed : RingCode::kRead,
                        .file = {slot, true},
                        .offset = 0,
                        .data = bytes + 32768,
                        .length = 5000});
  drain(*f.ring);
  CHECK(back.result == 5000);
  CHECK(std::string(bytes, 5000) == std::string(bytes + 32768, 5000));
  f.ring->removeFile(slot);
  f.ring.reset();
  std::free(region);
}

TEST_CASE("more operations than the submission queue holds all complete once") {
  Fixture f(4, 1024);
  if (!f.ring) SM_SKIP(f.why);
  std::vector<Op> ops(1000);
  char byte = 7;
  for (size_t i = 0; i < ops.size(); ++i) {
    f.ring->queue(&ops[i], {.code = RingCode::kWrite, .file = {f.fd}, .offset = i, .data = &byte, .length = 1});
  }
  CHECK(f.ring->inFlight() == 1000);
  drain(*f.ring);
  for (const Op& op : ops) CHECK((op.times == 1 && op.result == 1));
}

TEST_CASE("a completion queue that overflows loses nothing") {
  Fixture f(4, 4);
  if (!f.ring) SM_SKIP(f.why);
  std::vector<Op> ops(500);
  char byte = 7;
  for (size_t i = 0; i < ops.size(); ++i) {
    f.ring->queue(&ops[i], {.code = RingCode::kWrite, .file = {f.fd}, .offset = i, .data = &byte, .length = 1});
  }
  drain(*f.ring);
  for (const Op& op : ops) CHECK((op.times == 1 && op.result == 1));
}

TEST_CASE("errors arrive as negative numbers") {
  Fixture f;
  if (!f.ring) SM_SKIP(f.why);
  Op badFile, badSlot;
  char byte;
  f.ring->queue(&badFile, {.code = RingCode::kRead, .file = {-1}, .data = &byte, .length = 1});
  f.ring->queue(&badSlot, {.code = RingCode::kRead, .file = {3, true}, .data = &byte, .length = 1});
  drain(*f.ring);
  CHECK(badFile.result == -EBADF);
  CHECK(badSlot.result == -EBADF);
}

TEST_CASE("waiting ends when the time is up") {
  Fixture f;
  if (!f.ring) SM_SKIP(f.why);
  const int event = eventfd(0, EFD_CLOEXEC);
  uint64_t count = 0;
  Op op;
  f.ring->queue(&op, {.code = RingCode::kRead, .file = {event}, .data = &count, .length = 8});
  f.ring->enter(1'000'000);
  CHECK(f.ring->reap() == 0);
  CHECK(f.ring->inFlight() == 1);
  const uint64_t three = 3;
  REQUIRE(write(event, &three, 8) == 8);
  drain(*f.ring);
  CHECK(op.result == 8);
  CHECK(count == 3);
  close(event);
}

TEST_CASE("the table of files fills up, and a slot can be used again") {
  Fixture f;
  if (!f.ring) SM_SKIP(f.why);
  std::vector<int> slots;
  int slot;
  while ((slot = f.ring->addFile(f.fd)) >= 0) slots.push_back(slot);
  CHECK(slot == -ENFILE);
  REQUIRE(slots.size() > 0);
  f.ring->removeFile(slots[0]);
  CHECK(f.ring->addFile(f.fd) == slots[0]);
}

TEST_CASE("a ring that the system refuses says why") {
  const int result = inChild([] {
    if (!refuseUring()) return 99;
    std::string why;
    if (Ring::create(8, 8, &why)) return 1;
    return why.find(SM_HAVE_URING ? "not permitted" : "liburing") != std::string::npos ? 0 : 2;
  });
  if (result == 99) SM_SKIP("no seccomp");
  CHECK(result == 0);
}
