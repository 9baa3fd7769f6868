#include "devices/nbd_remote.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>

#include "engine/loopback.h"

namespace sm::nbd {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience(10);
constexpr uint32_t kReplyPayloadMost = 64 << 10;  // bytes
constexpr int kRepliesMost = 64;                  // to one option
constexpr uint32_t kBlockMost = 64 << 10;

int hexOf(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = static_cast<char>(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool decode(std::string_view text, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      *out += text[i];
      continue;
    }
    if (text.size() - i < 3 || hexOf(text[i + 1]) < 0 || hexOf(text[i + 2]) < 0) return false;
    *out += static_cast<char>(hexOf(text[i + 1]) << 4 | hexOf(text[i + 2]));
    i += 2;
  }
  return out->find('\0') == std::string::npos;
}

bool takePrefix(std::string_view* text, std::string_view prefix) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

// What a server says, for a message: printable, and not long.
std::string quoted(const uint8_t* bytes, size_t size) {
  std::string out;
  for (size_t i = 0; i < size && i < 200; ++i) out += bytes[i] >= 0x20 && bytes[i] < 0x7f ? char(bytes[i]) : '?';
  return out.empty() ? "" : ": \"" + out + "\"";
}

// The handshake's stream, with one deadline for all of it.
class Stream {
 public:
  Stream(int fd, std::string* why) : fd_(fd), why_(why) {}

  int fail(int error, std::string found) {
    *why_ = std::move(found);
    return -error;
  }
  int receive(void* to, size_t size) {
    return move(static_cast<uint8_t*>(to), size, POLLIN,
                [this](uint8_t* at, size_t left) { return recv(fd_, at, left, MSG_DONTWAIT); });
  }
  int send(std::string bytes) {
    return move(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size(), POLLOUT,
                [this](uint8_t* at, size_t left) { return ::send(fd_, at, left, MSG_DONTWAIT | MSG_NOSIGNAL); });
  }

 private:
  template <typename Move>
  int move(uint8_t* at, size_t left, short event, Move some) {
    while (left > 0) {
      const ssize_t moved = some(at, left);
      if (moved > 0) {
        at += moved;
        left -= moved;
      } else if (moved == 0) {
        return fail(ECONNRESET, "the server ended the connection in the handshake");
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        const auto patience = std::chrono::duration_cast<std::chrono::milliseconds>(end_ - Clock::now()).count();
        pollfd poll{fd_, event, 0};
        if (patience <= 0 || ::poll(&poll, 1, static_cast<int>(patience)) == 0) {
          return fail(ETIMEDOUT, "the server did not finish the handshake in ten seconds");
        }
      } else if (errno != EINTR) {
        return fail(errno, std::string("the handshake failed: ") + std::strerror(errno));
      }
    }
    return 0;
  }

  const int fd_;
  std::string* const why_;
  const Clock::time_point end_ = Clock::now() + kPatience;
};

template <typename T>
void append(std::string* to, T value) {
  char bytes[sizeof(T)];
  store(bytes, value);
  to->append(bytes, sizeof bytes);
}

int refusedBy(Stream& stream, Reply reply, const std::string& name, const std::string& said) {
  switch (reply) {
    case Reply::kErrUnknown:
      return stream.fail(ENOENT, "the server has no export '" + name + "'" + said);
    case Reply::kErrTlsReqd:
      return stream.fail(EACCES, "the server wants TLS, which this client does not speak" + said);
    case Reply::kErrUnsup:
      return stream.fail(EPROTONOSUPPORT, "the server does not know NBD_OPT_GO: it is too old" + said);
    default:
      return stream.fail(EACCES, "the server refuses the export '" + name + "'" + said);
  }
}

bool readInfo(const uint8_t* bytes, size_t size, RemoteFacts* facts, bool* hasSize) {
  if (size < 2) return false;
  switch (static_cast<Info>(load<uint16_t>(bytes))) {
    case Info::kExport:
      if (size != 12) return false;
      facts->bytes = load<uint64_t>(bytes + 2);
      facts->flags = load<uint16_t>(bytes + 10);
      *hasSize = true;
      return true;
    case Info::kBlockSize:
      if (size != 14) return false;
      facts->minimumBlock = load<uint32_t>(bytes + 2);
      facts->maximumPayload = load<uint32_t>(bytes + 10);
      return true;
    default:
      return true;  // may be ignored
  }
}

int check(Stream& stream, const RemoteFacts& facts) {
  if (facts.bytes > INT64_MAX) {
    return stream.fail(EPROTO, "the server offers " + std::to_string(facts.bytes) + " bytes, more than there can be");
  }
  if (!std::has_single_bit(facts.minimumBlock) || facts.minimumBlock > kBlockMost ||
      facts.maximumPayload < facts.minimumBlock) {
    return stream.fail(EPROTO, "the server's block sizes make no sense: at least " +
                                   std::to_string(facts.minimumBlock) + ", at most " +
                                   std::to_string(facts.maximumPayload) + " bytes");
  }
  return 0;
}

}  // namespace

