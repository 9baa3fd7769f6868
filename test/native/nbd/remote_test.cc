// The driver `nbd`: against our own server, and against one that says what the test wants.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <future>
#include <optional>
#include <thread>

#include "devices/nbd_remote.h"
#include "nbd/device_export.h"
#include "rig.h"

using namespace sm;
using namespace sm::test;
using namespace sm::nbd;

namespace {

constexpr uint64_t kMiB = 1 << 20;

std::string uriOf(const std::string& socket, const std::string& name) {
  return "nbd+unix:///" + name + "?socket=" + socket;
}

Failure openRemote(Host& host, const std::string& uri, sm_device** out, bool readOnly = false) {
  return host.openDevice({.name = "remote", .path = uri, .driver = "nbd", .readOnly = readOnly}, out);
}

// One request, from one of the host's threads, and its status.
int32_t io(Host& host, sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length, uint32_t flags = 0,
           size_t thread = 0) {
  struct Io {
    IoThread& thread;
    iovec part;
    std::promise<int32_t> status;
  } io{*host.threads()[thread], {data, length}, {}};
  onThread(io.thread, [&] {
    sm_request* request = io.thread.allocate();
    request->op = op;
    request->flags = flags;
    request->offset = offset;
    request->length = length;
    if (data) {
      request->iov = &io.part;
      request->iov_count = 1;
    }
    sm_request_push(
        request,
        [](sm_request* request, void* context, uint64_t) {
          Io* io = static_cast<Io*>(context);
          CHECK(IoThread::current() == &io->thread);
          const int32_t status = request->status;
          io->thread.release(request);
          io->status.set_value(status);
        },
        &io, 0);
    sm_device_submit(device, request);
  });
  return io.status.get_future().get();
}

// A server for one connection, on a thread of its own, that does what it is told.
class Scripted {
 public:
  using Script = std::function<void(Client& peer)>;
  explicit Scripted(Script script) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(listen(fd_, 1) == 0);
    thread_ = std::thread([this, script = std::move(script)] {
      Client peer(accept(fd_, nullptr, nullptr), nullptr);
      script(peer);
    });
  }
  ~Scripted() {
    thread_.join();
    close(fd_);
    unlink(path().c_str());
  }
  std::string path() const { return folder_.path + "/s"; }
  std::string uri() const { return uriOf(path(), "x"); }

 private:
  TempFolder folder_{memoryFolder()};
  const int fd_;
  std::thread thread_;
};

const std::string kGreeting = wire(kInitMagic, kOptionMagic, uint16_t{kFixedNewstyle | kNoZeroes});

std::string replyTo(Reply reply, const std::string& payload = {}) {
  return wire(kOptionReplyMagic, static_cast<uint32_t>(Option::kGo), static_cast<uint32_t>(reply),
              static_cast<uint32_t>(payload.size()), payload);
}

std::string exportInfo(uint64_t bytes, uint16_t flags) {
  return replyTo(Reply::kInfo, wire(static_cast<uint16_t>(Info::kExport), bytes, flags));
}

std::string blockInfo(uint32_t least, uint32_t most) {
  return replyTo(Reply::kInfo, wire(static_cast<uint16_t>(Info::kBlockSize), least, uint32_t{4096}, most));
}

constexpr size_t kAskBytes = 4 + kOptionHeaderBytes + 4 + 1 + 2 + 2;  // of the client, for an export named "x"
constexpr uint16_t kEverything = kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes;

// Greets, and agrees on an export.
bool agree(Client& peer, uint16_t flags, uint32_t most = kPayloadMost) {
  peer.send(kGreeting);
  if (peer.receive(kAskBytes).size() != kAskBytes) return false;
  return peer.send(exportInfo(64 * kMiB, flags) + blockInfo(1, most) + replyTo(Reply::kAck));
}

struct Asked {
  Command command;
  uint16_t flags;
  uint64_t cookie, offset;
  uint32_t length;
};

std::optional<Asked> next(Client& peer) {
  const std::string head = peer.receive(kRequestBytes);
  if (head.size() < kRequestBytes) return {};
  CHECK(load<uint32_t>(&head[0]) == kRequestMagic);
  return Asked{static_cast<Command>(load<uint16_t>(&head[6])), load<uint16_t>(&head[4]), load<uint64_t>(&head[8]),
               load<uint64_t>(&head[16]), load<uint32_t>(&head[24])};
}

std::string simple(uint64_t cookie, Error error = Error::kNone) {
  return wire(kSimpleReplyMagic, static_cast<uint32_t>(error), cookie);
}

}  // namespace

