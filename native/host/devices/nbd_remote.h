// The way to somebody else's NBD server, as far as the transmission phase: its URI, the connection, and fixed newstyle
// negotiation by NBD_OPT_GO. Nothing beyond it is agreed on: replies are simple ones.
//
// Thread contract: from any thread but an I/O thread; connecting and negotiating block, for ten seconds at most. What
// the server sends is bytes from outside: lengths are checked before they are used, and so is what it says of itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "devices/nbd_protocol.h"

namespace sm::nbd {

struct RemoteAddress {
  std::string socket;      // the path of a unix socket; empty: TCP
  std::string host, port;  // of the loopback
  std::string name;        // of the export; empty: the server's default
};

struct RemoteFacts {
  uint64_t bytes = 0;
  uint16_t flags = 0;         // TransmissionFlag
  uint32_t minimumBlock = 1;  // bytes, a power of two, at most 64 KiB
  uint32_t maximumPayload = kPayloadMost;

  bool operator==(const RemoteFacts&) const = default;
};

// nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH. False: it is neither, and `why` says what is wrong.
bool parseUri(std::string_view uri, RemoteAddress* out, std::string* why);

// Both return 0 or a negative errno with `why`. The descriptor is the caller's.
int connectTo(const RemoteAddress& address, int* fd, std::string* why);
int negotiate(int fd, const std::string& name, RemoteFacts* facts, std::string* why);

}  // namespace sm::nbd
