// Whether this machine lets a test observe the kernel's block layer; not asked of what is tested.
#pragma once

#include <unistd.h>

#include <string>

namespace sm::test {

inline bool mayObserve(std::string* why) {
  constexpr const char* kTypes = "/sys/kernel/btf/vmlinux";
  if (geteuid() != 0) {
    *why = "it takes root";
  } else if (access(kTypes, R_OK) != 0) {
    *why = std::string("it needs ") + kTypes;
  } else {
    return true;
  }
  return false;
}

}  // namespace sm::test
