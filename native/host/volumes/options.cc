#include "options.h"

#include <cerrno>
#include <cstring>
#include <string>

#include "report.h"

namespace sm {
namespace {

using Long = unsigned long long;

constexpr const char* kIssues[] = {"clone", "fresh", nullptr};  // by Issue

bool parseNumber(const char* text, bool suffix, uint64_t* out) {
  uint64_t value = 0;
  const char* at = text;
  for (; *at >= '0' && *at <= '9'; ++at) {
    if (__builtin_mul_overflow(value, uint64_t{10}, &value)) return false;
    if (__builtin_add_overflow(value, static_cast<uint64_t>(*at - '0'), &value)) return false;
  }
  if (at == text) return false;
  if (suffix && *at) {
    const char* units = "KMG";
    const char* unit = strchr(units, *at);
    if (!unit || at[1]) return false;
    const int shift = 10 * static_cast<int>(unit - units + 1);
    if (value > UINT64_MAX >> shift) return false;
    *out = value << shift;
    return true;
  }
  *out = value;
  return *at == 0;
}

int32_t parseOne(const char* type, const sm_option& option, const OptionSpec& spec, sm_error* error) {
  const char* text = option.value ? option.value : "";
  if (spec.refusal) return report(error, -EINVAL, "option '%s' of volume '%s': %s", option.key, type, spec.refusal);
  if (spec.kind == OptionSpec::kText) {
    if (!*text) return report(error, -EINVAL, "option '%s' of volume '%s' is empty: give it", option.key, type);
    *spec.text = text;
    return 0;
  }
  if (spec.kind == OptionSpec::kIssue || spec.kind == OptionSpec::kWord) {
    std::string known;
    const char* const* words = spec.words ? spec.words : kIssues;
    for (uint64_t i = 0; words[i]; ++i) {
      if (!strcmp(text, words[i])) return *spec.out = i, 0;
      known += std::string(i ? " or " : "") + words[i];
    }
    return report(error, -EINVAL, "option '%s' of volume '%s' is '%.64s': give %s", option.key, type, text,
                  known.c_str());
  }
  uint64_t value = 0;
  const bool size = spec.kind == OptionSpec::kSize;
  const bool number = parseNumber(text, size, &value);
  if (!number || value < spec.lowest || value > spec.highest || (size && (value & (value - 1))))
    return report(error, -EINVAL, "option '%s' of volume '%s' is '%.64s': give %s from %llu to %llu", option.key, type,
                  text, size ? "a power of two in bytes" : "a number", static_cast<Long>(spec.lowest),
                  static_cast<Long>(spec.highest));
  *spec.out = value;
  return 0;
}

}  // namespace

int32_t parseOptions(const char* type, const sm_option* options, uint32_t count, const OptionSpec* specs,
                     uint32_t specCount, sm_error* error) {
  for (uint32_t i = 0; i < count; ++i) {
    const OptionSpec* found = nullptr;
    for (uint32_t j = 0; j < specCount && !found; ++j)
      if (!strcmp(specs[j].key, options[i].key)) found = &specs[j];
    if (!found) {
      std::string known;
      for (uint32_t j = 0; j < specCount; ++j)
        if (!specs[j].refusal) known += std::string(known.empty() ? "" : ", ") + specs[j].key;
      return report(error, -EINVAL, "volume '%s' has no option '%.64s' here; it has: %s", type, options[i].key,
                    known.c_str());
    }
    if (int32_t status = parseOne(type, options[i], *found, error)) return status;
  }
  return 0;
}

}  // namespace sm
