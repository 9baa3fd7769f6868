#include "nbd/transmission.h"

#include <cerrno>

namespace sm::nbd {

namespace {

// The flag that exposes a command; 0: none has to.
uint16_t exposedBy(Command command) {
  switch (command) {
    case Command::kFlush:
      return kSendFlush;
    case Command::kTrim:
      return kSendTrim;
    case Command::kCache:
      return kSendCache;
    case Command::kWriteZeroes:
      return kSendWriteZeroes;
    default:
      return 0;
  }
}

uint16_t flagsOf(Command command, uint16_t exposed) {
  uint16_t flags = exposed & kSendFua ? kFua : 0;  // "valid for all commands"
  if (command == Command::kRead && (exposed & kSendDf)) flags |= kDf;
  if (command == Command::kBlockStatus) flags |= kReqOne;
  if (command == Command::kWriteZeroes) flags |= kNoHole | (exposed & kSendFastZero ? kFastZero : 0);
  return flags;
}

bool writes(Command command) {
  return command == Command::kWrite || command == Command::kTrim || command == Command::kWriteZeroes;
}

Error judge(const Session& session, const Request& request) {
  const Command command = request.command;
  if (command > Command::kBlockStatus) return Error::kInval;
  const uint16_t exposing = exposedBy(command);
  if ((session.flags & exposing) != exposing) return Error::kInval;
  if (request.flags & ~flagsOf(command, session.flags)) return Error::kInval;
  if (command == Command::kFlush) return request.offset || request.length ? Error::kInval : Error::kNone;
  if (writes(command) && (session.flags & kReadOnly)) return Error::kPerm;
  if (command == Command::kBlockStatus && session.contexts == 0) return Error::kInval;
  if (request.length == 0) return Error::kInval;
  if (request.offset > session.bytes || request.length > session.bytes - request.offset) {
    return command == Command::kWrite || command == Command::kWriteZeroes ? Error::kNoSpc : Error::kInval;
  }
  if ((request.offset | request.length) & (session.minimumBlock - 1)) return Error::kInval;
  // That a client may not exceed the maximum without a payload either, the server only SHOULD enforce; it does not,
  // because Linux's own client knows no maximum.
  if (command == Command::kRead && request.length > kPayloadMost) return Error::kInval;
  if ((request.flags & kFastZero) && (!session.fastZeroes || (request.flags & kNoHole))) return Error::kNotSup;
  return Error::kNone;
}

uint8_t* chunk(uint8_t* to, uint16_t flags, Chunk type, uint64_t cookie, uint32_t length) {
  to = store(to, kStructuredReplyMagic);
  to = store(to, flags);
  to = store(to, static_cast<uint16_t>(type));
  to = store(to, cookie);
  return store(to, length);
}

}  // namespace

Verdict readRequest(const Session& session, const uint8_t* bytes, Request* request, Error* error) {
  *error = Error::kNone;
  if (load<uint32_t>(bytes) != kRequestMagic) return Verdict::kViolation;
  request->flags = load<uint16_t>(bytes + 4);
  request->command = static_cast<Command>(load<uint16_t>(bytes + 6));
  request->cookie = load<uint64_t>(bytes + 8);
  request->offset = load<uint64_t>(bytes + 16);
  request->length = load<uint32_t>(bytes + 24);
  if (request->command == Command::kDisconnect) return Verdict::kDisconnect;
  if (request->payload() > kPayloadMost) return Verdict::kViolation;
  *error = judge(session, *request);
  return Verdict::kServe;
}

Error errorOf(int32_t status) {
  switch (-status) {
    case 0:
      return Error::kNone;
    case EPERM:
    case EACCES:
    case EROFS:
      return Error::kPerm;
    case ENOMEM:
      return Error::kNoMem;
    case EINVAL:
      return Error::kInval;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Error::kNoSpc;
    case EOVERFLOW:
      return Error::kOverflow;
    case ENOTSUP:
      return Error::kNotSup;
    case ESHUTDOWN:
      return Error::kShutdown;
    default:
      return Error::kIo;
  }
}

size_t simpleReply(uint8_t* to, uint64_t cookie, Error error) {
  to = store(to, kSimpleReplyMagic);
  to = store(to, static_cast<uint32_t>(error));
  store(to, cookie);
  return kSimpleReplyBytes;
}

size_t readReply(uint8_t* to, const Session& session, const Request& request) {
  if (!session.structured) return simpleReply(to, request.cookie, Error::kNone);
  to = chunk(to, kChunkDone, Chunk::kOffsetData, request.cookie, sizeof request.offset + request.length);
  store(to, request.offset);
  return kChunkBytes + sizeof request.offset;
}

size_t errorReply(uint8_t* to, const Session& session, const Request& request, Error error) {
  const bool structured = request.command == Command::kRead || request.command == Command::kBlockStatus;
  if (!session.structured || !structured) return simpleReply(to, request.cookie, error);
  to = chunk(to, kChunkDone, Chunk::kError, request.cookie, sizeof(uint32_t) + sizeof(uint16_t));
  to = store(to, static_cast<uint32_t>(error));
  store(to, uint16_t{0});  // no message
  return kChunkBytes + sizeof(uint32_t) + sizeof(uint16_t);
}

size_t blockStatusReply(uint8_t* to, uint64_t cookie, uint32_t context, std::span<const Extent> extents, bool last) {
  const size_t bytes = blockStatusBytes(extents.size());
  to = chunk(to, last ? kChunkDone : 0, Chunk::kBlockStatus, cookie, static_cast<uint32_t>(bytes - kChunkBytes));
  to = store(to, context);
  for (const Extent& extent : extents) {
    to = store(to, extent.length);
    to = store(to, extent.flags);
  }
  return bytes;
}

}  // namespace sm::nbd
