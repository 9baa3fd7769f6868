// The NBD protocol's numbers and the layout of its messages, as the public document says
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, whose sections are named here). All integers on
// the wire are big-endian and unaligned.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sm::nbd {

// --- "Newstyle negotiation"
constexpr uint64_t kInitMagic = 0x4e42444d41474943;         // "NBDMAGIC"
constexpr uint64_t kOptionMagic = 0x49484156454f5054;       // "IHAVEOPT"
constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;  // of every reply to an option
constexpr size_t kGreetingBytes = 18;                       // both magics and the handshake flags
constexpr size_t kOptionHeaderBytes = 16;                   // magic, option, length
constexpr size_t kOptionReplyBytes = 20;                    // magic, option, reply, length
constexpr size_t kExportNameZeroes = 124;                   // after the reply to kExportName, without kNoZeroes
constexpr uint32_t kStringMost = 4096;                      // bytes ("Conventions")

// "Handshake flags", "Client flags"
constexpr uint16_t kFixedNewstyle = 1 << 0;
constexpr uint16_t kNoZeroes = 1 << 1;

// "Option types"
enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
};

// "Option reply types"
enum class Reply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kErrUnsup = 0x80000001,
  kErrPolicy = 0x80000002,
  kErrInvalid = 0x80000003,
  kErrTlsReqd = 0x80000005,
  kErrUnknown = 0x80000006,
  kErrBlockSizeReqd = 0x80000008,
  kErrTooBig = 0x80000009,
};

// "NBD_REP_INFO"
enum class Info : uint16_t { kExport = 0, kName = 1, kDescription = 2, kBlockSize = 3 };

// "Transmission flags"
enum TransmissionFlag : uint16_t {
  kHasFlags = 1 << 0,
  kReadOnly = 1 << 1,
  kSendFlush = 1 << 2,
  kSendFua = 1 << 3,
  kSendTrim = 1 << 5,
  kSendWriteZeroes = 1 << 6,
  kSendDf = 1 << 7,
  kCanMultiConn = 1 << 8,
  kSendCache = 1 << 10,
  kSendFastZero = 1 << 11,
};

// --- "Transmission"
constexpr uint32_t kRequestMagic = 0x25609513;
constexpr uint32_t kSimpleReplyMagic = 0x67446698;
constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;
constexpr size_t kRequestBytes = 28;      // magic, flags, type, cookie, offset, length
constexpr size_t kSimpleReplyBytes = 16;  // magic, error, cookie
constexpr size_t kChunkBytes = 20;        // magic, flags, type, cookie, length
// "Block size constraints": no less may be deemed a denial of service.
constexpr uint32_t kPayloadMost = 32 << 20;
constexpr uint32_t kDefaultBlock = 512;

// "Request types"
enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};

// "Command flags"
enum CommandFlag : uint16_t {
  kFua = 1 << 0,
  kNoHole = 1 << 1,
  kDf = 1 << 2,
  kReqOne = 1 << 3,
  kFastZero = 1 << 4,
};

// "Structured reply flags", "Structured reply types"
constexpr uint16_t kChunkDone = 1 << 0;
enum class Chunk : uint16_t { kOffsetData = 1, kBlockStatus = 5, kError = 0x8001 };

// "Error values"
enum class Error : uint32_t {
  kNone = 0,
  kPerm = 1,
  kIo = 5,
  kNoMem = 12,
  kInval = 22,
  kNoSpc = 28,
  kOverflow = 75,
  kNotSup = 95,
  kShutdown = 108,
};

// "The base:allocation metadata context"
constexpr uint32_t kStateHole = 1 << 0;
constexpr uint32_t kStateZero = 1 << 1;

// --- big-endian, at any address
template <typename T>
T load(const void* from) {
  const auto* bytes = static_cast<const uint8_t*>(from);
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(value << 8 | bytes[i]);
  return value;
}

// Returns the place behind what was stored.
template <typename T>
uint8_t* store(void* to, T value) {
  auto* bytes = static_cast<uint8_t*>(to);
  for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = static_cast<uint8_t>(value >> 8 * (sizeof(T) - 1 - i));
  return bytes + sizeof(T);
}

}  // namespace sm::nbd
