// Payloads by content: a keyed hash of each block of 512 bytes, for those of live requests above and of children below
// that wait for their parents. A hash only proposes; bytes decide.
//
// Thread contract: guarded by the map's lock. Nodes are preallocated; each payload's hashes are in memory that grows to
// the largest payload of its slot and stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "correlate/evidence.h"

namespace sm {

// From a block's hash to the payloads that have such a block, each of them once.
class BlockIndex {
 public:
  explicit BlockIndex(uint32_t nodes);

  // False: out of room; then nothing was entered.
  bool enter(uint32_t id, const std::vector<uint64_t>& hashes);
  void leave(uint32_t id, const std::vector<uint64_t>& hashes);

  // f(id) for each entry of the hash.
  template <class F>
  void each(uint64_t hash, F&& f) const {
    for (uint32_t at = heads_[hash & mask_]; at != kNoSlot; at = nodes_[at].next) {
      if (nodes_[at].hash == hash) f(nodes_[at].id);
    }
  }

 private:
  // Of one block in so many payloads there is no telling whose it is, and a longer walk would delay I/O (rule 9).
  static constexpr int kMost = 16;
  struct Node {
    uint64_t hash = 0;
    uint32_t id = kNoSlot, next = kNoSlot;
  };
  std::vector<Node> nodes_;
  std::vector<uint32_t> heads_;
  uint64_t mask_;
  uint32_t free_ = kNoSlot, freeCount_;
};

class ContentIndex {
 public:
  // `contexts` and `children`: how many of each there may be.
  ContentIndex(uint32_t contexts, uint32_t children);

  // --- requests above
  void hash(uint32_t slot, const Context& context);  // before what follows
  bool enter(uint32_t slot) { return above_.enter(slot, hashesAbove_[slot]); }
  void leave(uint32_t slot) { above_.leave(slot, hashesAbove_[slot]); }

  // --- children below
  bool keep(uint32_t child, const std::byte* bytes, uint64_t length);
  void drop(uint32_t child) { below_.leave(child, hashesBelow_[child]); }

  // f(slot), perhaps more than once, for the requests entered that may have a block of these bytes.
  template <class F>
  void parents(const std::byte* bytes, uint64_t length, F&& f) {
    hashBlocks(bytes, length, &scratch_);
    eachRun(scratch_, [&](uint64_t hash) { above_.each(hash, f); });
  }
  // f(child), perhaps more than once, for the children kept that may have a block of a hashed request.
  template <class F>
  void children(uint32_t slot, F&& f) const {
    eachRun(hashesAbove_[slot], [&](uint64_t hash) { below_.each(hash, f); });
  }

  // Adds to the evidence's pieces where blocks of `bytes` stand in a hashed request: in runs, each of which begins with
  // a block that stands there once, or at its own position where the lengths are equal. Those of parents() just before,
  // or of a child kept.
  void locate(const std::byte* bytes, uint32_t slot, const Context& context, uint8_t owner, Evidence* evidence) {
    align(bytes, scratch_, slot, context, owner, evidence);
  }
  void locate(uint32_t child, const std::byte* bytes, uint32_t slot, const Context& context, uint8_t owner,
              Evidence* evidence) {
    align(bytes, hashesBelow_[child], slot, context, owner, evidence);
  }

 private:
  using Hashes = std::vector<uint64_t>;
  // f(hash), once for equal neighbours.
  template <class F>
  static void eachRun(const Hashes& hashes, F&& f) {
    for (size_t i = 0; i < hashes.size(); ++i) {
      if (i == 0 || hashes[i] != hashes[i - 1]) f(hashes[i]);
    }
  }
  void hashBlocks(const std::byte* bytes, uint64_t length, Hashes* out) const;
  void align(const std::byte* bytes, const Hashes& mine, uint32_t slot, const Context& context, uint8_t owner,
             Evidence* evidence) const;

  const uint64_t key_[2];
  BlockIndex above_, below_;
  std::vector<Hashes> hashesAbove_, hashesBelow_;  // by slot
  Hashes scratch_;
  std::vector<std::byte> gathered_;
};

}  // namespace sm
