// Tracepoints as the kernel describes them in tracefs (Linux Documentation/trace/events.rst).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sm {

struct TraceField {
  std::string name;
  uint32_t offset = 0, size = 0;  // bytes, in a record
};

struct Tracepoint {
  uint64_t id = 0;  // for perf_event_open; a record's common_type
  std::vector<TraceField> fields;

  // Null where there is no field of that name and size.
  const TraceField* field(std::string_view name, uint32_t size) const;
};

// Reads the text of a `format` file. 0, or -EINVAL: it is none.
int parseTraceFormat(std::string_view text, Tracepoint* out);

// Where tracefs is mounted, or, as root, a mount of our own that nobody else sees.
//
// Thread contract: one thread at a time.
class Tracefs {
 public:
  Tracefs() = default;
  ~Tracefs();
  Tracefs(const Tracefs&) = delete;
  Tracefs& operator=(const Tracefs&) = delete;

  // 0 or a negative errno; `why` then says what is missing and what to do.
  int open(std::string* why);
  int read(const std::string& event, Tracepoint* out, std::string* why) const;  // "block/block_io_start"

 private:
  int folder_ = -1;
};

}  // namespace sm
