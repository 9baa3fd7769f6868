// What the kernel's block layer tells, where it stands in for the dispatch tables: starts, merges and issues of I/O on
// whole block devices, in the order of time, and only that. Lengths and order take the place of addresses: rule 6, "in
// the kernel path lengths that sum up count under its own rule".
//
// The exact rule: of one tag on one device the pieces that were started (and bios merged into them), in the order of
// time, are the request's bytes in ascending order, if their lengths add up to its length. On the device beneath a loop
// device they are the bytes of what was issued on the upper one, in the order in which it was issued, as far as that
// is the order in which the driver got it: of two threads that issue at once it is not known. An attempt that the
// kernel gave up, and began again from the start, is passed over. What does not add up teaches nothing and is counted.
//
// Nobody tells reliably when something that is not ours has ended. A modification without a tag is a stray: from its
// start on, no other of the same bytes teaches, until the device was seen to have none in flight.
//
// Thread contract: none; guarded by the map's lock. Invariants: a trail holds the steps of one tag, from its marking to
// its completion.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "correlate/evidence.h"
#include "correlate/expected_write.h"
#include "correlate/freshness.h"
#include "correlate/sample.h"
#include "map/active_ranges.h"
#include "map/address_map.h"
#include "map/ordered_extents.h"
#include "map/types.h"

namespace sm {

struct BlockIo {
  // kQueue, of discards alone: several may become one request, of which only the first is told.
  enum Kind : uint8_t { kStart, kBackMerge, kFrontMerge, kIssue, kQueue };
  Kind kind = kStart;
  uint8_t op = 0;  // enum sm_op
  uint16_t ioprio = 0;
  DeviceKey device = kNoKey;
  Range phys;           // bytes of the whole device
  uint64_t time = 0;    // ns of CLOCK_MONOTONIC
  uint32_t thread = 0;  // that did it
};

struct ObservedCounters {
  uint64_t composed = 0;   // requests whose pieces added up, on every level
  uint64_t missing = 0;    // requests with a level on which bytes were missing
  uint64_t excess = 0;     // requests with a level on which there were more bytes than asked for
  uint64_t crossing = 0;   // requests with a piece below that lay across two issues above it
  uint64_t unordered = 0;  // requests that several threads issued, parts of them in an order that is not known
  uint64_t foreign = 0;    // pieces of another operation, or on another device, than their request's
  uint64_t predicted = 0;  // requests without a tag of their own: reads, and writes that went where the map said
  uint64_t astray = 0;     // writes of them that cannot be said to have gone there
};

struct Observed {
  static constexpr size_t kMostStrays = 1 << 14;  // ranges for each device

  // The end of what is not ours, in ticks of 2^24 ns (17 ms) so that neighbours join.
  struct Tick {
    uint64_t tick = 0;
    static Tick of(uint64_t time) { return {time >> 24}; }
    Tick advanced(uint64_t) const { return *this; }
    bool operator==(const Tick&) const = default;
  };
  struct Step {
    uint64_t time;
    Range phys;
    DeviceKey device;
    uint32_t evidence;  // kNoSlot: it was issued
    uint32_t thread;
    uint64_t passed = UINT64_MAX;  // when that thread was seen to do something else: the driver had it by then
  };
  // What a thread did last, where that was an issue.
  struct LastIssue {
    uint32_t thread = 0;
    uint16_t tag = 0;
    uint32_t step = 0;
    uint64_t trail = 0;  // 0: nothing
  };
  static constexpr size_t kThreads = 64;  // by hash; who is forgotten has not passed

  using Trail = std::vector<Step>;
  // Bytes [phys) of a device are the request's from `at` on; kNowhere: which they are is not known.
  static constexpr uint64_t kNowhere = UINT64_MAX / 2;
  struct Laid {
    Range phys;
    uint64_t at;
    uint64_t from(uint64_t bytes) const { return at == kNowhere ? kNowhere : at + bytes; }
  };
  struct Chain {
    std::vector<DeviceKey> devices;  // top first
    size_t trusted = 0;              // of them, from the top
  };
  struct Strays {
    OrderedExtents<Tick> ranges;
    bool everywhere = false;  // there were too many
    uint64_t last = 0;        // ns: when the last one started
  };

  std::vector<Trail> trails;           // by tag
  std::vector<uint64_t> trailNumbers;  // by tag: of its trail, from 1
  uint64_t trailCount = 0;
  std::array<LastIssue, kThreads> lastIssues;
  std::vector<Chain> chains;   // by disk
  std::vector<Strays> strays;  // by device

  // What writes of the known priority are expected to do (predict.cc).
  struct Expectation {
    bool doubted = false;
    DeviceKey device = kNoKey;
    Range phys;
    uint64_t seen = 0;  // bytes: how much of it was told to have come
    sm_expected_word* slot = nullptr;
    sm_expected_word word = 0;  // the kernel's, or 0: each start is told
    uint32_t position = 0;      // in `expected`
    uint32_t next = kNoSlot;    // of the same request
  };
  sm_expected_word* words = nullptr;  // that the kernel knows of as well
  uint64_t halfAge = 0;               // ns; 0: every request is tagged
  uint64_t half = 0;                  // which of them it is
  Slots<Expectation> expectations{1 << 20};
  std::vector<ActiveRanges> expected;  // by device
  std::vector<Freshness> freshness;    // by disk
  std::vector<Mapping> places;         // scratch
  std::vector<uint32_t> matched;       // scratch

  ObservedCounters counters;
  Sample sample;
  // Scratch.
  std::vector<Step> starts, issues, startedThere, issuedThere;
  std::vector<Laid> upper, lower;
};

}  // namespace sm