TEST_CASE("a URI says where a server is") {
  RemoteAddress at;
  std::string why;
  REQUIRE(parseUri("nbd+unix:///vm-1/a%20b?socket=%2Frun%2Fx.sock", &at, &why));
  CHECK(at.socket == "/run/x.sock");
  CHECK(at.name == "vm-1/a b");
  REQUIRE(parseUri("nbd://localhost", &at, &why));
  CHECK(at.host == "localhost");
  CHECK(at.port == "10809");
  CHECK(at.name.empty());
  REQUIRE(parseUri("nbd://[::1]:7/x", &at, &why));
  CHECK(at.host == "::1");
  CHECK(at.port == "7");
  REQUIRE(parseUri("nbd://[::1]/", &at, &why));
  CHECK(at.port == "10809");
  for (const char* wrong : {"", "x", "nbd://", "nbd:///x", "nbd://a:/x", "nbd://a:b/x", "nbd://a:123456", "nbd://[::1",
                            "nbd://[::1]7/x", "nbd+unix:///x", "nbd+unix:///x?socket=", "nbd+unix:///x?socket=%",
                            "nbd+unix:///x?socket=%0g", "nbd+unix:///%00?socket=a", "nbd://a/x?y", "nbds://a/x"}) {
    CAPTURE(wrong);
    CHECK_FALSE(parseUri(wrong, &at, &why));
    CHECK(why.find("nbd") + why.find("socket") != std::string::npos);
  }
  CHECK_FALSE(parseUri("nbd+unix:///x?socket=" + std::string(200, 'a'), &at, &why));
}

TEST_CASE("a disk of ours is a device by NBD: everything that is asked for arrives") {
  ServerRig rig({.threads = 2});
  SM_NEEDS_RING(rig);
  const auto host = openHost({.threads = 2});
  sm_device* device = nullptr;
  REQUIRE_OK(openRemote(*host, uriOf(rig.path(), "vm-1/vda"), &device));
  CHECK(device->bytes == rig.options.diskBytes);
  CHECK(device->block_size >= 512);
  CHECK(device->flags == (SM_DEVICE_SHARED | SM_DEVICE_DISCARD));
  CHECK(rig.server->counts().connected == 2);
  std::string expected(8 * kMiB, 0), found = expected;
  for (size_t i = 0; i < 64; ++i) {
    const uint64_t at = (i * 7919 % 1000) * 4096, length = (1 + i % 17) * 4096;
    const size_t thread = i % 2;
    switch (i % 5) {
      case 3:
        CHECK(io(*host, device, SM_OP_WRITE_ZEROES, at, nullptr, length, i % 2 ? SM_FLAG_FUA : 0, thread) == 0);
        expected.replace(at, length, std::string(length, 0));
        break;
      case 4:
        CHECK(io(*host, device, SM_OP_DISCARD, at, nullptr, length, 0, thread) == 0);
        expected.replace(at, length, std::string(length, 0));  // of a disk
        break;
      default: {
        const std::string data = pattern(length, i);
        CHECK(io(*host, device, SM_OP_WRITE, at, const_cast<char*>(data.data()), length, i % 2 ? SM_FLAG_FUA : 0,
                 thread) == 0);
        expected.replace(at, length, data);
      }
    }
  }
  CHECK(io(*host, device, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  for (uint64_t at = 0; at < found.size(); at += kMiB) {
    CHECK(io(*host, device, SM_OP_READ, at, &found[at], kMiB, 0, at / kMiB % 2) == 0);
  }
  CHECK(found == expected);
  CHECK(io(*host, device, SM_OP_WRITE, device->bytes, found.data(), 4096) == -ENOSPC);
  REQUIRE_OK(host->closeDevice(device));
  CHECK(rig.nobodyConnected());
  CHECK(rig.server->counts().violations == 0);
}

TEST_CASE("a workload on a volume on a device by NBD on a volume verifies, deeper than the connection") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  const auto host = openHost();
  sm_device* device = nullptr;
  REQUIRE_OK(openRemote(*host, uriOf(rig.path(), "vm-1/vda"), &device));
  Volume* volume = nullptr;
  REQUIRE_OK(host->openVolume("v", "nbd", {device}, {}, &volume));
  VirtualDisk* disk = nullptr;
  REQUIRE_OK(volume->createDisk("vm", "vda", 8 * kMiB, &disk));
  for (uint32_t depth : {1, 32, 400}) {
    WorkloadOptions load = verifyingLoad(depth, 3000);
    load.blockSize = 4096;
    checkClean(runWorkload(*disk, load));
  }
}

TEST_CASE("a device's export passes its dispatch table, and is read-only where it is to be") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  sm_device* below = openDevice(*rig.host, "raw", rig.folder.file("raw", 4 * kMiB));
  REQUIRE_OK(rig.server->addExport(
      std::make_unique<DeviceExport>(*below, *rig.host->threads()[0], DeviceExportOptions{.readOnly = false})));
  const auto host = openHost();
  sm_device* device = nullptr;
  REQUIRE_OK(openRemote(*host, uriOf(rig.path(), "raw"), &device));
  CHECK(device->bytes == 4 * kMiB);
  CHECK(device->block_size == below->block_size);
  struct Counting {
    sm_device_ops ops;
    const sm_device_ops* next;
    std::atomic<int> seen{0};
  } counting{{SM_CONTRACT_VERSION, sizeof(sm_device_ops),
              [](const sm_device_ops* self, sm_device* device, sm_request* request) {
                auto* counting = reinterpret_cast<Counting*>(const_cast<sm_device_ops*>(self));
                ++counting->seen;
                counting->next->submit(counting->next, device, request);
              }},
             below->ops};
  __atomic_store_n(&below->ops, &counting.ops, __ATOMIC_RELEASE);
  std::string data = pattern(64 << 10, 1), found(data.size(), 0);
  CHECK(io(*host, device, SM_OP_WRITE, kMiB, data.data(), data.size()) == 0);
  CHECK(io(*host, device, SM_OP_WRITE_ZEROES, kMiB, nullptr, 4096) == 0);
  CHECK(io(*host, device, SM_OP_READ, kMiB, found.data(), found.size()) == 0);
  CHECK(counting.seen == 3);
  CHECK(found == std::string(4096, 0) + data.substr(4096));
  __atomic_store_n(&below->ops, counting.next, __ATOMIC_RELEASE);
  REQUIRE_OK(host->closeDevice(device));
  REQUIRE_OK(rig.server->removeExport("raw", kSecond));
  REQUIRE_OK(rig.server->addExport(
      std::make_unique<DeviceExport>(*below, *rig.host->threads()[0], DeviceExportOptions{.readOnly = true})));
  CHECK(openRemote(*host, uriOf(rig.path(), "raw"), &device).error == EROFS);
  REQUIRE_OK(openRemote(*host, uriOf(rig.path(), "raw"), &device, true));
  CHECK(io(*host, device, SM_OP_WRITE, 0, data.data(), 4096) == -EROFS);
  CHECK(io(*host, device, SM_OP_READ, 0, data.data(), 4096) == 0);
}

