// What went wrong, in the terms that design.md asks of every error.
#pragma once

#include <cstdint>
#include <string>

namespace sm {

struct Failure {
  int error = 0;        // positive errno, or 0: nothing failed
  std::string code;     // "EIO", "ERR_STRATAMAP_BUSY", …
  std::string layer;    // "host", "device", "volume", "disk", "loop", "map", "probe"
  std::string message;  // what was asked, what was found, what to do
  std::string device;   // the name, where there is one
  std::string vm, disk;
  int64_t offset = -1;  // bytes, or -1

  explicit operator bool() const { return error != 0; }
};

// `error` is a positive errno; its name is the code, unless `code` is given.
Failure failed(int error, const char* layer, std::string message, const char* code = nullptr);

// "EIO"; "E<number>" for what has no name.
std::string errnoName(int error);

}  // namespace sm
