// Every operation, on every driver that keeps data, on files and on loop devices; what is on the medium is looked at
// from outside.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <optional>

#include "native/devices/rig.h"

using namespace sm;
using namespace sm::test;

namespace {

constexpr uint64_t kBytes = 4 << 20;

struct Medium {
  std::string name;
  bool loop;
  uint32_t blockSize;
  bool direct;
  bool memory = false;  // a file of tmpfs
};

const Medium kMedia[] = {
    {"file", false, 512, true},
    {"file through the page cache", false, 512, false},
    {"file in memory", false, 512, true, true},
    {"loop device of 512", true, 512, true},
    {"loop device of 4096", true, 4096, true},
    {"loop device through the page cache", true, 512, false},
};

const char* memoryFolder() {
  const char* given = std::getenv("SM_MEMORY");
  return given ? given : "/dev/shm";
}

struct Bench {
  Bench(const std::string& driver, const Medium& medium, uint32_t threads = 1, IoThreadOptions options = {})
      : folder(medium.memory ? memoryFolder() : "/tmp"), file(folder.file("image", kBytes)), rig(threads, options) {
    if (medium.loop) loop.emplace(LoopOptions{.file = file, .autoclear = true, .blockSize = medium.blockSize});
    const std::string path = loop ? loop->device.path : file;
    const Failure failure = openDevice(
        {.name = "d0", .path = path, .driver = driver, .direct = medium.direct, .journal = folder / "journal"},
        rig.threads, &opened);
    INFO(failure.message);
    REQUIRE_FALSE(failure);
    device = opened->contract();
    block = device->block_size;
  }

  // The medium's bytes as they are outside the stack: a loop device's file is what is below it.
  std::string outside(uint64_t offset, uint64_t length) {
    if (loop) {
      const int fd = open(loop->device.path.c_str(), O_RDONLY | O_CLOEXEC);
      REQUIRE(fd >= 0);
      fsync(fd);
      close(fd);
    }
    return readFile(file).substr(offset, length);
  }

  TempFolder folder;
  std::string file;
  std::optional<Loop> loop;
  Rig rig;
  std::unique_ptr<Device> opened;
  sm_device* device;
  uint64_t block;
};

// One subcase-like run for each driver and medium; skips loop devices where there are none.
template <typename Test>
void everywhere(Test test) {
  std::string why;
  const bool loops = canLoop(&why);
  if (!loops) MESSAGE("skipped on loop devices: " << why);
  for (const std::string driver : {"uring", "posix", "recording"}) {
    for (const Medium& medium : kMedia) {
      if (medium.loop && !loops) continue;
      if (medium.memory && access(memoryFolder(), W_OK) != 0) continue;
      CAPTURE(driver);
      CAPTURE(medium.name);
      test(driver, medium);
    }
  }
}

bool all(const std::string& text, char byte) {
  return std::all_of(text.begin(), text.end(), [byte](char c) { return c == byte; });
}

}  // namespace

TEST_CASE("what is known of a device is what it is") {
  everywhere([](const std::string& driver, const Medium& medium) {
    Bench b(driver, medium);
    const DeviceFacts& facts = b.opened->facts();
    CHECK(facts.driver == (driver == "uring" && !b.rig.threads[0]->ring() ? "posix" : driver));
    CHECK(facts.bytes == kBytes);
    CHECK(facts.blockSize >= medium.blockSize);
    CHECK(facts.blockSize <= 4096);
    if (!medium.direct) CHECK_FALSE(facts.direct);
    CHECK(facts.discard);
    CHECK(b.device->bytes == kBytes);
    const bool zeroes = driver != "recording" && !medium.loop;
    CHECK(b.device->flags == (SM_DEVICE_DISCARD | (zeroes ? uint32_t{SM_DEVICE_DISCARD_ZEROES} : 0) |
                              (facts.direct ? uint32_t{SM_DEVICE_DIRECT} : 0)));
    CHECK(b.device->max_transfer == 1 << 20);
    CHECK(std::string(b.device->name) == "d0");
    CHECK(b.device->id != 0);
  });
}

