// The words of the independent truth: blocks of 512 bytes, and what one holds.
#pragma once

#include <stratamap/request.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace oracle {

constexpr uint64_t kBlock = 512;

using Bytes = std::array<std::byte, kBlock>;

// A block of a disk or of a device; `space` says which one, by its number in the test.
struct Unit {
  uint32_t space = 0;
  uint64_t block = 0;
  auto operator<=>(const Unit&) const = default;
};

// Where the blocks of a request stand in memory, in the order of its data.
std::vector<const std::byte*> memoryOf(const sm_request* request);
Bytes copyOf(const std::byte* memory);

// A payload that says whose it is: no two of them are equal, whoever writes them and whenever.
Bytes signedPayload(Unit owner, uint64_t generation, uint64_t random);
std::optional<Unit> signerOf(const Bytes& bytes);  // none: not such a payload

}  // namespace oracle
