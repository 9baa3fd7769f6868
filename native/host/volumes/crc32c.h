// CRC-32C (Castagnoli, RFC 3720 B.4), for metadata: off the path of data.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sm {

// `crc` is 0, or the result for the bytes before these.
uint32_t crc32c(uint32_t crc, const void* data, size_t length);

}  // namespace sm
