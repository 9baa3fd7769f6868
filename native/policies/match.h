// Which requests a policy is about, and chance that can be repeated.
#pragma once

#include <stratamap/request.h>

#include <cstdint>

namespace sm {

// Operations, and a range of the device that the request has to touch. A flush has no range: it is matched by its
// operation alone.
struct Match {
  static constexpr uint32_t bit(uint8_t op) { return op < 32 ? 1u << op : 0; }
  static constexpr uint32_t kEvery = UINT32_MAX;

  uint32_t ops = kEvery;                 // bit(op) for each
  uint64_t begin = 0, end = UINT64_MAX;  // bytes

  bool operator()(const sm_request& request) const {
    if (!(ops & bit(request.op))) return false;
    if (request.op == SM_OP_FLUSH) return true;
    return request.offset < end && (request.offset >= begin || request.length > begin - request.offset);
  }
};

// splitmix64: the n-th number of a seed, whoever asks for it, and in whatever order.
inline uint64_t chance(uint64_t seed, uint64_t n) {
  uint64_t x = seed + (n + 1) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

inline double unit(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }  // 0 <= unit < 1

}  // namespace sm