TEST_CASE("writes reach the medium and reads bring it back, whatever the memory") {
  everywhere([](const std::string& driver, const Medium& medium) {
    Bench b(driver, medium);
    std::string expected(kBytes, '\xEE');
    std::mt19937 random(5);
    for (const size_t skew : {0, 512, 4, 1, 4095}) {
      for (const uint64_t length : {b.block, 8 * b.block, uint64_t{65536}, uint64_t{1} << 20}) {
        CAPTURE(skew);
        CAPTURE(length);
        const uint64_t offset = random() % ((kBytes - length) / b.block + 1) * b.block;
        const std::string data = randomBytes(length, random());
        Memory memory(length, skew);
        std::memcpy(memory.data(), data.data(), length);
        CHECK(b.rig.write(b.device, offset, memory.data(), length, random() % 2 ? SM_FLAG_FUA : 0) == 0);
        CHECK(std::memcmp(memory.data(), data.data(), length) == 0);
        expected.replace(offset, length, data);
        std::memset(memory.data(), 0x33, length);
        CHECK(b.rig.read(b.device, offset, memory.data(), length) == 0);
        CHECK(std::memcmp(memory.data(), data.data(), length) == 0);
      }
    }
    CHECK(b.rig.ranged(b.device, SM_OP_FLUSH, 0, 0) == 0);
    CHECK((b.outside(0, kBytes) == expected));
  });
}

TEST_CASE("segments are one after the other on the medium, aligned or not") {
  everywhere([](const std::string& driver, const Medium& medium) {
    Bench b(driver, medium);
    struct Shape {
      std::vector<uint64_t> lengths;
      size_t skew;
    };
    const uint64_t k = b.block;
    const Shape shapes[] = {{{k, k, k}, 0},      {{4 * k, k, 8 * k, k}, 0}, {std::vector<uint64_t>(SM_IOV_MAX, k), 0},
                            {{100, k - 100}, 0}, {{k, 1, 2 * k - 1}, 0},    {{k, 0, k}, 0},
                            {{3 * k, k}, 3}};
    for (const Shape& shape : shapes) {
      TestIo io{.op = SM_OP_WRITE, .offset = 16 * k};
      std::vector<std::unique_ptr<Memory>> parts;
      std::string data;
      for (size_t i = 0; i < shape.lengths.size(); ++i) {
        const uint64_t length = shape.lengths[i];
        const std::string part = randomBytes(length, i + 1);
        parts.push_back(std::make_unique<Memory>(length + 1, shape.skew));
        std::memcpy(parts.back()->data(), part.data(), length);
        io.iov.push_back({parts.back()->data(), length});
        io.length += length;
        data += part;
      }
      REQUIRE(io.length % k == 0);
      CHECK(b.rig.run(b.device, io) == 0);
      CHECK((b.outside(16 * k, io.length) == data));
      for (const iovec& part : io.iov) std::memset(part.iov_base, 0x33, part.iov_len);
      io.op = SM_OP_READ;
      CHECK(b.rig.run(b.device, io) == 0);
      std::string back;
      for (const iovec& part : io.iov) back.append(static_cast<char*>(part.iov_base), part.iov_len);
      CHECK((back == data));
      CHECK((b.outside(0, 16 * k) == std::string(16 * k, '\xEE')));
    }
  });
}

TEST_CASE("buffers of the pool: whole, in part, and several at once") {
  everywhere([](const std::string& driver, const Medium& medium) {
    Bench b(driver, medium);
    void* data;
    uint64_t capacity;
    b.rig.on(0, [&] { REQUIRE(b.rig.threads[0]->buffers().get(65536, &data, &capacity)); });
    char* bytes = static_cast<char*>(data);
    const std::string text = randomBytes(65536, 9);
    std::memcpy(bytes, text.data(), text.size());
    CHECK(b.rig.write(b.device, 0, bytes, 65536) == 0);
    CHECK(b.rig.write(b.device, 65536, bytes + 4096, 8192) == 0);
    CHECK(b.rig.run(
              b.device,
              {.op = SM_OP_WRITE, .offset = 131072, .length = 8192, .iov = {{bytes + 8192, 4096}, {bytes, 4096}}}) ==
          0);
    CHECK((b.outside(0, 65536) == text));
    CHECK((b.outside(65536, 8192) == text.substr(4096, 8192)));
    CHECK((b.outside(131072, 8192) == text.substr(8192, 4096) + text.substr(0, 4096)));
    std::memset(bytes, 0, 65536);
    CHECK(b.rig.read(b.device, 0, bytes + 32768, 32768) == 0);
    CHECK((std::string(bytes + 32768, 32768) == text.substr(0, 32768)));
    CHECK(all(std::string(bytes, 32768), 0));
    b.rig.on(0, [&] { b.rig.threads[0]->buffers().put(data); });
  });
}

