// The options of the shipped volumes. An unknown option, or a value out of range, is an error that says what would do.
#pragma once

#include <stratamap/contract.h>

namespace sm {

enum class Issue : uint64_t { kClone = 0, kFresh = 1 };  // how children are made; also on the medium

// Where one option goes: a size (bytes, with K, M or G behind it for powers of 1024), a number, one of some words (its
// number; of kIssue an Issue), or any text that is not empty.
struct OptionSpec {
  const char* key;
  enum Kind { kSize, kNumber, kIssue, kWord, kText } kind;
  uint64_t* out;
  uint64_t lowest = 0, highest = UINT64_MAX;  // sizes: powers of two between these
  const char* refusal = nullptr;              // known, but not accepted here: why
  const char* const* words = nullptr;         // two or more, ending with null
  const char** text = nullptr;                // where a text goes; it lives as long as the options
};

int32_t parseOptions(const char* type, const sm_option* options, uint32_t count, const OptionSpec* specs,
                     uint32_t specCount, sm_error* error);

}  // namespace sm
