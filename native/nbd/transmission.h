// The transmission phase: requests are read from bytes and judged, replies are made as bytes. It knows no socket and no
// disk, and holds nothing between two calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/nbd_protocol.h"

namespace sm::nbd {

// What was agreed on, and what the export can do.
struct Session {
  uint64_t bytes = 0;
  uint32_t minimumBlock = kDefaultBlock;  // a power of two
  uint16_t flags = 0;                     // TransmissionFlag
  bool structured = false;
  bool fastZeroes = false;  // a hole is made faster than data is written
  uint32_t contexts = 0;    // how many the client selected
};

struct Request {
  uint16_t flags = 0;  // CommandFlag
  Command command = Command::kRead;
  uint64_t cookie = 0;
  uint64_t offset = 0;
  uint32_t length = 0;

  // Bytes that follow the request on the wire, whatever becomes of it.
  uint32_t payload() const { return command == Command::kWrite ? length : 0; }
};

enum class Verdict {
  kServe,       // or refuse: see `error`
  kDisconnect,  // "NBD_CMD_DISC": no reply, and nothing after it is a request
  kViolation,   // the stream makes no sense any more, or asks for too much: end the connection
};

// Reads the request in `bytes` (kRequestBytes of them) and says what is to be done with it. `*error` other than kNone:
// it is answered with that, after its payload.
Verdict readRequest(const Session& session, const uint8_t* bytes, Request* request, Error* error);

// The protocol's error for a negative errno ("Error values").
Error errorOf(int32_t status);

// --- replies; each stores to `to` and returns the number of bytes
constexpr size_t kReplyMost = kChunkBytes + 8;  // bytes of a reply without data

size_t simpleReply(uint8_t* to, uint64_t cookie, Error error);
// The head of a read's reply; `length` bytes of data follow.
size_t readReply(uint8_t* to, const Session& session, const Request& request);
// The reply to a request that failed: structured where its success would have been.
size_t errorReply(uint8_t* to, const Session& session, const Request& request, Error error);

struct Extent {
  uint32_t length = 0;  // bytes, not 0
  uint32_t flags = 0;   // as the metadata context defines them
};
constexpr size_t blockStatusBytes(size_t extents) { return kChunkBytes + 4 + 8 * extents; }
// One metadata context's chunk of a reply to kBlockStatus. `extents` are at least one, begin at the request's offset,
// and end where it ends at the latest.
size_t blockStatusReply(uint8_t* to, uint64_t cookie, uint32_t context, std::span<const Extent> extents, bool last);

}  // namespace sm::nbd
