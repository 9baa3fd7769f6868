#include "bench/nbd_stream.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "devices/nbd_protocol.h"

namespace bench {

using namespace sm::nbd;

namespace {

constexpr size_t kInput = 256 << 10;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "bench_nbd_client: %s: %s\n", what, errno ? std::strerror(errno) : "not what was expected");
  std::exit(1);
}

void sendAll(int fd, const std::string& bytes) {
  if (::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) fail("send");
}

std::string receiveAll(int fd, size_t size) {
  std::string bytes(size, 0);
  if (size && ::recv(fd, bytes.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size)) fail("receive");
  return bytes;
}

template <typename T>
void append(std::string* to, T value) {
  uint8_t bytes[sizeof value];
  store(bytes, value);
  to->append(reinterpret_cast<const char*>(bytes), sizeof bytes);
}

// NBD_OPT_GO alone: simple replies suffice. Returns the size of the export.
uint64_t shakeHands(int fd, const std::string& name) {
  if (load<uint64_t>(receiveAll(fd, kGreetingBytes).data()) != kInitMagic) fail("the greeting");
  std::string out;
  append(&out, uint32_t{kFixedNewstyle | kNoZeroes});
  append(&out, kOptionMagic);
  append(&out, static_cast<uint32_t>(Option::kGo));
  append(&out, static_cast<uint32_t>(8 + name.size()));
  append(&out, static_cast<uint32_t>(name.size()));
  out += name;
  append(&out, uint16_t{1});
  append(&out, static_cast<uint16_t>(Info::kBlockSize));
  sendAll(fd, out);
  uint64_t bytes = 0;
  for (;;) {
    const std::string head = receiveAll(fd, kOptionReplyBytes);
    const auto type = static_cast<Reply>(load<uint32_t>(head.data() + 12));
    const std::string data = receiveAll(fd, load<uint32_t>(head.data() + 16));
    if (type == Reply::kAck) return bytes;
    if (type != Reply::kInfo) fail("the export");
    if (load<uint16_t>(data.data()) == static_cast<uint16_t>(Info::kExport)) bytes = load<uint64_t>(data.data() + 2);
  }
}

}  // namespace

NbdStream::NbdStream(const std::string& path, const std::string& name, const Load& load, uint64_t seed)
    : load_(load),
      fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)),
      random_(seed * 2 + 1),
      place_(kRequestBytes + (load.writes ? load.block : 0)),
      ring_(new uint8_t[place_ * load.depth]),
      input_(new uint8_t[kInput]) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) fail("the socket's path is too long");
  path.copy(address.sun_path, path.size());
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fail(path.c_str());
  bytes_ = shakeHands(fd_, name);
  if (bytes_ < load_.block) fail("the export is smaller than a block");
  for (size_t i = 0; i < place_ * load_.depth; ++i) ring_[i] = static_cast<uint8_t>((i + seed) * 2654435761u >> 13);
  if (fcntl(fd_, F_SETFL, O_NONBLOCK) != 0) fail("fcntl");
}

NbdStream::~NbdStream() { close(fd_); }

uint64_t NbdStream::nextOffset() {
  const uint64_t blocks = bytes_ / load_.block;
  if (load_.sequential) return next_++ % blocks * load_.block;
  random_ = random_ * 6364136223846793005 + 1442695040888963407;
  return (random_ >> 20) % blocks * load_.block;
}

void NbdStream::fill(uint64_t most) {
  for (; most > 0 && inFlight_ < load_.depth; --most) {
    uint8_t* to = ring_.get() + queued_ % (place_ * load_.depth);
    to = store(to, kRequestMagic);
    to = store(to, uint16_t{0});
    to = store(to, static_cast<uint16_t>(load_.writes ? Command::kWrite : Command::kRead));
    to = store(to, queued_);
    to = store(to, nextOffset());
    store(to, load_.block);
    queued_ += place_;
    ++inFlight_;
  }
}

void NbdStream::send() {
  const size_t size = place_ * load_.depth;
  while (sent_ < queued_) {
    const size_t from = sent_ % size, first = std::min<size_t>(queued_ - sent_, size - from);
    iovec parts[2] = {{ring_.get() + from, first}, {ring_.get(), queued_ - sent_ - first}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = parts[1].iov_len ? 2 : 1;
    const ssize_t sent = sendmsg(fd_, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) fail("send");
    sent_ += sent;
  }
}

uint64_t NbdStream::receive() {
  const ssize_t got = recv(fd_, input_.get(), kInput, 0);
  if (got < 0 && errno == EAGAIN) return 0;
  if (got == 0) errno = ECONNRESET;
  if (got <= 0) fail("receive");
  uint64_t replies = 0;
  for (size_t at = 0, end = got; at < end;) {
    if (dataBytes_ == 0) {
      const size_t part = std::min(sizeof head_ - headBytes_, end - at);
      std::memcpy(head_ + headBytes_, input_.get() + at, part);
      at += part;
      if ((headBytes_ += part) < sizeof head_) break;
      headBytes_ = 0;
      errno = 0;
      if (load<uint32_t>(head_) != kSimpleReplyMagic) fail("a reply");
      if ((errno = static_cast<int>(load<uint32_t>(head_ + 4))) != 0) fail("a request");
      dataBytes_ = load_.writes ? 0 : load_.block;
    } else {
      const size_t part = std::min(dataBytes_, end - at);
      at += part;
      dataBytes_ -= part;
    }
    if (dataBytes_ > 0) continue;
    ++replies;
    --inFlight_;
  }
  return replies;
}

}  // namespace bench
