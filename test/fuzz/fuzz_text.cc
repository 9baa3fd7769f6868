// What volumes and hosts read that has no structure to speak of: options as a user wrote them, and the first and last
// bytes of a device that may carry anything.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "fuzz/fuzz.h"
#include "signature.h"
#include "volumes/options.h"

using namespace sm;

namespace {

void parse(FuzzedDataProvider& input) {
  uint64_t size = 4096, number = 7, issue = 0;
  const OptionSpec specs[] = {{"size", OptionSpec::kSize, &size, 4096, 16 << 20},
                              {"number", OptionSpec::kNumber, &number, 0, 1000},
                              {"issue", OptionSpec::kIssue, &issue},
                              {"fixed", OptionSpec::kNumber, nullptr, 0, 0, "leave it out here"}};
  static constexpr const char* kKeys[] = {"size", "number", "issue", "fixed"};
  std::vector<std::string> texts;
  for (size_t count = input.ConsumeIntegralInRange<size_t>(0, 3); count > 0; --count) {
    texts.push_back(input.ConsumeBool() ? input.PickValueInArray(kKeys) : input.ConsumeRandomLengthString());
    texts.push_back(input.ConsumeRandomLengthString());
  }
  std::vector<sm_option> options;
  for (size_t i = 0; i < texts.size(); i += 2)
    options.push_back({texts[i].c_str(), input.ConsumeIntegral<uint8_t>() ? texts[i + 1].c_str() : nullptr});
  sm_error error{};
  const int32_t status =
      parseOptions("fuzzed", options.data(), static_cast<uint32_t>(options.size()), specs, 4, &error);
  SM_MUST(status == 0 || (status == -EINVAL && error.code == status && error.message[0]));
  SM_MUST(size >= 4096 && size <= 16 << 20 && !(size & (size - 1)) && number <= 1000 && issue <= 1);
}

void look(FuzzedDataProvider& input) {
  const uint32_t block = 512u << input.ConsumeIntegralInRange(0, 3);
  const uint64_t bytes = uint64_t{block} * input.ConsumeIntegralInRange(0u, 300u);
  const uint64_t at = input.ConsumeIntegralInRange<uint64_t>(0, bytes);
  const auto content = input.ConsumeRemainingBytes<char>();
  const sm_device device{.name = "d", .bytes = bytes, .block_size = block};
  Signature found;
  const auto read = [&](uint64_t offset, void* data, uint64_t length) {
    SM_MUST(offset % block == 0 && length % block == 0 && offset <= bytes && length <= bytes - offset);
    std::memset(data, 0, length);
    for (uint64_t i = 0; i < length; ++i)
      if (offset + i >= at && offset + i - at < content.size()) static_cast<char*>(data)[i] = content[offset + i - at];
    return 0;
  };
  SM_MUST(findSignature(device, read, &found) == 0);
  SM_MUST(found.name.empty() || found.offset < bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  if (input.ConsumeBool()) parse(input);
  else look(input);
  return 0;
}
