// What a log volume writes about itself: a stream of pages in one of two areas on the first device.
//
// A record says where a run of a disk's blocks is, or that it holds zeroes; a later one counts. An area holds one
// generation: pages numbered from 0, the first of which give the whole map. The pages up to one marked `last` are a
// batch, which counts as a whole or not at all: its last page is written when all others, and the data that they name,
// are durable. Where a batch would not fit, the next generation begins in the other area; when its first batch is
// durable, the first page of the old area is erased.
//
// No two generations have the same number, also where the first page of one was erased and nobody knows of it any more:
// a number is a count, and behind it bits drawn when the volume was opened. Else pages that such a generation left
// would continue the next one in that area.
//
// So after any crash the newest generation that begins with a whole batch is the truth, up to its last whole batch. A
// page that is torn ends it; one that is damaged shows, as long as a whole batch lies behind it, or there is no other
// generation: no older one is ever taken for the truth.
#pragma once

#include <cstddef>
#include <cstdint>

#include "crc32c.h"
#include "medium.h"

namespace sm {

constexpr uint64_t kLogMagic = 0x4c414e52554f4a4c;  // "LJOURNAL"
constexpr uint32_t kRecordsPerPage = 252;
constexpr uint64_t kLastGeneration = UINT64_MAX / 2;  // no volume lives to see it

// As on the medium.
struct LogRecord {
  uint32_t disk;
  uint32_t first, count;  // blocks
  uint32_t place;         // 1 + that of the first block; the others follow it. 0: zeroes
};
struct LogPage {
  uint64_t magic;
  uint64_t generation;
  uint8_t uuid[16];  // the volume's
  uint32_t number;   // in the area
  uint16_t count;    // of records
  uint8_t area;
  uint8_t last;  // of a batch
  uint8_t reserved[20];
  uint32_t crc;  // of the page, itself as 0
  LogRecord records[kRecordsPerPage];
};
static_assert(sizeof(LogPage) == kPage);

inline uint32_t logChecksum(const LogPage& page) {
  static constexpr uint32_t kZero = 0;
  const auto* bytes = reinterpret_cast<const uint8_t*>(&page);
  constexpr size_t at = offsetof(LogPage, crc), behind = at + sizeof page.crc;
  const uint32_t head = crc32c(crc32c(0, bytes, at), &kZero, sizeof kZero);
  return crc32c(head, bytes + behind, sizeof page - behind);
}

}  // namespace sm
