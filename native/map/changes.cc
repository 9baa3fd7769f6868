#include "map/changes.h"

#include <algorithm>
#include <utility>

namespace sm {

namespace {

constexpr int kSlotBits = 18;
constexpr size_t kSlots = size_t{1} << kSlotBits;
static_assert(kSlots >= 2 * Changes::kMost);

}  // namespace

Changes::Changes(std::function<void()> many) : many_(std::move(many)), slots_(std::make_unique<uint32_t[]>(kSlots)) {
  parts_.reserve(kMost);
}

void Changes::mark(DiskKey disk, Range virt) {
  if (everything_ || virt.empty()) return;
  const uint64_t first = virt.begin >> kRegionBits, last = (virt.end - 1) >> kRegionBits;
  if (last - first < kLong) {
    for (uint64_t region = first; region <= last; ++region) markRegion(disk, region);
  } else if (parts_.empty() || parts_.back().disk != disk || parts_.back().virt.begin > virt.begin ||
             parts_.back().virt.end < virt.end) {
    append(disk, virt);
  }
}

void Changes::markRegion(DiskKey disk, uint64_t region) {
  const uint64_t begin = region << kRegionBits;
  const uint64_t hash = (region + uint64_t{disk} * 0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd;
  for (size_t slot = hash >> (64 - kSlotBits);; slot = (slot + 1) % kSlots) {
    if (slots_[slot] == 0) {
      append(disk, {begin, endOf(begin, uint64_t{1} << kRegionBits)});
      if (!everything_) slots_[slot] = static_cast<uint32_t>(parts_.size());
      return;
    }
    const Part& part = parts_[slots_[slot] - 1];
    if (part.disk == disk && part.virt.begin == begin) return;
  }
}

void Changes::append(DiskKey disk, Range virt) {
  if (parts_.size() == kMost) {
    everything_ = true;
    return;
  }
  parts_.push_back({disk, virt});
  if (parts_.size() == kMany && many_) many_();
}

void Changes::clear() {
  if (!parts_.empty()) std::fill_n(slots_.get(), kSlots, 0);
  parts_.clear();
  everything_ = false;
}

}  // namespace sm
