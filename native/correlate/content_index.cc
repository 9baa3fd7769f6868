#include "correlate/content_index.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>

namespace sm {

namespace {

uint64_t randomWord() {
  std::random_device random;
  return (static_cast<uint64_t>(random()) << 32) | random();
}

// 64 × 64 bits multiplied, the halves folded (as wyhash does it).
uint64_t fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t hashBlock(const std::byte* block, const uint64_t (&key)[2]) {
  uint64_t lanes[4] = {key[0], key[1], ~key[0], ~key[1]};
  for (uint64_t at = 0; at < kCompared; at += 64) {
    for (int lane = 0; lane < 4; ++lane) {
      uint64_t words[2];
      std::memcpy(words, block + at + 16 * lane, sizeof words);
      lanes[lane] = fold(words[0] ^ key[0], words[1] ^ lanes[lane]);
    }
  }
  return fold(fold(lanes[0], lanes[1] ^ key[1]), fold(lanes[2] ^ key[0], lanes[3]) ^ key[1]);
}

constexpr size_t kLooks = 1 << 16;  // at most, for one child and parent: the time on the path stays bounded (rule 9)

}  // namespace

BlockIndex::BlockIndex(uint32_t nodes)
    : nodes_(nodes), heads_(std::bit_ceil(2ull * nodes), kNoSlot), mask_(heads_.size() - 1), freeCount_(nodes) {
  for (Node& node : nodes_) {
    node.next = free_;
    free_ = static_cast<uint32_t>(&node - nodes_.data());
  }
}

bool BlockIndex::enter(uint32_t id, const std::vector<uint64_t>& hashes) {
  if (hashes.size() > freeCount_) return false;
  for (uint64_t hash : hashes) {
    uint32_t& head = heads_[hash & mask_];
    int equal = 0;
    bool mine = false;
    for (uint32_t at = head; at != kNoSlot && equal < kMost && !mine; at = nodes_[at].next) {
      if (nodes_[at].hash != hash) continue;
      mine = nodes_[at].id == id;
      ++equal;
    }
    if (mine || equal == kMost) continue;
    const uint32_t at = free_;
    free_ = nodes_[at].next;
    --freeCount_;
    nodes_[at] = {hash, id, head};
    head = at;
  }
  return true;
}

void BlockIndex::leave(uint32_t id, const std::vector<uint64_t>& hashes) {
  for (uint64_t hash : hashes) {
    for (uint32_t* link = &heads_[hash & mask_]; *link != kNoSlot; link = &nodes_[*link].next) {
      const uint32_t at = *link;
      if (nodes_[at].id != id || nodes_[at].hash != hash) continue;
      *link = nodes_[at].next;
      nodes_[at].next = free_;
      free_ = at;
      ++freeCount_;
      break;
    }
  }
}

ContentIndex::ContentIndex(uint32_t contexts, uint32_t children)
    : key_{randomWord() | 1, randomWord() | 1},
      above_(std::max<uint32_t>(8 * contexts, 1 << 14)),
      below_(std::max<uint32_t>(8 * children, 1 << 14)),
      hashesAbove_(contexts),
      hashesBelow_(children) {}

void ContentIndex::hashBlocks(const std::byte* bytes, uint64_t length, Hashes* out) const {
  out->clear();
  for (uint64_t at = 0; at + kCompared <= length; at += kCompared) out->push_back(hashBlock(bytes + at, key_));
}

void ContentIndex::hash(uint32_t slot, const Context& context) {
  Hashes& hashes = hashesAbove_[slot];
  if (context.iovCount == 1) {
    return hashBlocks(static_cast<const std::byte*>(context.iov[0].iov_base), context.iov[0].iov_len, &hashes);
  }
  uint64_t length = 0;
  for (uint32_t i = 0; i < context.iovCount; ++i) length += context.iov[i].iov_len;
  gathered_.resize(std::max<size_t>(gathered_.size(), length));
  gather(context.iov, context.iovCount, gathered_.data());
  hashBlocks(gathered_.data(), length, &hashes);
}

bool ContentIndex::keep(uint32_t child, const std::byte* bytes, uint64_t length) {
  hashBlocks(bytes, length, &hashesBelow_[child]);
  return below_.enter(child, hashesBelow_[child]);
}

void ContentIndex::align(const std::byte* bytes, const Hashes& mine, uint32_t slot, const Context& context,
                         uint8_t owner, Evidence* evidence) const {
  const Hashes& theirs = hashesAbove_[slot];
  const size_t none = theirs.size();
  auto equal = [&](size_t block, size_t at) {
    return mine[block] == theirs[at] &&
           equalAt(context.iov, context.iovCount, at * kCompared, bytes + block * kCompared, kCompared);
  };
  // Where the block stands: `none` where that is not clear.
  size_t looks = kLooks;
  auto start = [&](size_t block) {
    if (mine.size() == theirs.size() && equal(block, block)) return block;
    if (looks < theirs.size()) return none;
    looks -= theirs.size();
    const auto found = std::find(theirs.begin(), theirs.end(), mine[block]);
    if (found == theirs.end() || std::find(found + 1, theirs.end(), mine[block]) != theirs.end()) return none;
    const size_t at = static_cast<size_t>(found - theirs.begin());
    return equal(block, at) ? at : none;
  };
  size_t done = 0;  // blocks before this one are in a run, or were passed
  for (size_t block = 0; block < mine.size();) {
    size_t at = start(block);
    if (at == none) {
      ++block;
      continue;
    }
    size_t first = block;
    for (; first > done && at > 0 && equal(first - 1, at - 1); --first) --at;
    size_t length = block - first + 1;
    while (first + length < mine.size() && at + length < theirs.size() && equal(first + length, at + length)) ++length;
    evidence->addPiece({first * kCompared, at * kCompared, length * kCompared, owner});
    block = done = first + length;
  }
}

}  // namespace sm
