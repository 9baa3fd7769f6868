// What is kept for each request in flight: the context of one above, the evidence of one below.
//
// Thread contract: none; guarded by the map's lock. Slots are preallocated and handed out last in, first out, so that
// the few in use stay in the cache.
#pragma once

#include <stratamap/request.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "map/types.h"

namespace sm {

constexpr uint32_t kNoSlot = UINT32_MAX;
constexpr uint64_t kCompared = 512;  // bytes compared at a time: the smallest unit of any device

// Parts of a range that teach nothing. A few exactly; beyond that, everything.
class Taints {
 public:
  void clear() { count_ = 0, overflowed_ = false; }
  // Returns false when the exact parts no longer fit: then all is tainted.
  bool add(Range part);
  bool overflowed() const { return overflowed_; }
  bool empty() const { return count_ == 0 && !overflowed_; }
  // Appends what of `range` is not tainted.
  void clean(Range range, std::vector<Range>* out) const {
    if (empty()) {
      if (!range.empty()) out->push_back(range);
    } else {
      cleanParts(range, out);
    }
  }
  // How many bytes of `range` are tainted.
  uint64_t bytesOf(Range range) const;

 private:
  static constexpr int kParts = 6;
  void cleanParts(Range range, std::vector<Range>* out) const;
  uint8_t count_ = 0;
  bool overflowed_ = false;
  Range parts_[kParts];  // disjoint, in order
};

// Bytes [from, from + length) of a child are bytes [at, at + length) of its owner, a context.
struct Piece {
  uint64_t from, at, length;
  uint8_t owner = 0;  // index of the evidence's owners
};

// Of both, what every request needs comes first, in the order of its use, and what few need last: the first lines of
// a slot are all that most requests touch.
struct Context {
  static constexpr int kMaxIov = SM_IOV_MAX;
  bool live = false;
  bool recorded = false;      // its children can be found
  bool learns = false;        // submitted after learning had begun
  bool lostEvidence = false;  // a child for which there was no room
  bool sharedBuffer = false;  // its buffer overlapped another live request's, or itself
  bool tracked = false;       // its buffer is among the live ones
  bool aliased = false;       // its buffer has some memory twice: an address does not tell the position
  bool predicted = false;     // it goes without a tag to where the map says (predict.cc)
  bool confirmed = false;     // and the map is right
  bool adrift = false;        // its disk is no longer watched: it teaches and reports nothing
  uint8_t op = 0;
  uint32_t disk = kNoKey;
  uint32_t iovCount = 0;
  Range virt;
  const iovec* iov = nullptr;                     // the request's, which outlives the context
  uint32_t virtPosition = 0, bufferPosition = 0;  // in the sets of active ranges
  uint32_t firstEvidence = kNoSlot, lastEvidence = kNoSlot, evidenceCount = 0;
  uint32_t older = kNoSlot, newer = kNoSlot;                   // of those in flight, by stamp
  uint64_t stamp = 0;                                          // the order of submissions and issues
  uint64_t submitted = 0, firstIssued = 0, lastCompleted = 0;  // ns
  uint64_t key = 0;                                            // see Association::key; in `ascend` alone
  uint32_t firstExpectation = kNoSlot;                         // where it is predicted
  Taints taints;                                               // of virt
};

struct Evidence {
  static constexpr int kPieces = 8;
  static constexpr int kOwners = 4;  // more than one by content alone
  static constexpr int kMemory = SM_IOV_MAX;
  struct Owner {
    uint32_t context = kNoSlot;  // kNoSlot: it has ended
    uint32_t next = kNoSlot;     // of the same context, in order of attribution
  };

