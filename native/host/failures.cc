#include "host/failures.h"

#include <stratamap/disk.h>

#include <cerrno>
#include <cstring>
#include <system_error>

namespace sm {

Failure failedVolume(int32_t status, const sm_error& error, const std::string& asked) {
  int number = error.code < 0 ? -error.code : status < 0 ? -status : EIO;
  const std::string said(error.message, strnlen(error.message, sizeof error.message));
  return failed(
      number, "volume",
      asked + ": " + (said.empty() ? std::generic_category().message(number) + " (the volume says no more)" : said));
}

Failure checkName(const std::string& name, const char* what, const char* layer) {
  std::string problem;
  if (name.empty()) problem = "is empty";
  if (name.size() > SM_NAME_MAX) problem = "has " + std::to_string(name.size()) + " bytes";
  for (unsigned char byte : name) {
    if (byte < 0x20 || byte == 0x7f) problem = "has a control character";
  }
  if (problem.empty()) return {};
  return failed(EINVAL, layer,
                std::string("the name of a ") + what + " " + problem + ": use 1 to " + std::to_string(SM_NAME_MAX) +
                    " bytes without control characters",
                "ERR_STRATAMAP_NAME");
}

}  // namespace sm
