#include "engine/failure.h"

#include <cstring>
#include <utility>

namespace sm {

std::string errnoName(int error) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 32)
  if (const char* name = strerrorname_np(error)) return name;
#endif
  return "E" + std::to_string(error);
}

Failure failed(int error, const char* layer, std::string message, const char* code) {
  Failure failure;
  failure.error = error;
  failure.code = code ? code : errnoName(error);
  failure.layer = layer;
  failure.message = std::move(message);
  return failure;
}

}  // namespace sm
