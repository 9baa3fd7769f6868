// A client's side of the protocol as bytes: what it sends, and what it makes of what it is sent.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "devices/nbd_protocol.h"

namespace sm::test {

using namespace sm::nbd;

template <typename... T>
std::string wire(T... values) {
  std::string out;
  const auto add = [&out](auto value) {
    if constexpr (std::is_convertible_v<decltype(value), std::string_view>) {
      out += value;
    } else {
      uint8_t bytes[sizeof value];
      store(bytes, value);
      out.append(reinterpret_cast<const char*>(bytes), sizeof bytes);
    }
  };
  (add(values), ...);
  return out;
}

inline std::string clientFlags(uint32_t flags = kFixedNewstyle | kNoZeroes) { return wire(flags); }

inline std::string option(Option type, const std::string& data = {}) {
  return wire(kOptionMagic, static_cast<uint32_t>(type), static_cast<uint32_t>(data.size()), data);
}

inline std::string text(const std::string& value) { return wire(static_cast<uint32_t>(value.size()), value); }

inline std::string infoData(const std::string& name, const std::vector<Info>& wanted = {}) {
  std::string data = text(name) + wire(static_cast<uint16_t>(wanted.size()));
  for (const Info each : wanted) data += wire(static_cast<uint16_t>(each));
  return data;
}

inline std::string contextData(const std::string& name, const std::vector<std::string>& queries = {}) {
  std::string data = text(name) + wire(static_cast<uint32_t>(queries.size()));
  for (const std::string& each : queries) data += text(each);
  return data;
}

struct OptionReply {
  uint32_t option = 0;
  Reply type = Reply::kAck;
  std::string data;
};

// All of `bytes` as replies to options; where they are none, the list ends early.
inline std::vector<OptionReply> optionReplies(std::string_view bytes) {
  std::vector<OptionReply> replies;
  while (bytes.size() >= kOptionReplyBytes && load<uint64_t>(bytes.data()) == kOptionReplyMagic) {
    const uint32_t length = load<uint32_t>(bytes.data() + 16);
    if (length > bytes.size() - kOptionReplyBytes) break;
    replies.push_back({load<uint32_t>(bytes.data() + 8), static_cast<Reply>(load<uint32_t>(bytes.data() + 12)),
                       std::string(bytes.substr(kOptionReplyBytes, length))});
    bytes.remove_prefix(kOptionReplyBytes + length);
  }
  return replies;
}

inline std::string request(Command command, uint64_t cookie, uint64_t offset, uint32_t length, uint16_t flags = 0) {
  return wire(kRequestMagic, flags, static_cast<uint16_t>(command), cookie, offset, length);
}

}  // namespace sm::test
