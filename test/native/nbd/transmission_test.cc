// The transmission phase as bytes: which requests are served, which error each of the others gets, how replies look.
#include "nbd/transmission.h"

#include <doctest/doctest.h>

#include <cerrno>

#include "messages.h"

using namespace sm::test;
using namespace sm::nbd;

namespace {

constexpr uint16_t kAll = kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes | kSendDf | kCanMultiConn |
                          kSendCache | kSendFastZero;

Session session() {
  return {.bytes = 1 << 20, .minimumBlock = 512, .flags = kAll, .structured = true, .fastZeroes = true, .contexts = 1};
}

struct Read {
  Verdict verdict;
  Error error;
  Request request;
};

Read read(const Session& session, const std::string& bytes) {
  Read out{};
  REQUIRE(bytes.size() == kRequestBytes);
  out.verdict = readRequest(session, reinterpret_cast<const uint8_t*>(bytes.data()), &out.request, &out.error);
  return out;
}

Error errorOf(const Session& session, Command command, uint64_t offset, uint32_t length, uint16_t flags = 0) {
  const Read out = read(session, request(command, 7, offset, length, flags));
  CHECK(out.verdict == Verdict::kServe);
  return out.error;
}

std::string bytesOf(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

}  // namespace

TEST_CASE("a request is read field by field") {
  const Read out = read(session(), request(Command::kWrite, 0x0102030405060708, 4096, 8192, kFua));
  CHECK(out.verdict == Verdict::kServe);
  CHECK(out.error == Error::kNone);
  CHECK(out.request.command == Command::kWrite);
  CHECK(out.request.cookie == 0x0102030405060708);
  CHECK(out.request.offset == 4096);
  CHECK(out.request.length == 8192);
  CHECK(out.request.flags == kFua);
  CHECK(out.request.payload() == 8192);
  CHECK(read(session(), request(Command::kRead, 1, 0, 512)).request.payload() == 0);
}

TEST_CASE("what ends a connection") {
  std::string wrong = request(Command::kRead, 1, 0, 512);
  wrong[0] ^= 1;
  CHECK(read(session(), wrong).verdict == Verdict::kViolation);
  CHECK(read(session(), request(Command::kDisconnect, 1, 0, 0)).verdict == Verdict::kDisconnect);
  CHECK(read(session(), request(Command::kWrite, 1, 0, kPayloadMost + 512)).verdict == Verdict::kViolation);
  CHECK(read(session(), request(Command::kWrite, 1, 0, kPayloadMost)).verdict == Verdict::kServe);
}

TEST_CASE("ranges: inside, aligned, not empty") {
  const Session s = session();
  for (const Command command : {Command::kRead, Command::kWrite, Command::kTrim, Command::kWriteZeroes, Command::kCache,
                                Command::kBlockStatus}) {
    CAPTURE(static_cast<int>(command));
    const bool full = command == Command::kWrite || command == Command::kWriteZeroes;
    const Error outside = full ? Error::kNoSpc : Error::kInval;
    CHECK(errorOf(s, command, 0, 512) == Error::kNone);
    CHECK(errorOf(s, command, (1 << 20) - 512, 512) == Error::kNone);
    CHECK(errorOf(s, command, 0, 1 << 20) == Error::kNone);
    CHECK(errorOf(s, command, 1 << 20, 512) == outside);
    CHECK(errorOf(s, command, 512, 1 << 20) == outside);
    CHECK(errorOf(s, command, 0, (1 << 20) + 512) == outside);
    CHECK(errorOf(s, command, UINT64_MAX - 511, 512) == outside);
    CHECK(errorOf(s, command, UINT64_MAX - 511, 1024) == outside);
    CHECK(errorOf(s, command, 0, 0) == Error::kInval);
    CHECK(errorOf(s, command, 1, 512) == Error::kInval);
    CHECK(errorOf(s, command, 0, 511) == Error::kInval);
  }
  Session large = s;
  large.bytes = uint64_t{1} << 40;
  CHECK(errorOf(large, Command::kRead, 0, kPayloadMost) == Error::kNone);
  CHECK(errorOf(large, Command::kRead, 0, kPayloadMost + 512) == Error::kInval);
  CHECK(errorOf(large, Command::kTrim, 0, 0xfffffe00) == Error::kNone);
  CHECK(errorOf(large, Command::kWriteZeroes, 0, 0xfffffe00) == Error::kNone);
  CHECK(errorOf(s, Command::kFlush, 0, 0) == Error::kNone);
  CHECK(errorOf(s, Command::kFlush, 512, 0) == Error::kInval);
  CHECK(errorOf(s, Command::kFlush, 0, 512) == Error::kInval);
}

TEST_CASE("flags belong to commands, and have to be offered") {
  const Session s = session();
  struct Row {
    Command command;
    uint16_t allowed;
  };
  for (const Row& row : {Row{Command::kRead, kFua | kDf}, Row{Command::kWrite, kFua}, Row{Command::kTrim, kFua},
                         Row{Command::kCache, kFua}, Row{Command::kWriteZeroes, kFua | kNoHole | kFastZero},
                         Row{Command::kBlockStatus, kFua | kReqOne}}) {
    for (int bit = 0; bit < 16; ++bit) {
      CAPTURE(static_cast<int>(row.command));
      CAPTURE(bit);
      const uint16_t flag = 1 << bit;
      CHECK(errorOf(s, row.command, 0, 512, flag) == (row.allowed & flag ? Error::kNone : Error::kInval));
    }
  }
  CHECK(errorOf(s, Command::kFlush, 0, 0, kFua) == Error::kNone);
  Session plain = s;
  plain.flags = kHasFlags;
  CHECK(errorOf(plain, Command::kRead, 0, 512, kDf) == Error::kInval);
  CHECK(errorOf(plain, Command::kWrite, 0, 512, kFua) == Error::kInval);
  CHECK(errorOf(plain, Command::kFlush, 0, 0) == Error::kInval);
  CHECK(errorOf(plain, Command::kTrim, 0, 512) == Error::kInval);
  CHECK(errorOf(plain, Command::kWriteZeroes, 0, 512) == Error::kInval);
  CHECK(errorOf(plain, Command::kCache, 0, 512) == Error::kInval);
  for (const uint16_t unknown : {8, 9, 100, 0xffff}) {
    CHECK(errorOf(s, static_cast<Command>(unknown), 0, 512) == Error::kInval);
  }
}

TEST_CASE("read-only exports, zeroes that are not fast, status without a context") {
  Session s = session();
  s.flags |= kReadOnly;
  CHECK(errorOf(s, Command::kRead, 0, 512) == Error::kNone);
  CHECK(errorOf(s, Command::kWrite, 0, 512) == Error::kPerm);
  CHECK(errorOf(s, Command::kTrim, 0, 512) == Error::kPerm);
  CHECK(errorOf(s, Command::kWriteZeroes, 0, 512) == Error::kPerm);
  s = session();
  CHECK(errorOf(s, Command::kWriteZeroes, 0, 512, kFastZero) == Error::kNone);
  CHECK(errorOf(s, Command::kWriteZeroes, 0, 512, kFastZero | kNoHole) == Error::kNotSup);
  s.fastZeroes = false;
  CHECK(errorOf(s, Command::kWriteZeroes, 0, 512, kFastZero) == Error::kNotSup);
  CHECK(errorOf(s, Command::kWriteZeroes, 0, 512) == Error::kNone);
  s.contexts = 0;
  CHECK(errorOf(s, Command::kBlockStatus, 0, 512) == Error::kInval);
}

TEST_CASE("a status becomes one of the protocol's errors") {
  struct Row {
    int status;
    Error error;
  };
  for (const Row& row :
       {Row{0, Error::kNone}, Row{EPERM, Error::kPerm}, Row{EACCES, Error::kPerm}, Row{EROFS, Error::kPerm},
        Row{ENOMEM, Error::kNoMem}, Row{EINVAL, Error::kInval}, Row{ENOSPC, Error::kNoSpc}, Row{EDQUOT, Error::kNoSpc},
        Row{EFBIG, Error::kNoSpc}, Row{EOVERFLOW, Error::kOverflow}, Row{ENOTSUP, Error::kNotSup},
        Row{ESHUTDOWN, Error::kShutdown}, Row{EIO, Error::kIo}, Row{ENODEV, Error::kIo}, Row{12345, Error::kIo}}) {
    CHECK(sm::nbd::errorOf(-row.status) == row.error);
  }
}

TEST_CASE("replies, byte by byte") {
  uint8_t out[4096];
  const Request it{.flags = 0, .command = Command::kRead, .cookie = 0xabcdef, .offset = 8192, .length = 1024};
  CHECK(bytesOf(out, simpleReply(out, 5, Error::kIo)) == wire(kSimpleReplyMagic, uint32_t{5}, uint64_t{5}));
  Session s = session();
  CHECK(bytesOf(out, readReply(out, s, it)) ==
        wire(kStructuredReplyMagic, uint16_t{1}, uint16_t{1}, uint64_t{0xabcdef}, uint32_t{1024 + 8}, uint64_t{8192}));
  CHECK(bytesOf(out, errorReply(out, s, it, Error::kIo)) == wire(kStructuredReplyMagic, uint16_t{1}, uint16_t{0x8001},
                                                                 uint64_t{0xabcdef}, uint32_t{6}, uint32_t{5},
                                                                 uint16_t{0}));
  Request other = it;
  other.command = Command::kWrite;
  CHECK(bytesOf(out, errorReply(out, s, other, Error::kNoSpc)) ==
        wire(kSimpleReplyMagic, uint32_t{28}, uint64_t{0xabcdef}));
  other.command = Command::kBlockStatus;
  CHECK(errorReply(out, s, other, Error::kInval) == kChunkBytes + 6);
  s.structured = false;
  CHECK(bytesOf(out, readReply(out, s, it)) == wire(kSimpleReplyMagic, uint32_t{0}, uint64_t{0xabcdef}));
  CHECK(bytesOf(out, errorReply(out, s, it, Error::kIo)) == wire(kSimpleReplyMagic, uint32_t{5}, uint64_t{0xabcdef}));

  const Extent extents[] = {{512, 3}, {1024, 0}};
  CHECK(bytesOf(out, blockStatusReply(out, 9, 4, extents, false)) ==
        wire(kStructuredReplyMagic, uint16_t{0}, uint16_t{5}, uint64_t{9}, uint32_t{20}, uint32_t{4}, uint32_t{512},
             uint32_t{3}, uint32_t{1024}, uint32_t{0}));
  CHECK(blockStatusReply(out, 9, 4, extents, true) == blockStatusBytes(2));
  CHECK(load<uint16_t>(out + 4) == kChunkDone);
}
