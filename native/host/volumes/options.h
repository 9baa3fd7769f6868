// The options of the shipped volumes. An unknown option, or a value out of range, is an error that says what would do.
#pragma once

#include <stratamap/contract.h>

namespace sm {

enum class Issue : uint64_t { kClone = 0, kFresh = 1 };  // how children are made; also on the medium

// Where one option goes: a size (bytes, with K, M or G behind it for powers of 1024), a number or an Issue.
struct OptionSpec {
  const char* key;
  enum Kind { kSize, kNumber, kIssue } kind;
  uint64_t* out;
  uint64_t lowest = 0, highest = UINT64_MAX;  // sizes: powers of two between these
  const char* refusal = nullptr;              // known, but not accepted here: why
};

int32_t parseOptions(const char* type, const sm_option* options, uint32_t count, const OptionSpec* specs,
                     uint32_t specCount, sm_error* error);

}  // namespace sm