TEST_CASE("what is no server, or refuses, says so") {
  const auto host = openHost();
  sm_device* device = nullptr;
  if (!host->threads()[0]->ring()) return;
  CHECK(openRemote(*host, "nbd://x", &device).error != 0);
  CHECK(openRemote(*host, "ftp://x", &device).code == "ERR_STRATAMAP_URI");
  CHECK(openRemote(*host, uriOf("/nonexistent/socket", ""), &device).error == ENOENT);
  CHECK(openRemote(*host, "nbd://192.0.2.1/x", &device).error == EACCES);
  const auto answered = [&](const std::string& greeting, const std::string& replies) {
    Scripted server([&](Client& peer) {
      peer.send(greeting);
      if (!greeting.empty() && peer.receive(kAskBytes).size() == kAskBytes) peer.send(replies);
    });
    return openRemote(*host, server.uri(), &device);
  };
  CHECK(answered("SSH-2.0-OpenSSH_9.2", "").error == EPROTONOSUPPORT);
  CHECK(answered("", "").error == ECONNRESET);
  CHECK(answered(wire(kInitMagic, kOptionMagic, uint16_t{0}), "").error == EPROTONOSUPPORT);
  const Failure absent = answered(kGreeting, replyTo(Reply::kErrUnknown, "no\nsuch"));
  CHECK(absent.error == ENOENT);
  CHECK(absent.message.find("\"no?such\"") != std::string::npos);
  CHECK(answered(kGreeting, replyTo(Reply::kErrTlsReqd)).error == EACCES);
  CHECK(answered(kGreeting, replyTo(Reply::kErrUnsup)).error == EPROTONOSUPPORT);
  const std::string ack = replyTo(Reply::kAck);
  const std::string info = exportInfo(kMiB, kEverything);
  CHECK(answered(kGreeting, ack).error == EPROTO);       // without a size
  CHECK(answered(kGreeting, info).error == ECONNRESET);  // without an end
  CHECK(answered(kGreeting, replyTo(Reply::kServer) + ack).error == EPROTO);
  CHECK(answered(kGreeting, exportInfo(UINT64_MAX, 1) + ack).error == EPROTO);
  CHECK(answered(kGreeting, exportInfo(511, 1) + ack).code == "ERR_STRATAMAP_SIZE");
  CHECK(answered(kGreeting, info + blockInfo(3, 4096) + ack).error == EPROTO);
  CHECK(answered(kGreeting, info + blockInfo(1 << 17, 1 << 20) + ack).error == EPROTO);
  CHECK(answered(kGreeting, info + blockInfo(4096, 512) + ack).error == EPROTO);
  CHECK(answered(kGreeting, replyTo(Reply::kInfo, "x") + ack).error == EPROTO);
  CHECK(answered(kGreeting, replyTo(Reply::kInfo, wire(uint16_t{0}, kMiB)) + ack).error == EPROTO);
  std::string many;
  for (int i = 0; i < 100; ++i) many += info;
  CHECK(answered(kGreeting, many + ack).error == EPROTO);
  CHECK(answered(kGreeting, replyTo(Reply::kInfo).substr(0, 16) + wire(UINT32_MAX)).error == EPROTO);
}

