// Arbitrary clients against a whole connection, over a socket pair: handshake, requests to a disk in memory, replies.
// Whatever they send, and in whatever pieces, the connection ends when they do, and gives back all that it took.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "engine/buffer_pool.h"
#include "fuzz/fuzz.h"
#include "fuzz/nbd_stream.h"
#include "native/host/support.h"
#include "nbd/connection.h"
#include "nbd/disk_export.h"

using namespace sm::fuzz;

namespace {

struct Rig final : Catalog, Connection::Owner {
  Rig() : thread({.requests = 64, .bufferBytes = 4 << 20}, clock), buffers(thread, 32 << 20) {
    volume.home = &thread;
    volume.bytes.resize(kDiskBytes);
    disk = std::make_unique<sm::VirtualDisk>(thread, sm::test::MemoryVolume::ops(), &volume, nullptr, "vm-1", "vda",
                                             kDiskBytes, 512);
    target = std::make_unique<DiskExport>(*disk, DiskExportOptions{.fastZeroes = true});
  }

  size_t size() const override { return 1; }
  ExportInfo at(size_t) const override {
    ExportInfo info;
    info.name = kExport;
    info.bytes = kDiskBytes;
    info.flags = kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes | kSendCache | kSendFastZero;
    info.contexts = {"base:allocation"};
    return info;
  }
  size_t find(std::string_view name) const override { return name == kExport ? 0 : kNoExport; }
  const Catalog& catalog() const override { return *this; }
  Place join(Connection&, size_t) override { return {target.get(), &buffers}; }
  void gone(Connection&, Why) override {
    over = true;
    over.notify_one();
  }

  sm::HostClock clock;
  sm::IoThread thread;
  Buffers buffers;
  sm::test::MemoryVolume volume;
  std::unique_ptr<sm::VirtualDisk> disk;
  std::unique_ptr<DiskExport> target;
  std::atomic<bool> over{false};
};

void readAll(int fd) {
  char bytes[65536];
  while (recv(fd, bytes, sizeof bytes, 0) > 0) {
  }
}

void sendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;  // the server ended the connection
    bytes.remove_prefix(sent);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static auto* rig = new Rig;
  if (!rig->thread.ring()) return 0;
  FuzzedDataProvider input(data, size);
  rig->volume.atOnce = input.ConsumeBool();
  const ConnectionLimits limits{.requests = input.ConsumeIntegralInRange<uint32_t>(1, 16)};
  const bool rude = input.ConsumeIntegral<uint8_t>() < 32;  // does not wait for the answers
  const size_t piece = 1 + input.ConsumeIntegral<uint8_t>() * 256;
  const std::string stream = NbdStream(input).make();

  int pair[2];
  SM_MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  rig->over = false;
  const uint64_t freeBefore = rig->thread.buffers().freeBytes();
  Connection connection(pair[0], "fuzzer", *rig, limits, nullptr);
  sm::test::onThread(rig->thread, [&] { connection.start(rig->thread); });
  std::thread reader([&] { readAll(pair[1]); });
  for (size_t at = 0; at < stream.size(); at += piece) sendAll(pair[1], std::string_view(stream).substr(at, piece));
  shutdown(pair[1], rude ? SHUT_RDWR : SHUT_WR);
  reader.join();
  if (rude) close(pair[1]);
  rig->over.wait(false);
  sm::test::onThread(rig->thread, [] {});  // behind everything that the connection did there
  if (!rude) close(pair[1]);
  SM_MUST(rig->thread.buffers().freeBytes() == freeBefore);
  SM_MUST(rig->disk->inFlight() == 0);
  return 0;
}