  uint8_t op = 0;
  bool done = false, ok = false;
  bool located = false;    // pieces hold the positions
  bool unfit = false;      // teaches nothing
  bool adrift = false;     // its device is no longer watched: it is in no set
  bool demoted = false;    // what the map held of phys has been made stale for this modification
  bool pending = false;    // no owner has been looked for yet, or others may still turn up
  bool ambiguous = false;  // it might be several contexts' and there is no telling whose
  uint8_t pieceCount = 0, ownerCount = 0, liveOwners = 0, memoryCount = 0;
  uint32_t device = kNoKey;
  uint32_t position = 0;  // in the device's active ranges
  Range phys;
  uint64_t stamp = 0;
  std::unique_ptr<std::byte[]> shadow;  // what it carried, phys.length() bytes
  Piece pieces[kPieces];
  Owner owners[kOwners];
  uint64_t issuedAt = 0, landedAt = 0;                      // ns
  uint32_t olderPending = kNoSlot, newerPending = kNoSlot;  // by stamp
  uint64_t key = 0;                                         // see Association::key
  uint64_t bufferOf = 0;  // while pending: the stamp of the one live request whose buffer that is in; 0: nobody's
  Taints taints;          // of phys
  // Where its bytes were in memory, neighbouring segments joined.
  iovec memory[kMemory];

  // False when there are too many pieces; those that are left out resolve to nothing.
  bool addPiece(Piece piece) {
    if (pieceCount > 0) {
      Piece& last = pieces[pieceCount - 1];
      if (last.owner == piece.owner && last.from + last.length == piece.from && last.at + last.length == piece.at) {
        last.length += piece.length;
        return true;
      }
    }
    if (pieceCount == kPieces) return false;
    pieces[pieceCount++] = piece;
    return true;
  }
  void keepMemory(const iovec* iov, uint32_t count);
  // Index of an owner, or -1.
  int ownerIndex(uint32_t context) const {
    for (int i = 0; i < ownerCount; ++i)
      if (owners[i].context == context) return i;
    return -1;
  }
};

// Slots by number, last in, first out. Memory that was never needed is never touched.
template <class T>
class Slots {
 public:
  explicit Slots(uint32_t count)
      : slots_(std::allocator<T>().allocate(count)), free_(std::allocator<uint32_t>().allocate(count)), count_(count) {}
  ~Slots() {
    for (uint32_t i = 0; i < made_; ++i) slots_[i].~T();
    std::allocator<T>().deallocate(slots_, count_);
    std::allocator<uint32_t>().deallocate(free_, count_);
  }
  Slots(const Slots&) = delete;
  Slots& operator=(const Slots&) = delete;

  uint32_t take() {
    if (freeCount_ > 0) return free_[--freeCount_];
    if (made_ == count_) return kNoSlot;
    new (&slots_[made_]) T();
    return made_++;
  }
  void give(uint32_t slot) { free_[freeCount_++] = slot; }
  T& operator[](uint32_t slot) { return slots_[slot]; }
  const T& operator[](uint32_t slot) const { return slots_[slot]; }
  uint32_t made() const { return made_; }  // slots 0 … made - 1 have been in use

 private:
  T* const slots_;
  uint32_t* const free_;
  const uint32_t count_;
  uint32_t made_ = 0, freeCount_ = 0;
};

// --- rule 6: what counts as carrying a byte

// Finds by address which parts of the child's memory are the parent's. Returns whether any is.
bool locateByAddress(const iovec* child, uint32_t count, const Context& parent, Evidence* evidence);

// Finds by content which blocks of `bytes` (a child's, `length` long) stand where in the parent's memory: the same
// position where the lengths are equal, else wherever the block stands exactly once.
void locateByContent(const std::byte* bytes, uint64_t length, const Context& parent, Evidence* evidence);

inline Range rangeOf(const iovec& segment) {
  const uint64_t base = reinterpret_cast<uint64_t>(segment.iov_base);
  return {base, base + segment.iov_len};
}

// Whether some memory is there twice, or in both.
bool overlapsItself(const iovec* iov, uint32_t count);
bool overlap(const iovec* a, uint32_t countA, const iovec* b, uint32_t countB);
// The memory between the lowest and the highest byte.
inline Range hullOf(const iovec* iov, uint32_t count) {
  if (count == 0) return {};
  Range hull = rangeOf(iov[0]);
  for (uint32_t i = 1; i < count; ++i) {
    const Range segment = rangeOf(iov[i]);
    hull = {std::min(hull.begin, segment.begin), std::max(hull.end, segment.end)};
  }
  return hull;
}

// Copies a request's memory to one piece, and compares a part of it.
void gather(const iovec* iov, uint32_t count, std::byte* out);
bool equalAt(const iovec* iov, uint32_t count, uint64_t at, const std::byte* bytes, uint64_t length);

}  // namespace sm
