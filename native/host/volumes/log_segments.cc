#include "log_segments.h"

#include <algorithm>
#include <bit>

#include "log_page.h"
#include "medium.h"

namespace sm {
namespace {

constexpr uint64_t kAlignment = 1 << 20;  // bytes: larger segments are aligned to this
constexpr uint64_t kFewSegments = 64;     // a default segment is small enough for this many
constexpr uint64_t kBurst = 2 << 20;      // bytes of overwrites for which a full volume has room, where it is not small
constexpr uint64_t kSlackPages = 8;       // at least, behind a whole checkpoint

LogLayout divide(const uint64_t* deviceBytes, uint32_t devices, uint32_t blockSize, uint64_t segmentBytes) {
  LogLayout layout{segmentBytes, blockSize, 0, 0, {}};
  uint64_t blocks = 0;
  for (uint32_t i = 0; i < devices; ++i) blocks += deviceBytes[i] / blockSize;
  blocks = std::min<uint64_t>(blocks, UINT32_MAX);
  const uint64_t whole = roundUp(blocks, kRecordsPerPage) / kRecordsPerPage + 1;
  layout.areaPages = static_cast<uint32_t>(whole + std::max(whole / 2, kSlackPages));
  for (uint32_t i = 0; i < devices; ++i) {
    const uint64_t dataAt = roundUp(i == 0 ? layout.areaAt(2) : kTypeAt, std::min(segmentBytes, kAlignment));
    const uint64_t count = deviceBytes[i] > dataAt ? (deviceBytes[i] - dataAt) / segmentBytes : 0;
    layout.parts.push_back({dataAt, static_cast<uint32_t>(layout.segments), static_cast<uint32_t>(count)});
    layout.segments += count;
  }
  return layout;
}

}  // namespace

uint64_t LogLayout::areaAt(uint32_t area) const { return kTypeAt + area * areaPages * kPage; }

uint64_t LogLayout::usable() const {
  // Beside the reserve, two segments are open: the guests' and the cleaner's.
  const uint64_t spare = std::max(segments / 8, std::min(segments / 4, kBurst / segmentBytes));
  const uint64_t kept = kReserve + 2 + std::max<uint64_t>(spare, 1);
  return segments > kept ? (segments - kept) * segmentBlocks() : 0;
}

LogLayout logLayout(const uint64_t* deviceBytes, uint32_t devices, uint32_t blockSize, uint64_t segmentBytes) {
  if (segmentBytes) return divide(deviceBytes, devices, blockSize, segmentBytes);
  segmentBytes = kDefaultSegment;
  while (segmentBytes > kSmallestSegment &&
         divide(deviceBytes, devices, blockSize, segmentBytes).segments < kFewSegments)
    segmentBytes /= 2;
  return divide(deviceBytes, devices, blockSize, segmentBytes);
}

void Segments::init(sm_device* const* devices, const LogLayout& layout) {
  devices_.assign(devices, devices + layout.parts.size());
  parts_ = layout.parts;
  shift_ = static_cast<uint32_t>(std::countr_zero(layout.segmentBlocks()));
  blockShift_ = static_cast<uint32_t>(std::countr_zero(layout.blockSize));
  segments_.resize(layout.segments);
  for (size_t i = 0; i < parts_.size(); ++i)
    for (uint32_t j = 0; j < parts_[i].count; ++j) segments_[parts_[i].first + j].device = static_cast<uint16_t>(i);
  for (auto* list : {&free_, &freeing_, &clearing_}) list->reserve(segments_.size());
}

void Segments::fillFree(uint64_t seed) {
  random_ = seed;
  for (uint32_t i = 0; i < size(); ++i) {
    if (segments_[i].live) segments_[i].state = SegmentState::kFull;
    else release(i);
  }
}

uint64_t Segments::offsetOf(uint32_t place) const {
  const uint32_t index = indexOf(place);
  const LogLayout::Part& part = parts_[segments_[index].device];
  return part.dataAt + ((uint64_t{place} - (uint64_t{part.first} << shift_)) << blockShift_);
}

// splitmix64 (Vigna, public domain).
uint64_t Segments::random() {
  uint64_t value = random_ += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

uint32_t Segments::take() {
  if (free_.empty()) return kNoSegment;
  const uint32_t index = free_.back();
  free_.pop_back();
  segments_[index].state = SegmentState::kOpen;
  segments_[index].failed = false;
  return index;
}

void Segments::close(uint32_t index) {
  segments_[index].state = SegmentState::kFull;
  settle(index);
}

void Segments::dropLive(uint32_t place) {
  --of(place).live;
  settle(indexOf(place));
}

void Segments::dropWriter(uint32_t place) {
  --of(place).writers;
  settle(indexOf(place));
}

void Segments::settle(uint32_t index) {
  Segment& segment = segments_[index];
  if (segment.state != SegmentState::kFull || segment.live || segment.writers) return;
  segment.state = SegmentState::kFreeing;
  freeing_.push_back(index);
}

bool Segments::dropReader(Segment& segment) {
  if (--segment.readers || segment.state != SegmentState::kCleared) return false;
  --cleared_;
  release(static_cast<uint32_t>(&segment - segments_.data()));
  return true;
}

// Puts it at a random place of the list, which so stays shuffled.
void Segments::release(uint32_t index) {
  segments_[index].state = SegmentState::kFree;
  free_.push_back(index);
  std::swap(free_[random() % free_.size()], free_.back());
}

void Segments::end(bool durable) {
  for (const uint32_t index : clearing_) {
    Segment& segment = segments_[index];
    if (!durable) {
      segment.state = SegmentState::kFreeing;
      freeing_.push_back(index);
    } else if (segment.readers) {
      segment.state = SegmentState::kCleared;
      ++cleared_;
    } else {
      release(index);
    }
  }
  clearing_.clear();
}

}  // namespace sm
