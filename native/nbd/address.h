// Listening sockets: what a server's address means to the system.
//
// Thread contract: from any thread but an I/O thread; may block.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/failure.h"

namespace sm::nbd {

// A unix socket's place in the file system: the name, and which file it names, for another server may take it over.
struct SocketFile {
  std::string path;
  dev_t device = 0;
  ino_t inode = 0;
};

// Binds and listens; only the owner may connect (0600). A socket that nobody listens on any more is taken over; one
// that somebody does, and a file of another kind, is left alone (EADDRINUSE, EEXIST).
Failure listenUnix(const std::string& path, int* fd, SocketFile* file);
// Removes the name, if it still names the socket.
void unlinkUnix(const SocketFile& file);

// Listens on every address that `host` has; port 0: one that is free, the same for all. Beyond loopback only where
// `beyondLoopback`.
Failure listenTcp(const std::string& host, uint16_t port, bool beyondLoopback, std::vector<int>* fds, uint16_t* bound);

// How a client is called in messages and lists: "unix:PID", "[::1]:40000".
std::string peerName(int fd);
// What a stream needs that has just been accepted.
void prepareStream(int fd);

}  // namespace sm::nbd
