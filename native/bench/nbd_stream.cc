#include "bench/nbd_stream.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "devices/nbd_remote.h"

namespace bench {

using namespace sm::nbd;

namespace {

constexpr size_t kInput = 256 << 10;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "bench_nbd_client: %s: %s\n", what, errno ? std::strerror(errno) : "not what was expected");
  std::exit(1);
}

// As our own client does it: by NBD_OPT_GO, for simple replies.
int connectTo(const std::string& path, const std::string& name, uint64_t* bytes) {
  RemoteFacts facts;
  std::string why;
  int fd = -1;
  int error = connectTo(RemoteAddress{.socket = path}, &fd, &why);
  if (!error) error = negotiate(fd, name, &facts, &why);
  errno = -error;
  if (error) fail(why.c_str());
  *bytes = facts.bytes;
  return fd;
}

}  // namespace

NbdStream::NbdStream(const std::string& path, const std::string& name, const Load& load, uint64_t seed)
    : load_(load),
      fd_(connectTo(path, name, &bytes_)),
      random_(seed * 2 + 1),
      place_(kRequestBytes + (load.writes ? load.block : 0)),
      ring_(new uint8_t[place_ * load.depth]),
      input_(new uint8_t[kInput]) {
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