TEST_CASE("write-zeroes gives zeroes there and nowhere else; discard changes nothing else") {
  everywhere([](const std::string& driver, const Medium& medium) {
    Bench b(driver, medium);
    CHECK(b.rig.ranged(b.device, SM_OP_WRITE_ZEROES, 4096, 3 * 4096) == 0);
    CHECK(b.rig.ranged(b.device, SM_OP_WRITE_ZEROES, 65536, b.block, SM_FLAG_FUA) == 0);
    CHECK(b.rig.ranged(b.device, SM_OP_WRITE_ZEROES, 3 << 20, 1 << 20) == 0);
    CHECK(b.rig.ranged(b.device, SM_OP_DISCARD, 1 << 20, 1 << 20) == 0);
    const std::string data = b.outside(0, kBytes);
    CHECK(all(data.substr(0, 4096), '\xEE'));
    CHECK(all(data.substr(4096, 3 * 4096), 0));
    CHECK(all(data.substr(16384, 65536 - 16384), '\xEE'));
    CHECK(all(data.substr(65536, b.block), 0));
    CHECK(all(data.substr(65536 + b.block, (1 << 20) - 65536 - b.block), '\xEE'));
    CHECK(all(data.substr(2 << 20, 1 << 20), '\xEE'));
    CHECK(all(data.substr(3 << 20), 0));
    CHECK(data.size() == kBytes);
    // The discard reached the medium: the file has given blocks back (and may have taken some for what lists them).
    struct stat st;
    REQUIRE(stat(b.file.c_str(), &st) == 0);
    CHECK(st.st_blocks * 512 <= static_cast<int64_t>(kBytes - (1 << 20) + 65536));
    Memory memory(4096);
    CHECK(b.rig.read(b.device, 4096, memory.data(), 4096) == 0);
    CHECK(all(std::string(reinterpret_cast<char*>(memory.data()), 4096), 0));
  });
}

TEST_CASE("256 at once, from every thread, each completes once, on its thread, with its own data") {
  everywhere([](const std::string& driver, const Medium& medium) {
    constexpr uint64_t kIo = 4096, kDepth = 256;
    Bench b(driver, medium, 2);
    for (uint32_t thread = 0; thread < 2; ++thread) {
      const std::string data = randomBytes(kIo * kDepth, 77 + thread);
      std::vector<std::unique_ptr<Memory>> parts;
      std::vector<TestIo> ios;
      for (uint64_t i = 0; i < kDepth; ++i) {
        parts.push_back(std::make_unique<Memory>(kIo, i % 3 == 0 ? 8 : 0));
        const uint64_t at = i * 37 % kDepth * kIo;
        std::memcpy(parts.back()->data(), data.data() + at, kIo);
        ios.push_back({.op = SM_OP_WRITE, .offset = at, .length = kIo, .iov = {{parts.back()->data(), kIo}}});
      }
      b.rig.run(b.device, ios, thread);
      for (const TestIo& io : ios) CHECK((io.status == 0 && io.completions == 1 && !io.elsewhere));
      CHECK((b.outside(0, kIo * kDepth) == data));
      for (TestIo& io : ios) {
        io.op = SM_OP_READ;
        io.completions = 0;
        std::memset(io.iov[0].iov_base, 0, kIo);
      }
      b.rig.run(b.device, ios, thread);
      for (const TestIo& io : ios) {
        CHECK((io.status == 0 && io.completions == 1 && !io.elsewhere));
        CHECK(std::memcmp(io.iov[0].iov_base, data.data() + io.offset, kIo) == 0);
      }
    }
  });
}

