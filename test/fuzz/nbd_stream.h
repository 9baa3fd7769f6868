// What an NBD client may send, made of a fuzzer's input: messages that are mostly well formed, so that what lies behind
// the first checks is reached, and bytes that are not.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <string>
#include <vector>

#include "native/nbd/messages.h"

namespace sm::fuzz {

using namespace sm::nbd;

constexpr uint64_t kDiskBytes = 1 << 20;
inline const std::string kExport = "vm-1/vda";

class NbdStream {
 public:
  explicit NbdStream(FuzzedDataProvider& input) : input_(input) {}

  std::string make() {
    std::string stream = input_.ConsumeBool() ? test::clientFlags() : test::wire(input_.ConsumeIntegral<uint32_t>());
    while (input_.remaining_bytes() > 0 && stream.size() < 256 << 10) {
      switch (input_.ConsumeIntegralInRange(0, 9)) {
        case 0:
          stream += input_.ConsumeRandomLengthString(64);
          break;
        case 1:
          stream += test::option(Option::kGo, test::infoData(name(), {Info::kBlockSize}));
          break;
        case 2:
        case 3:
          stream += option();
          break;
        default:
          stream += request();
      }
    }
    return stream;
  }

 private:
  std::string name() {
    return input_.ConsumeIntegral<uint8_t>() < 200 ? kExport : input_.ConsumeRandomLengthString(20);
  }

  std::string option() {
    const auto type = static_cast<Option>(input_.ConsumeIntegralInRange<uint32_t>(0, 12));
    std::string data;
    switch (input_.ConsumeIntegralInRange(0, 4)) {
      case 0:
        data = input_.ConsumeRandomLengthString(40);
        break;
      case 1:
        data = test::infoData(name(), {static_cast<Info>(input_.ConsumeIntegralInRange(0, 4))});
        break;
      case 2:
        data =
            test::contextData(name(), {input_.ConsumeBool() ? "base:allocation" : input_.ConsumeRandomLengthString(9)});
        break;
      case 3:
        data = name();
        break;
      default:
        break;
    }
    std::string message = test::option(type, data);
    // The length says something else now and then.
    if (input_.ConsumeIntegral<uint8_t>() == 0) store(&message[12], input_.ConsumeIntegral<uint32_t>());
    return message;
  }

  std::string request() {
    const bool wild = input_.ConsumeIntegral<uint8_t>() < 16;
    const auto command = static_cast<Command>(input_.ConsumeIntegralInRange<uint16_t>(0, 8));
    const uint64_t offset = wild ? input_.ConsumeIntegral<uint64_t>() : input_.ConsumeIntegralInRange(0, 260) * 4096;
    const uint32_t length = wild ? input_.ConsumeIntegral<uint32_t>() : input_.ConsumeIntegralInRange(0, 40) * 4096;
    const uint16_t flags = input_.ConsumeBool() ? 0 : input_.ConsumeIntegralInRange<uint16_t>(0, 31);
    std::string message = test::request(command, input_.ConsumeIntegral<uint8_t>(), offset, length, flags);
    if (command == Command::kWrite && length <= 40 * 4096) message += std::string(length, static_cast<char>(offset));
    return message;
  }

  FuzzedDataProvider& input_;
};

}  // namespace sm::fuzz
