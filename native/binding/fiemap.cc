// What a file system says of a file's extents (FS_IOC_FIEMAP, Linux Documentation/filesystems/fiemap.rst), and what a
// file or device holds past the page cache: for verification alone. It stands in the binding on purpose: nothing that
// learns the map can include it.
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/errors.h"
#include "binding/job.h"
#include "sys/block.h"

namespace sm::binding {
namespace {

constexpr uint32_t kExtents = 512;               // of one ioctl
constexpr uint64_t kLargest = (1ull << 53) - 1;  // what a double holds exactly
constexpr char kLayer[] = "verify";

struct Range {
  uint64_t offset, length;
};

// One ioctl's worth, with room for its extents behind the header.
struct Request {
  alignas(fiemap) std::byte bytes[sizeof(fiemap) + kExtents * sizeof(fiemap_extent)];
  fiemap* head() { return reinterpret_cast<fiemap*>(bytes); }
};

// Appends offset, place, length and flags of each extent that meets the range: whole, in order.
Failure extentsOf(int fd, Range range, std::vector<double>* words) {
  Request request;
  for (uint64_t at = range.offset, end = range.offset + range.length; at < end;) {
    std::memset(request.bytes, 0, sizeof(fiemap));
    fiemap* head = request.head();
    head->fm_start = at;
    head->fm_length = end - at;
    head->fm_flags = FIEMAP_FLAG_SYNC;
    head->fm_extent_count = kExtents;
    if (ioctl(fd, FS_IOC_FIEMAP, head) != 0) {
      return failed(errno, kLayer, std::string("FIEMAP: ") + std::strerror(errno));
    }
    if (head->fm_mapped_extents == 0) return {};
    for (uint32_t i = 0; i < std::min(head->fm_mapped_extents, kExtents); ++i) {
      const fiemap_extent& extent = head->fm_extents[i];
      // Nothing that could overflow, or keep this loop from its end.
      if (extent.fe_length == 0 || std::max({extent.fe_logical, extent.fe_physical, extent.fe_length}) > kLargest / 2 ||
          extent.fe_logical + extent.fe_length <= at) {
        return failed(EOVERFLOW, kLayer,
                      "FIEMAP told an extent that cannot be: " + std::to_string(extent.fe_length) +
                          " bytes at offset " + std::to_string(extent.fe_logical) + ", at place " +
                          std::to_string(extent.fe_physical));
      }
      words->insert(words->end(), {double(extent.fe_logical), double(extent.fe_physical), double(extent.fe_length),
                                   double(extent.fe_flags)});
      at = extent.fe_logical + extent.fe_length;
      if (extent.fe_flags & FIEMAP_EXTENT_LAST) return {};
    }
  }
  return {};
}

// fileExtents(fd, ranges: offset and length of each): promise of offset, place, length, flags of each extent. The
// caller keeps the descriptor open.
Napi::Value fileExtents(const Napi::CallbackInfo& info) {
  const int fd = int(numberOf(info[0]));
  const auto given = info[1].As<Napi::Float64Array>();
  std::vector<Range> ranges;
  for (size_t i = 0; i + 1 < given.ElementLength(); i += 2)
    ranges.push_back({uint64_t(given[i]), uint64_t(given[i + 1])});
  auto words = std::make_shared<std::vector<double>>();
  return startJob(
      info.Env(), nullptr,
      [fd, ranges = std::move(ranges), words]() -> Failure {
        for (const Range& range : ranges) {
          if (Failure failure = extentsOf(fd, range, words.get())) return failure;
        }
        return {};
      },
      [words](Napi::Env env) -> Napi::Value {
        auto array = Napi::Float64Array::New(env, words->size());
        std::copy(words->begin(), words->end(), array.Data());
        return array;
      });
}

// directAlignment(fd): bytes that O_DIRECT asks offsets, lengths and addresses to be multiples of; 0: it is not
// supported.
Napi::Value directAlignment(const Napi::CallbackInfo& info) {
  BlockFacts facts;
  const int status = blockFacts(int(numberOf(info[0])), &facts);
  const uint32_t align = status == 0 && facts.direct ? std::max(facts.memoryAlign, facts.offsetAlign) : 0;
  return Napi::Number::New(info.Env(), align);
}

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<std::byte, Free>;

struct Reading {
  Memory memory;
  uint64_t length = 0;  // bytes that were read
};

Failure readWhole(int fd, uint64_t align, Range range, Reading* out) {
  const uint64_t from = range.offset - range.offset % align;
  const uint64_t most = (range.offset + range.length - from + align - 1) / align * align;
  out->memory.reset(static_cast<std::byte*>(std::aligned_alloc(align, most)));
  if (!out->memory) return failed(ENOMEM, kLayer, "no memory to read " + std::to_string(most) + " bytes");
  uint64_t done = 0;
  while (done < most) {
    const ssize_t n = pread(fd, out->memory.get() + done, most - done, off_t(from + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      Failure failure = failed(errno, kLayer, std::string("read: ") + std::strerror(errno));
      failure.offset = int64_t(from + done);
      return failure;
    }
    done += uint64_t(n);
    if (n == 0 || uint64_t(n) % align != 0) break;  // its end
  }
  const uint64_t skip = range.offset - from;
  out->length = done > skip ? std::min(done - skip, range.length) : 0;
  if (skip > 0) std::memmove(out->memory.get(), out->memory.get() + skip, out->length);
  return {};
}

// readDirect(fd opened with O_DIRECT, its alignment, offset, length): promise of a Buffer, shorter where the file ends
// before. The caller keeps the descriptor open.
Napi::Value readDirect(const Napi::CallbackInfo& info) {
  const int fd = int(numberOf(info[0]));
  const uint64_t align = std::max<uint64_t>(numberOf(info[1]), sizeof(void*));
  const Range range{numberOf(info[2]), numberOf(info[3])};
  auto reading = std::make_shared<Reading>();
  return startJob(
      info.Env(), nullptr, [=] { return readWhole(fd, align, range, reading.get()); },
      [reading](Napi::Env env) -> Napi::Value {
        std::byte* memory = reading->memory.release();
        return Napi::Buffer<std::byte>::NewOrCopy(env, memory, reading->length,
                                                  [](Napi::Env, std::byte* data) { std::free(data); });
      });
}

}  // namespace

void addFiemap(Napi::Object exports) {
  addFunction<fileExtents>(exports, "fileExtents");
  addFunction<directAlignment>(exports, "directAlignment");
  addFunction<readDirect>(exports, "readDirect");
}

}  // namespace sm::binding