TEST_CASE("misaligned memory waits for the pool where it is exhausted, and goes in parts where it is small") {
  std::string why;
  if (!canLoop(&why)) SM_SKIP(why);
  for (const uint64_t pool : {uint64_t{4096}, uint64_t{65536}}) {
    CAPTURE(pool);
    Bench b("uring", kMedia[2], 1, {.bufferBytes = pool});
    constexpr uint64_t kIo = 32768, kDepth = 32;
    const std::string data = randomBytes(kIo * kDepth, 3);
    std::vector<std::unique_ptr<Memory>> parts;
    std::vector<TestIo> ios;
    for (uint64_t i = 0; i < kDepth; ++i) {
      parts.push_back(std::make_unique<Memory>(kIo, 5));
      std::memcpy(parts.back()->data(), data.data() + i * kIo, kIo);
      ios.push_back({.op = SM_OP_WRITE, .offset = i * kIo, .length = kIo, .iov = {{parts.back()->data(), kIo}}});
    }
    b.rig.run(b.device, ios);
    for (const TestIo& io : ios) CHECK((io.status == 0 && io.completions == 1));
    CHECK((b.outside(0, kIo * kDepth) == data));
    for (TestIo& io : ios) {
      io.op = SM_OP_READ;
      std::memset(io.iov[0].iov_base, 0, kIo);
    }
    b.rig.run(b.device, ios);
    for (const TestIo& io : ios) {
      CHECK(io.status == 0);
      CHECK(std::memcmp(io.iov[0].iov_base, data.data() + io.offset, kIo) == 0);
    }
    b.rig.on(0, [&] { CHECK(b.rig.threads[0]->buffers().freeBytes() == pool); });
  }
}

TEST_CASE("requests outside the device or malformed touch nothing") {
  everywhere([](const std::string& driver, const Medium& medium) {
    Bench b(driver, medium);
    Memory memory(2 << 20);
    std::memset(memory.data(), 0x11, 2 << 20);
    const uint64_t k = b.block;
    CHECK(b.rig.write(b.device, kBytes, memory.data(), k) == -ENOSPC);
    CHECK(b.rig.write(b.device, kBytes - k, memory.data(), 2 * k) == -ENOSPC);
    CHECK(b.rig.write(b.device, UINT64_MAX - k + 1, memory.data(), k) == -ENOSPC);
    CHECK(b.rig.read(b.device, kBytes, memory.data(), k) == -EINVAL);
    CHECK(b.rig.read(b.device, kBytes - k, memory.data(), 2 * k) == -EINVAL);
    CHECK(b.rig.ranged(b.device, SM_OP_DISCARD, kBytes - k, 2 * k) == -EINVAL);
    CHECK(b.rig.ranged(b.device, SM_OP_DISCARD, k, UINT64_MAX - k + 1) == -EINVAL);
    CHECK(b.rig.ranged(b.device, SM_OP_WRITE_ZEROES, kBytes, k) == -ENOSPC);
    CHECK(b.rig.write(b.device, 1, memory.data(), k) == -EINVAL);
    CHECK(b.rig.write(b.device, 0, memory.data(), k + 1) == -EINVAL);
    CHECK(b.rig.ranged(b.device, SM_OP_WRITE_ZEROES, k / 2, k) == -EINVAL);
    CHECK(b.rig.write(b.device, 0, memory.data(), 2 << 20) == -EINVAL);
    CHECK(b.rig.run(b.device, {.op = SM_OP_WRITE, .length = 2 * k, .iov = {{memory.data(), k}}}) == -EINVAL);
    CHECK(b.rig.run(b.device, {.op = SM_OP_WRITE, .length = k, .iov = {{memory.data(), 2 * k}}}) == -EINVAL);
    std::vector<iovec> many(SM_IOV_MAX + 1, iovec{memory.data(), k});
    CHECK(b.rig.run(b.device, {.op = SM_OP_WRITE, .length = k * (SM_IOV_MAX + 1), .iov = many}) == -EINVAL);
    CHECK(b.rig.ranged(b.device, 0, 0, k) == -EINVAL);
    CHECK(b.rig.ranged(b.device, 77, 0, k) == -EINVAL);
    CHECK(b.rig.ranged(b.device, SM_OP_DISCARD, 0, 0) == 0);
    CHECK(b.rig.run(b.device, {.op = SM_OP_WRITE}) == 0);
    CHECK(all(b.outside(0, kBytes), '\xEE'));
  });
}

TEST_CASE("a medium that shrinks under an open device gives errors, never less data") {
  for (const std::string driver : {"uring", "posix"}) {
    for (const bool direct : {true, false}) {
      CAPTURE(driver);
      CAPTURE(direct);
      Bench b(driver, {"file", false, 512, direct});
      REQUIRE(truncate(b.file.c_str(), 65536 + 1000) == 0);
      Memory memory(65536);
      CHECK(b.rig.read(b.device, 65536, memory.data(), 4096) == -EIO);
      CHECK(b.rig.read(b.device, 32768, memory.data(), 65536) == -EIO);
      CHECK(b.rig.read(b.device, 1 << 20, memory.data(), 4096) == -EIO);
      CHECK(b.rig.run(b.device, {.op = SM_OP_READ,
                                 .offset = 61440,
                                 .length = 12288,
                                 .iov = {{memory.data(), 4096}, {memory.data() + 8192, 8192}}}) == -EIO);
      CHECK(b.rig.read(b.device, 0, memory.data(), 65536) == 0);
    }
  }
}

