// Direct I/O of one block with an I/O priority.
//
// Thread contract: any thread that may block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "map/types.h"

namespace sm {

constexpr size_t kBlock = 4096;  // bytes

using Block = std::unique_ptr<std::byte, decltype(&std::free)>;
inline Block makeBlock() { return {static_cast<std::byte*>(std::aligned_alloc(kBlock, kBlock)), std::free}; }

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

// Writes a block to the beginning of a file by io_uring, as guests' requests are written; 0 or a negative errno.
int writeBlock(int fd, uint16_t priority, const std::byte* block);
// The bytes of a device in these places, each of at most a block, one behind the other; false: they cannot be read.
bool readPlaces(const std::string& device, const std::vector<Range>& places, uint16_t priority, std::byte* out);

}  // namespace sm
