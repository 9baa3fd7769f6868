#include "nbd/address.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "engine/loopback.h"
#include "host/failures.h"

namespace sm::nbd {

namespace {

constexpr int kBacklog = 1024;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Failure failedHere(const std::string& asked, const std::string& found) {
  return failed(errno, "nbd", asked + ": " + found + ": " + std::strerror(errno));
}

// Whether somebody listens; false too where that cannot be found out.
bool answers(const sockaddr_un& address) {
  const Fd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (probe.get() < 0) return true;
  const int result = connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  return result == 0 || errno != ECONNREFUSED;
}

void setPort(sockaddr* address, uint16_t port) {
  if (address->sa_family == AF_INET) reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(port);
  if (address->sa_family == AF_INET6) reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(port);
}

void setOption(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }

uint16_t portOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET ? reinterpret_cast<const sockaddr_in*>(&address)->sin_port
                                            : reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
}

}  // namespace

Failure listenUnix(const std::string& path, int* out, SocketFile* file) {
  const std::string asked = "cannot listen on " + path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path || path.find('\0') != std::string::npos) {
    return failed(path.empty() ? EINVAL : ENAMETOOLONG, "nbd",
                  asked + ": a unix socket's path has 1 to " + std::to_string(sizeof address.sun_path - 1) +
                      " bytes, this one " + std::to_string(path.size()));
  }
  path.copy(address.sun_path, path.size());
  const auto* name = reinterpret_cast<const sockaddr*>(&address);

  // Two servers that find the same dead socket take turns by this lock.
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd lock(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (lock.get() < 0 || flock(lock.get(), LOCK_EX) != 0) return failedHere(asked, "its folder " + folder);

  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return failedHere(asked, "socket");
  // Before bind, which takes the mode from here: the umask, which is the process's, need not change for a moment.
  if (fchmod(fd.get(), 0600) != 0) return failedHere(asked, "fchmod");
  if (bind(fd.get(), name, sizeof address) != 0) {
    if (errno != EADDRINUSE) return failedHere(asked, "bind");
    struct stat there {};
    if (lstat(path.c_str(), &there) == 0 && !S_ISSOCK(there.st_mode)) {
      return failed(EEXIST, "nbd", asked + ": it exists and is no socket; use another path, or remove it");
    }
    if (answers(address)) {
      return failed(EADDRINUSE, "nbd", asked + ": another process listens there; end that one, or use another path");
    }
    if (unlink(path.c_str()) != 0) return failedHere(asked, "the dead socket there could not be removed");
    if (bind(fd.get(), name, sizeof address) != 0) return failedHere(asked, "bind");
  }
  struct stat made {};
  if (chmod(path.c_str(), 0600) != 0 || lstat(path.c_str(), &made) != 0 || listen(fd.get(), kBacklog) != 0) {
    Failure failure = failedHere(asked, "listen");
    unlink(path.c_str());
    return failure;
  }
  *file = {path, made.st_dev, made.st_ino};
  *out = fd.release();
  return {};
}

void unlinkUnix(const SocketFile& file) {
  struct stat there {};
  if (file.path.empty() || lstat(file.path.c_str(), &there) != 0) return;
  if (there.st_dev == file.device && there.st_ino == file.inode) unlink(file.path.c_str());
}

Failure listenTcp(const std::string& host, uint16_t port, bool beyondLoopback, std::vector<int>* fds, uint16_t* bound) {
  const std::string asked = "cannot listen on " + host + ", port " + std::to_string(port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* list = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &list)) {
    return failed(EINVAL, "nbd", asked + ": " + gai_strerror(error) + "; give a name or an address of this machine");
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(list, freeaddrinfo);
  for (const addrinfo* each = list; each; each = each->ai_next) {
    if (beyondLoopback || isLoopback(each->ai_addr)) continue;
    return failed(EACCES, "nbd",
                  asked +
                      ": it is not this machine's loopback, and TLS is off: anybody could read and write the "
                      "exports; turn TLS on, listen on 127.0.0.1 or ::1, or use a unix socket",
                  "ERR_STRATAMAP_TLS_REQUIRED");
  }
  std::vector<Fd> sockets;
  *bound = port;
  Failure failure;
  for (const addrinfo* each = list; each; each = each->ai_next) {
    Fd fd(socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd.get() < 0) {
      failure = failedHere(asked, "socket");
      continue;
    }
    setOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (each->ai_family == AF_INET6) setOption(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
    setPort(each->ai_addr, *bound);
    if (bind(fd.get(), each->ai_addr, each->ai_addrlen) != 0 || listen(fd.get(), kBacklog) != 0) {
      // A name may have addresses of a family that the machine has not; an address in use is another matter.
      failure = failedHere(asked, "bind");
      if (failure.error == EADDRNOTAVAIL || failure.error == EAFNOSUPPORT) continue;
      return failure;
    }
    if (*bound == 0) *bound = portOf(fd.get());
    sockets.push_back(std::move(fd));
  }
  if (sockets.empty()) return failure;
  for (Fd& fd : sockets) fds->push_back(fd.release());
  return {};
}

std::string peerName(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (getpeername(fd, generic, &size) != 0) return "unknown";
  if (address.ss_family == AF_UNIX) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length);
    return "unix:" + std::to_string(credentials.pid);
  }
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getnameinfo(generic, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unknown";
  }
  return address.ss_family == AF_INET6 ? "[" + std::string(host) + "]:" + port : std::string(host) + ":" + port;
}

void prepareStream(int fd) {
  // On a unix socket these fail, and are not needed. A client that has gone without a word is found out within a
  // minute or two.
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 6);
}

}  // namespace sm::nbd
