#include "map/pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

namespace sm {

Pages::Pages(size_t bytes, bool large) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t align = bytes >= kLarge ? kLarge : page;
  if (bytes == 0 || bytes > SIZE_MAX / 2 - align) throw std::bad_alloc();
  bytes_ = (bytes + align - 1) & ~(align - 1);
  // More than is needed, of which the aligned part stays.
  const size_t slack = align - page;
  void* memory = mmap(nullptr, bytes_ + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<char*>(memory);
  const size_t before = -reinterpret_cast<uintptr_t>(begin) & (align - 1);
  if (before > 0) munmap(begin, before);
  if (slack > before) munmap(begin + before + bytes_, slack - before);
  data_ = begin + before;
  asked_ = large && align == kLarge && madvise(data_, bytes_, MADV_HUGEPAGE) == 0;
}

Pages::~Pages() {
  if (data_) munmap(data_, bytes_);
}

size_t Pages::backedLarge() const {
  // The system may have joined this mapping with its neighbours, or parted it: each part counts for at most what of it
  // lies in here.
  const auto begin = reinterpret_cast<uintptr_t>(data_), end = begin + bytes_;
  std::ifstream file("/proc/self/smaps");
  size_t sum = 0, common = 0;
  for (std::string line; std::getline(file, line);) {
    unsigned long from = 0, to = 0, kib = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
      const uintptr_t first = from > begin ? from : begin, last = to < end ? to : end;
      common = first < last ? last - first : 0;
    } else if (common > 0 && std::sscanf(line.c_str(), "AnonHugePages: %lu kB", &kib) == 1) {
      sum += kib * 1024 < common ? kib * 1024 : common;
    }
  }
  return sum;
}

}  // namespace sm