TEST_CASE("a server that can little gets what it can do") {
  const auto host = openHost();
  if (!host->threads()[0]->ring()) return;
  std::vector<Asked> asked;
  std::optional<Scripted> server;
  server.emplace([&](Client& peer) {
    if (!agree(peer, kHasFlags | kSendFlush, 128 << 10)) return;
    while (const auto request = next(peer)) {
      if (request->command == Command::kDisconnect) break;
      asked.push_back(*request);
      if (request->command == Command::kWrite) {
        const std::string data = peer.receive(request->length);
        CHECK(data == std::string(request->length, 0));
      }
      peer.send(simple(request->cookie));
    }
  });
  sm_device* device = nullptr;
  REQUIRE_OK(openRemote(*host, server->uri(), &device));
  CHECK(device->flags == SM_DEVICE_SHARED);
  CHECK(device->max_transfer == 128 << 10);
  CHECK(io(*host, device, SM_OP_WRITE_ZEROES, kMiB, nullptr, 160 << 10, SM_FLAG_FUA) == 0);
  CHECK(io(*host, device, SM_OP_DISCARD, 0, nullptr, kMiB) == 0);
  REQUIRE_OK(host->closeDevice(device));
  server.reset();  // its thread has ended: `asked` is ours
  REQUIRE(asked.size() == 4);
  CHECK(asked[0].command == Command::kWrite);
  CHECK(asked[2].offset == kMiB + (128 << 10));
  CHECK(asked[2].length == 32 << 10);
  CHECK(asked[3].command == Command::kFlush);
  CHECK(asked[3].flags == 0);
}

TEST_CASE("errors are the request's own; what answers nothing, and an end, lose the connection") {
  const auto host = openHost();
  if (!host->threads()[0]->ring()) return;
  enum { kFails, kForeign, kTwice, kMagic, kEnds, kShort };
  for (int how : {kFails, kForeign, kTwice, kMagic, kEnds, kShort}) {
    CAPTURE(how);
    Scripted server([&](Client& peer) {
      if (!agree(peer, kEverything)) return;
      const auto request = next(peer);
      if (!request) return;
      if (how == kFails) {
        peer.send(simple(request->cookie, Error::kNoSpc));
        if (const auto again = next(peer)) peer.send(simple(again->cookie) + std::string(4096, 'y'));
      }
      if (how == kForeign) peer.send(simple(request->cookie + 1) + std::string(4096, 'x'));
      if (how == kTwice) peer.send(simple(request->cookie, Error::kIo) + simple(request->cookie));
      if (how == kMagic) peer.send(std::string(16, 'x'));
      if (how == kShort) peer.send(simple(request->cookie) + std::string(4095, 'x'));
      if (how != kEnds && how != kShort) next(peer);
    });
    sm_device* device = nullptr;
    REQUIRE_OK(openRemote(*host, server.uri(), &device));
    std::string data(4096, 0);
    const int32_t first = io(*host, device, SM_OP_READ, 0, data.data(), data.size());
    const int32_t second = io(*host, device, SM_OP_READ, 0, data.data(), data.size());
    if (how == kFails) {
      CHECK(first == -ENOSPC);
      CHECK(second == 0);
      CHECK(data == std::string(4096, 'y'));
    } else {
      const bool ended = how == kEnds || how == kShort;
      CHECK(first == (how == kTwice ? -EIO : ended ? -ENOTCONN : -EPROTO));
      CHECK(second == (ended ? -ENOTCONN : -EPROTO));
    }
    REQUIRE_OK(host->closeDevice(device));
  }
}
