#include "nbd/negotiation.h"

#include <algorithm>

namespace sm::nbd {

using Next = Negotiation::Next;

namespace {

template <typename T>
void append(std::string* to, T value) {
  uint8_t bytes[sizeof(T)];
  store(bytes, value);
  to->append(reinterpret_cast<const char*>(bytes), sizeof bytes);
}

// Takes fields off the front of an option's data; a field that does not fit leaves it failed.
class Fields {
 public:
  Fields(const uint8_t* data, size_t size) : at_(data), left_(size) {}
  template <typename T>
  T number() {
    if (!take(sizeof(T))) return 0;
    return load<T>(at_ - sizeof(T));
  }
  std::string_view string(uint32_t length) {
    if (!take(length)) return {};
    return {reinterpret_cast<const char*>(at_ - length), length};
  }
  bool failed() const { return failed_; }
  bool complete() const { return !failed_ && left_ == 0; }

 private:
  bool take(size_t bytes) {
    if (failed_ || bytes > left_) {
      failed_ = true;
      return false;
    }
    at_ += bytes;
    left_ -= bytes;
    return true;
  }

  const uint8_t* at_;
  size_t left_;
  bool failed_ = false;
};

}  // namespace

struct Negotiation::OptionIn {
  uint32_t number;
  const uint8_t* data;
  uint32_t length;

