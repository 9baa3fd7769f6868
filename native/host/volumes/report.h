// Fills in an sm_error: what was asked, what was found, what to do.
#pragma once

#include <stratamap/contract.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <new>

namespace sm {

// `code` is a negative errno, and returned. `error` may be null.
__attribute__((format(printf, 3, 4))) inline int32_t report(sm_error* error, int32_t code, const char* format, ...) {
  if (error) {
    error->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
  }
  return code;
}

// Runs an entry that may allocate, for a caller that knows no exceptions.
template <typename Entry>
int32_t guarded(sm_error* error, Entry entry) {
  try {
    return entry();
  } catch (const std::bad_alloc&) {
    return report(error, -ENOMEM, "the volume is out of memory: close something and try again");
  }
}

}  // namespace sm
