#include "sys/tracefs.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace sm {

namespace {

constexpr uint32_t kLargest = 1 << 16;  // bytes of a record, which perf does not exceed either
constexpr size_t kLongest = 1 << 16;    // bytes of a format file

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// What stands behind `key` in `text`, up to the next ';' or the end.
bool valueOf(std::string_view text, std::string_view key, std::string_view* out) {
  const auto at = text.find(key);
  if (at == text.npos) return false;
  *out = trimmed(text.substr(at + key.size(), text.find(';', at) - std::min(text.find(';', at), at + key.size())));
  return true;
}

template <class T>
bool number(std::string_view text, T* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

// "char rwbs[10]" declares rwbs.
std::string_view declared(std::string_view declaration) {
  declaration = trimmed(declaration.substr(0, declaration.find('[')));
  const auto space = declaration.find_last_of(" \t*");
  return space == declaration.npos ? declaration : declaration.substr(space + 1);
}

int mountPrivately() {
  const int context = static_cast<int>(syscall(SYS_fsopen, "tracefs", FSOPEN_CLOEXEC));
  if (context < 0) return -errno;
  int result;
  if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    result = -errno;
  } else {
    result = static_cast<int>(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0));
    if (result < 0) result = -errno;
  }
  close(context);
  return result;
}

int readAll(int folder, const std::string& path, std::string* out) {
  const int fd = openat(folder, path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  out->resize(kLongest);
  size_t length = 0;
  ssize_t got;
  while (length < out->size() && (got = ::read(fd, out->data() + length, out->size() - length)) > 0) {
    length += static_cast<size_t>(got);
  }
  close(fd);
  out->resize(length);
  return length > 0 && length < kLongest ? 0 : -EIO;
}

}  // namespace

const TraceField* Tracepoint::field(std::string_view name, uint32_t size) const {
  for (const TraceField& each : fields) {
    if (each.name == name && each.size == size) return &each;
  }
  return nullptr;
}

int parseTraceFormat(std::string_view text, Tracepoint* out) {
  *out = {};
  bool identified = false;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    std::string_view value;
    if (line.starts_with("ID:")) {
      if (!number(trimmed(line.substr(3)), &out->id)) return -EINVAL;
      identified = true;
    } else if (valueOf(line, "field:", &value)) {
      TraceField field{.name = std::string(declared(value))};
      std::string_view offset, size;
      if (field.name.empty() || !valueOf(line, "offset:", &offset) || !valueOf(line, "size:", &size) ||
          !number(offset, &field.offset) || !number(size, &field.size) || field.offset > kLargest ||
          field.size > kLargest) {
        return -EINVAL;
      }
      out->fields.push_back(std::move(field));
    }
  }
  return identified && !out->fields.empty() ? 0 : -EINVAL;
}

Tracefs::~Tracefs() {
  if (folder_ >= 0) close(folder_);
}

int Tracefs::open(std::string* why) {
  for (const char* path : {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}) {
    struct statfs system;
    const int fd = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) continue;
    if (fstatfs(fd, &system) == 0 && system.f_type == TRACEFS_MAGIC) {
      folder_ = fd;
      return 0;
    }
    close(fd);
  }
  const int mounted = mountPrivately();
  if (mounted < 0) {
    *why = std::string("tracefs is not mounted, and cannot be mounted (") + std::strerror(-mounted) +
           "): run as root, or mount -t tracefs tracefs /sys/kernel/tracing";
    return mounted;
  }
  folder_ = mounted;
  return 0;
}

int Tracefs::read(const std::string& event, Tracepoint* out, std::string* why) const {
  std::string text;
  int error = readAll(folder_, "events/" + event + "/format", &text);
  if (error == 0) error = parseTraceFormat(text, out);
  if (error != 0) {
    *why = "tracefs has no event " + event + " that we understand (" + std::strerror(-error) +
           "): it takes root and Linux 6.5";
  }
  return error;
}

}  // namespace sm