  Option option() const { return static_cast<Option>(number); }
  Fields fields() const { return {data, length}; }
  // "Option haggling": the header of a reply, and its data.
  void reply(std::string* answer, Reply type, std::string_view body = {}) const {
    append(answer, kOptionReplyMagic);
    append(answer, number);
    append(answer, static_cast<uint32_t>(type));
    append(answer, static_cast<uint32_t>(body.size()));
    answer->append(body);
  }
  Next refuse(std::string* answer, Reply type, std::string_view why) const {
    reply(answer, type, why);
    return Next::kMore;
  }
};

void Negotiation::greet(std::string* answer) const {
  append(answer, kInitMagic);
  append(answer, kOptionMagic);
  append(answer, static_cast<uint16_t>(kFixedNewstyle | kNoZeroes));
}

Next Negotiation::feed(const uint8_t* input, size_t size, size_t* consumed, std::string* answer) {
  *consumed = 0;
  if (!flagsSeen_) {
    if (size < sizeof(uint32_t)) return Next::kMore;
    *consumed = sizeof(uint32_t);
    flagsSeen_ = true;
    const uint32_t flags = load<uint32_t>(input);
    noZeroes_ = flags & kNoZeroes;
    // "the server MUST drop the TCP connection if the client sets an unknown flag"
    return flags & ~uint32_t{kFixedNewstyle | kNoZeroes} ? Next::kViolation : Next::kMore;
  }
  if (skip_ > 0) {
    *consumed = std::min<size_t>(skip_, size);
    skip_ -= *consumed;
    return Next::kMore;
  }
  if (size < kOptionHeaderBytes) return Next::kMore;
  if (load<uint64_t>(input) != kOptionMagic) return Next::kViolation;
  OptionIn in{load<uint32_t>(input + 8), input + kOptionHeaderBytes, load<uint32_t>(input + 12)};
  if (in.length > kOptionMost) {
    if (in.length > kSkipMost || in.option() == Option::kExportName) return Next::kViolation;
    *consumed = kOptionHeaderBytes;
    skip_ = in.length;
    return in.refuse(answer, Reply::kErrTooBig, "the option's data is too long");
  }
  if (size - kOptionHeaderBytes < in.length) return Next::kMore;
  *consumed = kOptionHeaderBytes + in.length;
  return option(in, answer);
}

Next Negotiation::option(const OptionIn& in, std::string* answer) {
  if (in.option() == Option::kAbort) {
    in.reply(answer, Reply::kAck);
    return Next::kClose;
  }
  if (in.option() == Option::kStartTls) return startTls(in, answer);
  if (tls_ == Tls::kRequired && !tlsOn_) {  // "FORCEDTLS mode"
    if (in.option() == Option::kExportName) return Next::kClose;
    return in.refuse(answer, Reply::kErrTlsReqd, "this server speaks to clients with TLS alone");
  }
  switch (in.option()) {
    case Option::kExportName:
      return exportName(in, answer);
    case Option::kList:
      return list(in, answer);
    case Option::kInfo:
    case Option::kGo:
      return info(in, answer);
    case Option::kStructuredReply:
      if (in.length) return in.refuse(answer, Reply::kErrInvalid, "the option has no data");
      structured_ = true;
      in.reply(answer, Reply::kAck);
      return Next::kMore;
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      return metaContext(in, answer);
    default:
      return in.refuse(answer, Reply::kErrUnsup, "the option is not known here");
  }
}

Next Negotiation::exportName(const OptionIn& in, std::string* answer) {
  // The option has no reply that says what is wrong: the connection ends.
  const size_t index = in.length > kStringMost ? kNoExport : catalog_.find(in.fields().string(in.length));
  if (index == kNoExport) return Next::kClose;
  agree(index, catalog_.at(index));
  append(answer, agreement_.bytes);
  append(answer, agreement_.flags);
  if (!noZeroes_) answer->append(kExportNameZeroes, '\0');
  return Next::kTransmission;
}

Next Negotiation::list(const OptionIn& in, std::string* answer) const {
  if (in.length) return in.refuse(answer, Reply::kErrInvalid, "the option has no data");
  for (size_t i = 0; i < catalog_.size(); ++i) {
    const ExportInfo each = catalog_.at(i);
    std::string body;
    append(&body, static_cast<uint32_t>(each.name.size()));
    in.reply(answer, Reply::kServer, body + each.name + each.description);
  }
  in.reply(answer, Reply::kAck);
  return Next::kMore;
}

Next Negotiation::startTls(const OptionIn& in, std::string* answer) const {
  if (in.length || tlsOn_) return in.refuse(answer, Reply::kErrInvalid, "no data, and once at most");
  if (tls_ == Tls::kOff) return in.refuse(answer, Reply::kErrPolicy, "TLS is not set up here");
  in.reply(answer, Reply::kAck);
  return Next::kStartTls;
}

void Negotiation::tlsStarted() {
  tlsOn_ = true;
  structured_ = false;
  contextExport_.clear();
  contexts_.clear();
  agreement_ = {};
}

Next Negotiation::info(const OptionIn& in, std::string* answer) {
  Fields fields = in.fields();
  const std::string_view name = fields.string(fields.number<uint32_t>());
  const uint16_t count = fields.number<uint16_t>();
  bool wantsName = false, wantsDescription = false, wantsBlockSize = false;
  for (uint32_t i = 0; i < count && !fields.failed(); ++i) {
    const auto wanted = static_cast<Info>(fields.number<uint16_t>());
    wantsName |= wanted == Info::kName;
    wantsDescription |= wanted == Info::kDescription;
    wantsBlockSize |= wanted == Info::kBlockSize;
  }
  if (!fields.complete()) return in.refuse(answer, Reply::kErrInvalid, "lengths and data do not agree");
  if (name.size() > kStringMost) return in.refuse(answer, Reply::kErrTooBig, "the name is too long");
  const size_t index = catalog_.find(name);
  if (index == kNoExport) return in.refuse(answer, Reply::kErrUnknown, "there is no export of that name");
  const ExportInfo chosen = catalog_.at(index);
  agree(index, chosen);

  std::string body;
  const auto item = [&](Info type, auto... values) {
    body.clear();
    append(&body, static_cast<uint16_t>(type));
    (append(&body, values), ...);
  };
  item(Info::kExport, agreement_.bytes, agreement_.flags);
  in.reply(answer, Reply::kInfo, body);
  item(Info::kBlockSize, chosen.minimumBlock, chosen.preferredBlock, kPayloadMost);
  in.reply(answer, Reply::kInfo, body);
  if (wantsName) {
    item(Info::kName);
    in.reply(answer, Reply::kInfo, body + chosen.name);
  }
  if (wantsDescription && !chosen.description.empty()) {
    item(Info::kDescription);
    in.reply(answer, Reply::kInfo, body + chosen.description);
  }
  if (in.option() == Option::kGo && chosen.minimumBlock > kDefaultBlock && !wantsBlockSize) {
    return in.refuse(answer, Reply::kErrBlockSizeReqd, "ask for NBD_INFO_BLOCK_SIZE: the blocks are larger than usual");
  }
  in.reply(answer, Reply::kAck);
  return in.option() == Option::kGo ? Next::kTransmission : Next::kMore;
}

Next Negotiation::metaContext(const OptionIn& in, std::string* answer) {
  const bool set = in.option() == Option::kSetMetaContext;
  if (set) {  // whatever comes of this one, the last one no longer holds
    contextExport_.clear();
    contexts_.clear();
  }
  if (!structured_) return in.refuse(answer, Reply::kErrInvalid, "structured replies come first");
  Fields fields = in.fields();
  const std::string_view name = fields.string(fields.number<uint32_t>());
  const uint32_t count = fields.number<uint32_t>();
  std::vector<std::string_view> queries;
  for (uint32_t i = 0; i < count && !fields.failed(); ++i) queries.push_back(fields.string(fields.number<uint32_t>()));
  if (!fields.complete()) return in.refuse(answer, Reply::kErrInvalid, "lengths and data do not agree");
  const auto tooLong = [](std::string_view text) { return text.size() > kStringMost; };
  if (tooLong(name) || std::any_of(queries.begin(), queries.end(), tooLong)) {
    return in.refuse(answer, Reply::kErrTooBig, "a name is too long");
  }
  const size_t index = catalog_.find(name);
  if (index == kNoExport) return in.refuse(answer, Reply::kErrUnknown, "there is no export of that name");

  // "Metadata querying": a namespace alone is a wildcard in a list, and selects nothing.
  const auto asks = [&](std::string_view query, std::string_view context) {
    return query == context || (!set && query.ends_with(':') && context.starts_with(query));
  };
  const ExportInfo chosen = catalog_.at(index);
  std::vector<std::string> found;
  for (const std::string& context : chosen.contexts) {
    const bool all = !set && queries.empty();
    const bool asked = std::any_of(queries.begin(), queries.end(), [&](auto query) { return asks(query, context); });
    if (all || asked) found.push_back(context);
  }
  if (set && found.size() > kContextsMost) return in.refuse(answer, Reply::kErrTooBig, "so many cannot be selected");
  for (uint32_t i = 0; i < found.size(); ++i) {
    std::string body;
    append(&body, set ? i : uint32_t{0});
    in.reply(answer, Reply::kMetaContext, body + found[i]);
  }
  in.reply(answer, Reply::kAck);
  if (set) {
    contextExport_ = chosen.name;
    contexts_ = std::move(found);
  }
  return Next::kMore;
}

void Negotiation::agree(size_t index, const ExportInfo& chosen) {
  agreement_ = {};
  agreement_.exportIndex = index;
  agreement_.bytes = chosen.bytes;
  agreement_.flags = chosen.flags | (structured_ ? kSendDf : 0);
  agreement_.minimumBlock = chosen.minimumBlock;
  agreement_.structured = structured_;
  // Contexts hold for the export that they were selected for. It may have come anew since.
  if (contextExport_ != chosen.name) return;
  for (const std::string& context : contexts_) {
    const auto place = std::find(chosen.contexts.begin(), chosen.contexts.end(), context);
    if (place == chosen.contexts.end()) {
      agreement_.contexts.clear();
      return;
    }
    agreement_.contexts.push_back(place - chosen.contexts.begin());
  }
}

}  // namespace sm::nbd
