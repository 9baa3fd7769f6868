// A small client over a blocking socket, for tests of a server over real connections.
#pragma once

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "messages.h"

namespace sm::test {

class Client {
 public:
  explicit Client(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    connected = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  explicit Client(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  explicit Client(int fd, std::nullptr_t) : fd_(fd) {}
  virtual ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  int fd() const { return fd_; }

  // --- bytes
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = put(bytes.data(), bytes.size());
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return false;
      bytes.remove_prefix(sent);
    }
    return true;
  }
  // Fewer than asked for: the server closed the connection.
  std::string receive(size_t size) {
    std::string bytes(size, 0);
    size_t done = 0;
    while (done < size) {
      const ssize_t got = take(bytes.data() + done, size - done);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      done += got;
    }
    bytes.resize(done);
    return bytes;
  }
  bool closed() { return receive(1).empty(); }
  bool readable(int milliseconds) {
    pollfd poll{fd_, POLLIN, 0};
    return ::poll(&poll, 1, milliseconds) > 0;
  }

  // --- the handshake
  bool greet() { return receive(kGreetingBytes).size() == kGreetingBytes && send(clientFlags()); }
  std::vector<OptionReply> ask(Option type, const std::string& data = {}) {
    std::vector<OptionReply> replies;
    if (!send(option(type, data))) return replies;
    do {
      std::string bytes = receive(kOptionReplyBytes);
      if (bytes.size() < kOptionReplyBytes) break;
      bytes += receive(load<uint32_t>(bytes.data() + 16));
      const auto one = optionReplies(bytes);
      REQUIRE(one.size() == 1);
      replies.push_back(one[0]);
    } while (replies.back().type != Reply::kAck && static_cast<uint32_t>(replies.back().type) >> 31 == 0);
    return replies;
  }
  // To the transmission phase; false: the server would not.
  bool open(const std::string& name, bool withStructure = true, const std::vector<std::string>& contexts = {}) {
    structured = withStructure;
    if (!greet()) return false;
    if (structured && ask(Option::kStructuredReply).back().type != Reply::kAck) return false;
    if (!contexts.empty() && ask(Option::kSetMetaContext, contextData(name, contexts)).back().type != Reply::kAck) {
      return false;
    }
    for (const OptionReply& reply : ask(Option::kGo, infoData(name, {Info::kBlockSize}))) {
      if (reply.type == Reply::kAck) return true;
      if (reply.data.size() == 12) size = load<uint64_t>(reply.data.data() + 2);
    }
    return false;
  }

  // --- transmission
  struct Answer {
    bool received = false;
    uint64_t cookie = 0;
    Error error = Error::kNone;
    std::string data;                           // of a read
    std::vector<std::vector<uint32_t>> status;  // by context: lengths and flags in turn
  };
  // The next reply, whole. `readBytes`: what a simple reply to a read would be followed by.
  Answer answer(uint32_t readBytes = 0) {
    Answer out;
    for (;;) {
      std::string head = receive(4);
      if (head.size() < 4) return out;
      if (load<uint32_t>(head.data()) == kSimpleReplyMagic) {
        head += receive(kSimpleReplyBytes - 4);
        if (head.size() < kSimpleReplyBytes) return out;
        out.error = static_cast<Error>(load<uint32_t>(head.data() + 4));
        out.cookie = load<uint64_t>(head.data() + 8);
        if (out.error == Error::kNone) out.data = receive(readBytes);
        out.received = out.error != Error::kNone || out.data.size() == readBytes;
        return out;
      }
      REQUIRE(load<uint32_t>(head.data()) == kStructuredReplyMagic);
      head += receive(kChunkBytes - 4);
      if (head.size() < kChunkBytes) return out;
      out.cookie = load<uint64_t>(head.data() + 8);
      const std::string body = receive(load<uint32_t>(head.data() + 16));
      switch (static_cast<Chunk>(load<uint16_t>(head.data() + 6))) {
        case Chunk::kOffsetData:
          offset = load<uint64_t>(body.data());
          out.data += body.substr(8);
          break;
        case Chunk::kBlockStatus:
          out.status.emplace_back();
          CHECK(load<uint32_t>(body.data()) + 1 == out.status.size());
          for (size_t at = 4; at < body.size(); at += 4) out.status.back().push_back(load<uint32_t>(&body[at]));
          break;
        case Chunk::kError:
          out.error = static_cast<Error>(load<uint32_t>(body.data()));
          break;
        default:
          FAIL("a chunk of a type that was not agreed on");
      }
      if (load<uint16_t>(head.data() + 4) & kChunkDone) {
        out.received = true;
        return out;
      }
    }
  }
  // One request, and its reply.
  Answer call(Command command, uint64_t at, uint32_t length, const std::string& payload = {}, uint16_t flags = 0) {
    const uint64_t cookie = ++cookies_;
    send(request(command, cookie, at, length, flags) + payload);
    Answer out = answer(!structured && command == Command::kRead ? length : 0);
    if (out.received) CHECK(out.cookie == cookie);
    return out;
  }
  Error write(uint64_t at, const std::string& data, uint16_t flags = 0) {
    const Answer out = call(Command::kWrite, at, data.size(), data, flags);
    return out.received ? out.error : Error::kIo;
  }
  std::string read(uint64_t at, uint32_t length) { return call(Command::kRead, at, length).data; }
  void disconnect() { send(request(Command::kDisconnect, 0, 0, 0)); }

  bool connected = true;
  bool structured = true;
  uint64_t size = 0;
  uint64_t offset = 0;  // of the last piece of data

 protected:
  virtual ssize_t put(const void* data, size_t length) { return ::send(fd_, data, length, MSG_NOSIGNAL); }
  virtual ssize_t take(void* data, size_t length) { return recv(fd_, data, length, 0); }

 private:
  int fd_;
  uint64_t cookies_ = 0;
};

}  // namespace sm::test
