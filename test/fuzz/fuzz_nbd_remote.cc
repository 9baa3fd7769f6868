// Arbitrary servers against the client of the driver `nbd`, over a socket pair: what they say of themselves, and what
// they answer. Whatever that is, negotiation ends, every request completes once, and nothing is written but its memory.
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "devices/nbd_channel.h"
#include "fuzz/fuzz.h"
#include "native/host/support.h"
#include "native/nbd/messages.h"

using namespace sm::nbd;
using namespace sm::test;

namespace {

constexpr uint64_t kBytes = 1 << 20;
constexpr size_t kMost = 24;  // requests

std::string infoReply(const std::string& payload) {
  return wire(kOptionReplyMagic, static_cast<uint32_t>(Option::kGo), static_cast<uint32_t>(Reply::kInfo),
              static_cast<uint32_t>(payload.size()), payload);
}

// What a server sends: whole as the protocol has it up to the transmission phase, or anything.
std::string handshake(FuzzedDataProvider& input) {
  if (input.ConsumeIntegral<uint8_t>() < 64) return input.ConsumeRandomLengthString(400);
  std::string out = wire(kInitMagic, kOptionMagic, uint16_t{kFixedNewstyle});
  const uint16_t flags = input.ConsumeIntegral<uint16_t>();
  out += infoReply(wire(static_cast<uint16_t>(Info::kExport), kBytes, flags));
  if (input.ConsumeBool()) {
    const auto least = input.ConsumeIntegral<uint32_t>(), most = input.ConsumeIntegral<uint32_t>();
    out += infoReply(wire(static_cast<uint16_t>(Info::kBlockSize), least, uint32_t{4096}, most));
  }
  if (input.ConsumeBool()) out += infoReply(input.ConsumeRandomLengthString(40));
  return out +
         wire(kOptionReplyMagic, static_cast<uint32_t>(Option::kGo), static_cast<uint32_t>(Reply::kAck), uint32_t{0});
}

// Answers to what may have been asked, in any order; now and then to nothing, or anything.
std::string answers(FuzzedDataProvider& input) {
  std::string out;
  for (int i = input.ConsumeIntegralInRange(0, 40); i > 0; --i) {
    const auto kind = input.ConsumeIntegral<uint8_t>();
    if (kind < 16) {
      out += input.ConsumeRandomLengthString(64);
      continue;
    }
    const uint64_t slot = input.ConsumeIntegralInRange<uint32_t>(0, kMost + 1);
    const uint64_t round = input.ConsumeIntegralInRange<uint32_t>(0, 3);
    out += wire(kSimpleReplyMagic, kind < 64 ? uint32_t{kind} : uint32_t{0}, round << 32 | slot);
    out += std::string(input.ConsumeIntegralInRange<uint32_t>(0, 16) * 512, 'x');
  }
  return out;
}

void readAll(int fd) {
  char bytes[65536];
  while (recv(fd, bytes, sizeof bytes, 0) > 0) {
  }
}

struct Io {
  std::vector<char> data;
  iovec parts[2];
  int completions = 0;
  std::atomic<int>* left;
};

void submit(sm::IoThread& thread, RemoteChannel& channel, Io& io, uint8_t op, uint64_t length, uint32_t flags) {
  sm_request* request = thread.allocate();
  SM_MUST(request);
  request->op = op;
  request->flags = flags;
  request->length = op == SM_OP_FLUSH ? 0 : length;
  if (op == SM_OP_READ || op == SM_OP_WRITE) {
    io.data.resize(length);
    io.parts[0] = {io.data.data(), 512};
    io.parts[1] = {io.data.data() + 512, length - 512};
    request->iov = io.parts;
    request->iov_count = length > 512 ? 2 : 1;
  }
  sm_request_push(
      request,
      [](sm_request* request, void* context, uint64_t thread) {
        auto* io = static_cast<Io*>(context);
        ++io->completions;
        reinterpret_cast<sm::IoThread*>(thread)->release(request);
        if (--*io->left == 0) io->left->notify_one();
      },
      &io, reinterpret_cast<uint64_t>(&thread));
  new (request->driver) RemoteChannel::Link{{}, nullptr, &channel};
  channel.submit(request);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static sm::HostClock clock;
  static auto* thread = new sm::IoThread({.requests = 64, .bufferBytes = 4 << 20}, clock);
  if (!thread->ring()) return 0;
  FuzzedDataProvider input(data, size);
  const std::string greeting = handshake(input), replies = answers(input);
  const size_t count = input.ConsumeIntegralInRange<size_t>(1, kMost);

  int pair[2];
  SM_MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  std::thread reader([&] { readAll(pair[1]); });
  std::thread writer([&] {
    const std::string all = greeting + replies;
    for (size_t at = 0; at < all.size();) {
      const ssize_t sent = send(pair[1], all.data() + at, all.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) break;
      at += sent;
    }
    shutdown(pair[1], SHUT_WR);
  });
  RemoteFacts facts;
  std::string why;
  if (negotiate(pair[0], "x", &facts, &why) != 0) {
    SM_MUST(!why.empty());
    close(pair[0]);
  } else {
    std::vector<Io> ios(count);
    std::atomic<int> left{static_cast<int>(count)};
    {
      RemoteChannel channel(*thread, pair[0], facts);
      onThread(*thread, [&] {
        for (Io& io : ios) {
          io.left = &left;
          const uint8_t op = input.ConsumeIntegralInRange<uint8_t>(SM_OP_READ, SM_OP_WRITE_ZEROES);
          submit(*thread, channel, io, op, input.ConsumeIntegralInRange<uint64_t>(1, 8) * 512,
                 input.ConsumeBool() ? SM_FLAG_FUA : 0);
        }
      });
      for (int now; (now = left) != 0;) left.wait(now);
    }
    for (const Io& io : ios) SM_MUST(io.completions == 1);
  }
  writer.join();
  reader.join();
  close(pair[1]);
  return 0;
}