TEST_CASE("a short transfer goes on where it ended") {
  // A read through the page cache stops at a file's end; a file that grows meanwhile has more. So: a file short of the
  // device's size, that grows while the device asks for the rest, is either refused or read to its end, never less.
  TempFolder folder;
  for (const std::string driver : {"uring", "posix"}) {
    const std::string file = folder.file("grows", 1 << 20);
    Rig rig;
    std::unique_ptr<Device> device;
    REQUIRE_FALSE(openDevice({.name = "d", .path = file, .driver = driver, .direct = false}, rig.threads, &device));
    const std::string data = randomBytes(1 << 20, 4);
    std::ofstream(file, std::ios::binary) << data.substr(0, 100'000);
    std::thread grow(
        [&] { std::ofstream(file, std::ios::binary | std::ios::in | std::ios::ate) << data.substr(100'000); });
    Memory memory(1 << 20);
    int32_t status;
    for (;;) {
      std::memset(memory.data(), 0, 1 << 20);
      status = rig.run(device->contract(), {.op = SM_OP_READ,
                                            .length = 1 << 20,
                                            .iov = {{memory.data(), 4096},
                                                    {memory.data() + 4096, 200'000},
                                                    {memory.data() + 204096, (1 << 20) - 204096}}});
      if (status == 0) break;
      REQUIRE(status == -EIO);
    }
    grow.join();
    CHECK(std::memcmp(memory.data(), data.data(), 1 << 20) == 0);
  }
}

TEST_CASE("a read-only device refuses what changes it, and reads") {
  std::string why;
  const bool loops = canLoop(&why);
  for (const std::string driver : {"uring", "posix"}) {
    for (const bool useLoop : {false, true}) {
      if (useLoop && !loops) continue;
      TempFolder folder;
      const std::string file = folder.file("image", 65536);
      std::optional<Loop> loop;
      if (useLoop) loop.emplace(LoopOptions{.file = file, .readOnly = true, .autoclear = true});
      const std::string path = useLoop ? loop->device.path : file;
      Rig rig;
      std::unique_ptr<Device> device;
      REQUIRE_FALSE(openDevice({.name = "r", .path = path, .driver = driver, .readOnly = true}, rig.threads, &device));
      sm_device* d = device->contract();
      CHECK((d->flags & SM_DEVICE_READ_ONLY) != 0);
      Memory memory(4096);
      CHECK(rig.write(d, 0, memory.data(), 4096) == -EROFS);
      CHECK(rig.ranged(d, SM_OP_DISCARD, 0, 4096) == -EROFS);
      CHECK(rig.ranged(d, SM_OP_WRITE_ZEROES, 0, 4096) == -EROFS);
      CHECK(rig.ranged(d, SM_OP_FLUSH, 0, 0) == 0);
      CHECK(rig.read(d, 0, memory.data(), 4096) == 0);
      CHECK(memory.data()[4095] == 0xEE);
      CHECK((readFile(file) == std::string(65536, '\xEE')));
    }
  }
}

TEST_CASE("I/O priorities go along, and one that the kernel does not know does no harm") {
  everywhere([](const std::string& driver, const Medium& medium) {
    Bench b(driver, medium);
    Memory memory(4096);
    std::memset(memory.data(), 0x42, 4096);
    // Best effort 4 and 7 with a hint, idle, and a class that does not exist.
    for (const uint16_t ioprio : {0x4004, 0x4047, 0x6000, 0xffff, 0}) {
      CAPTURE(ioprio);
      for (const uint8_t op : {SM_OP_WRITE, SM_OP_READ}) {
        CHECK(b.rig.run(b.device, {.op = op, .length = 4096, .iov = {{memory.data(), 4096}}, .ioprio = ioprio}) == 0);
      }
      CHECK(b.rig.run(b.device, {.op = SM_OP_WRITE_ZEROES, .offset = 4096, .length = 4096, .ioprio = ioprio}) == 0);
      CHECK(b.rig.run(b.device, {.op = SM_OP_FLUSH, .ioprio = ioprio}) == 0);
    }
    CHECK(all(b.outside(0, 4096), 0x42));
  });
}
