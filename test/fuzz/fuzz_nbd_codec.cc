// Arbitrary clients against the codec alone: the handshake's machine, then the reading of requests. Whatever they send,
// it takes no more than there is, answers in whole messages, and serves only what the protocol lets it, which is said
// here once more in arithmetic that cannot overflow.
#include <algorithm>

#include "fuzz/fuzz.h"
#include "fuzz/nbd_stream.h"
#include "nbd/negotiation.h"
#include "nbd/transmission.h"

using namespace sm::fuzz;

namespace {

struct Exports final : Catalog {
  explicit Exports(uint32_t block) {
    info.name = kExport;
    info.description = "a disk";
    info.bytes = kDiskBytes;
    info.flags = kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes | kSendCache | kSendFastZero;
    info.minimumBlock = block;
    info.contexts = {"base:allocation", "stratamap:physical"};
  }
  size_t size() const override { return 1; }
  ExportInfo at(size_t) const override { return info; }
  size_t find(std::string_view name) const override { return name == info.name ? 0 : kNoExport; }
  ExportInfo info;
};

size_t bytesOf(const std::vector<sm::test::OptionReply>& replies) {
  size_t bytes = 0;
  for (const auto& reply : replies) bytes += kOptionReplyBytes + reply.data.size();
  return bytes;
}

void checkRequest(const Session& session, const uint8_t* bytes) {
  Request request;
  Error error;
  const Verdict verdict = readRequest(session, bytes, &request, &error);
  if (verdict != Verdict::kServe) {
    SM_MUST(load<uint32_t>(bytes) != kRequestMagic || request.command == Command::kDisconnect ||
            request.payload() > kPayloadMost);
    return;
  }
  SM_MUST(request.payload() <= kPayloadMost);
  uint8_t head[kReplyMost];
  SM_MUST(errorReply(head, session, request, Error::kIo) <= kReplyMost);
  if (error != Error::kNone) return;
  const Command command = request.command;
  SM_MUST(command <= Command::kBlockStatus && command != Command::kDisconnect);
  if (command == Command::kFlush) return;
  using Wide = unsigned __int128;
  SM_MUST(request.length > 0 && Wide{request.offset} + request.length <= session.bytes);
  SM_MUST(request.offset % session.minimumBlock == 0 && request.length % session.minimumBlock == 0);
  SM_MUST(command != Command::kRead || request.length <= kPayloadMost);
  SM_MUST(command != Command::kBlockStatus || (session.structured && session.contexts > 0));
  SM_MUST(!(session.flags & kReadOnly) || command == Command::kRead || command == Command::kCache ||
          command == Command::kBlockStatus);
  SM_MUST(readReply(head, session, request) <= kReplyMost);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  Exports exports(512u << input.ConsumeIntegralInRange(0, 3));
  if (input.ConsumeBool()) exports.info.flags |= kReadOnly;
  Negotiation machine(exports, static_cast<Tls>(input.ConsumeIntegralInRange(0, 2)));
  const bool fastZeroes = input.ConsumeBool();
  const uint8_t window = input.ConsumeIntegral<uint8_t>();
  const std::string stream = NbdStream(input).make();
  const auto* bytes = reinterpret_cast<const uint8_t*>(stream.data());
  size_t at = 0, seen = 0;
  for (bool over = false; !over;) {
    std::string answer;
    size_t consumed = 0;
    const auto next = machine.feed(bytes + at, seen - at, &consumed, &answer);
    SM_MUST(consumed <= seen - at);
    at += consumed;
    switch (next) {
      case Negotiation::Next::kMore:
        SM_MUST(bytesOf(sm::test::optionReplies(answer)) == answer.size());
        if (consumed) break;
        SM_MUST(answer.empty() && seen - at < Negotiation::kInputMost);
        over = seen == stream.size();
        seen = std::min(stream.size(), seen + 1 + window * 16);
        break;
      case Negotiation::Next::kStartTls:
        machine.tlsStarted();
        break;
      case Negotiation::Next::kTransmission: {
        const Agreement& agreed = machine.agreement();
        SM_MUST(agreed.exportIndex == 0 && agreed.contexts.size() <= kContextsMost);
        SM_MUST(agreed.contexts.empty() || agreed.structured);
        for (const uint32_t context : agreed.contexts) SM_MUST(context < exports.info.contexts.size());
        const Session session{.bytes = agreed.bytes,
                              .minimumBlock = agreed.minimumBlock,
                              .flags = agreed.flags,
                              .structured = agreed.structured,
                              .fastZeroes = fastZeroes,
                              .contexts = static_cast<uint32_t>(agreed.contexts.size())};
        for (; at + kRequestBytes <= stream.size(); at += kRequestBytes) checkRequest(session, bytes + at);
        return 0;
      }
      default:
        over = true;
    }
  }
  return 0;
}
