// The checks that every driver makes before it touches anything, and walks over a request's segments.
#pragma once

#include <stratamap/device.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace sm {

constexpr uint32_t kDeviceMaxTransfer = 1 << 20;  // bytes

// Whether the segments are there and add up to the length, and not to that and 2^64.
inline bool dataAddsUp(const sm_request& request) {
  if (request.iov_count > SM_IOV_MAX || (request.iov_count > 0 && !request.iov)) return false;
  uint64_t left = request.length;
  for (uint32_t i = 0; i < request.iov_count; ++i) {
    const iovec& part = request.iov[i];
    if (part.iov_len > left || (part.iov_len > 0 && !part.iov_base)) return false;
    left -= part.iov_len;
  }
  return left == 0;
}

// Whether the request is at its end already: refused, or with nothing to do. *status is then its result: -EROFS,
// -EINVAL (malformed, misaligned, or beyond the end), -ENOSPC (a write beyond the end), or 0.
inline bool endsEarly(const sm_device& device, const sm_request& request, int32_t* status) {
  *status = 0;
  const bool data = request.op == SM_OP_READ || request.op == SM_OP_WRITE;
  switch (request.op) {
    case SM_OP_FLUSH:
      return false;
    case SM_OP_READ:
      break;
    case SM_OP_WRITE:
    case SM_OP_DISCARD:
    case SM_OP_WRITE_ZEROES:
      if (device.flags & SM_DEVICE_READ_ONLY) {
        *status = -EROFS;
        return true;
      }
      break;
    default:
      *status = -EINVAL;
      return true;
  }
  const uint64_t block = device.block_size;
  if (request.offset % block != 0 || request.length % block != 0) *status = -EINVAL;
  if (request.offset > device.bytes || request.length > device.bytes - request.offset) {
    *status = request.op == SM_OP_WRITE || request.op == SM_OP_WRITE_ZEROES ? -ENOSPC : -EINVAL;
  }
  if (data) {
    if (request.length > device.max_transfer || !dataAddsUp(request)) *status = -EINVAL;
  }
  return *status != 0 || request.length == 0 || (request.op == SM_OP_DISCARD && !(device.flags & SM_DEVICE_DISCARD));
}

// Calls step(data, bytes) for each contiguous piece of the request's data in [from, from + length), in order.
template <typename Step>
void eachPiece(const sm_request& request, uint64_t from, uint64_t length, Step step) {
  for (uint32_t i = 0; i < request.iov_count && length > 0; ++i) {
    const iovec& part = request.iov[i];
    if (from >= part.iov_len) {
      from -= part.iov_len;
      continue;
    }
    const uint64_t bytes = std::min<uint64_t>(length, part.iov_len - from);
    step(static_cast<char*>(part.iov_base) + from, bytes);
    length -= bytes;
    from = 0;
  }
}

inline void gather(const sm_request& request, uint64_t from, uint64_t length, void* to) {
  eachPiece(request, from, length, [&to](const char* data, uint64_t bytes) {
    std::memcpy(to, data, bytes);
    to = static_cast<char*>(to) + bytes;
  });
}

inline void scatter(const sm_request& request, uint64_t from, uint64_t length, const void* data) {
  eachPiece(request, from, length, [&data](char* to, uint64_t bytes) {
    std::memcpy(to, data, bytes);
    data = static_cast<const char*>(data) + bytes;
  });
}

}  // namespace sm