bool parseUri(std::string_view uri, RemoteAddress* out, std::string* why) {
  *out = {};
  *why = "give nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT";
  std::string_view query;
  if (const size_t mark = uri.find('?'); mark != std::string_view::npos) {
    query = uri.substr(mark + 1);
    uri = uri.substr(0, mark);
  }
  if (takePrefix(&uri, "nbd+unix:///")) {
    if (!takePrefix(&query, "socket=") || !decode(query, &out->socket) || !decode(uri, &out->name)) return false;
    if (!out->socket.empty() && out->socket.size() < sizeof(sockaddr_un::sun_path)) return true;
    *why = "the path of a unix socket has 1 to " + std::to_string(sizeof(sockaddr_un::sun_path) - 1) + " bytes";
    return false;
  }
  if (!takePrefix(&uri, "nbd://") || !query.empty()) return false;
  const size_t slash = std::min(uri.find('/'), uri.size());
  std::string_view authority = uri.substr(0, slash);
  if (slash < uri.size() && !decode(uri.substr(slash + 1), &out->name)) return false;
  size_t colon = authority.rfind(':');
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos || (close + 1 < authority.size() && colon != close + 1)) return false;
    if (colon <= close) colon = std::string_view::npos;
    out->host = authority.substr(1, close - 1);
  } else {
    out->host = authority.substr(0, std::min(colon, authority.size()));
  }
  out->port = colon == std::string_view::npos ? "10809" : authority.substr(colon + 1);
  return !out->host.empty() && !out->port.empty() && out->port.size() <= 5 &&
         out->port.find_first_not_of("0123456789") == std::string::npos;
}

namespace {

int connectUnix(const std::string& path, int fd) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

int openSocket(int family) {
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{kPatience.count(), 0};  // of connect
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  return fd;
}

}  // namespace

int connectTo(const RemoteAddress& address, int* fd, std::string* why) {
  const auto failed = [why](int error) {
    *why = std::string("cannot connect: ") + std::strerror(error);
    return -error;
  };
  int error = ENOENT;
  *fd = -1;
  if (!address.socket.empty()) {
    *fd = openSocket(AF_UNIX);
    if (*fd < 0) return failed(errno);
    if (connectUnix(address.socket, *fd) == 0) error = 0;
    if (error) error = errno;
  } else {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (const int unknown = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &list)) {
      *why = address.host + ": " + gai_strerror(unknown);
      return -ENOENT;
    }
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(list, freeaddrinfo);
    for (const addrinfo* each = list; each && error; each = each->ai_next) {
      if (!isLoopback(each->ai_addr)) {
        *why = address.host +
               " is not this machine's loopback, and this client does not speak TLS: tunnel it, or use a "
               "unix socket";
        if (*fd >= 0) close(*fd);
        *fd = -1;
        return -EACCES;
      }
      if (*fd >= 0) close(*fd);
      *fd = openSocket(each->ai_family);
      error = *fd >= 0 && connect(*fd, each->ai_addr, each->ai_addrlen) == 0 ? 0 : errno;
    }
    const int on = 1;
    if (!error) setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (error) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return failed(error);
  }
  const timeval forever{};
  setsockopt(*fd, SOL_SOCKET, SO_SNDTIMEO, &forever, sizeof forever);
  return 0;
}

int negotiate(int fd, const std::string& name, RemoteFacts* facts, std::string* why) {
  Stream stream(fd, why);
  *facts = {};
  if (name.size() > kStringMost) return stream.fail(ENAMETOOLONG, "the export's name is longer than 4096 bytes");
  uint8_t greeting[kGreetingBytes];
  if (const int error = stream.receive(greeting, sizeof greeting)) return error;
  const uint16_t offered = load<uint16_t>(greeting + 16);
  if (load<uint64_t>(greeting) != kInitMagic || load<uint64_t>(greeting + 8) != kOptionMagic ||
      !(offered & kFixedNewstyle)) {
    return stream.fail(EPROTONOSUPPORT, "what answers is no NBD server, or one that does not speak fixed newstyle");
  }
  std::string ask;
  append(&ask, uint32_t{kFixedNewstyle} | (offered & kNoZeroes));
  append(&ask, kOptionMagic);
  append(&ask, static_cast<uint32_t>(Option::kGo));
  append(&ask, static_cast<uint32_t>(4 + name.size() + 4));
  append(&ask, static_cast<uint32_t>(name.size()));
  ask += name;
  append(&ask, uint16_t{1});
  append(&ask, static_cast<uint16_t>(Info::kBlockSize));
  if (const int error = stream.send(std::move(ask))) return error;

  bool hasSize = false;
  const auto payload = std::make_unique<uint8_t[]>(kReplyPayloadMost);
  for (int i = 0; i < kRepliesMost; ++i) {
    uint8_t head[kOptionReplyBytes];
    if (const int error = stream.receive(head, sizeof head)) return error;
    const Reply reply = static_cast<Reply>(load<uint32_t>(head + 12));
    const uint32_t size = load<uint32_t>(head + 16);
    if (load<uint64_t>(head) != kOptionReplyMagic || load<uint32_t>(head + 8) != static_cast<uint32_t>(Option::kGo) ||
        size > kReplyPayloadMost) {
      break;
    }
    if (const int error = stream.receive(payload.get(), size)) return error;
    if (static_cast<uint32_t>(reply) >> 31) return refusedBy(stream, reply, name, quoted(payload.get(), size));
    if (reply == Reply::kAck && hasSize) return check(stream, *facts);
    if (reply != Reply::kInfo || !readInfo(payload.get(), size, facts, &hasSize)) break;
  }
  return stream.fail(EPROTO, "the server's answer to NBD_OPT_GO is not what the protocol says");
}

}  // namespace sm::nbd
