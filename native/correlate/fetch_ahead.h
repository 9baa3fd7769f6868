// What completions are going to touch of a large map, fetched while their requests are in flight: at random every one
// of them would wait for memory six times, for the way to a region, the region and its runs in each direction. The way
// is fetched when a request is issued, the region when some more have been issued and the way has come, the runs, which
// the region points to, when some more have.
//
// Thread contract: none; guarded by the map's lock.
#pragma once

#include <array>

#include "map/address_map.h"

namespace sm {

class FetchAhead {
 public:
  // Bytes of `disk` from `offset` on are asked for or changed soon; so are, unless its device is kNoKey, those of
  // `place`. `map` is the same every time.
  void expect(const AddressMap& map, DiskKey disk, uint64_t offset, Place place) {
    if (!map.isLarge()) return;
    map.fetchPaths(disk, offset, place);
    const uint32_t now = next_++;
    if (const Expected& then = expected_[(now - kBetween) % kKept]; then.disk != kNoKey) {
      map.fetchRegions(then.disk, then.offset, then.place);
    }
    Expected& first = expected_[now % kKept];
    if (first.disk != kNoKey) map.fetchRuns(first.disk, first.offset, first.place);
    first = {disk, offset, place};
  }

 private:
  static constexpr uint32_t kBetween = 4;  // requests from one step to the next: they take as long as memory does
  static constexpr uint32_t kKept = 2 * kBetween;
  struct Expected {
    DiskKey disk = kNoKey;
    uint64_t offset = 0;
    Place place;
  };
  std::array<Expected, kKept> expected_;
  uint32_t next_ = 0;
};

}  // namespace sm
