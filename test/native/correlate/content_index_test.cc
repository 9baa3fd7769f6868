// By content: which blocks of a child stand where in its parent, and whose they are.
#include "correlate/content_index.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <vector>

namespace {

using namespace sm;
using Bytes = std::vector<std::byte>;

constexpr uint64_t kBlock = kCompared;

// Blocks by number: equal numbers, equal bytes. 0 is zeroes.
Bytes bytesOf(const std::vector<int>& blocks) {
  Bytes out(blocks.size() * kBlock);
  for (size_t i = 0; i < blocks.size(); ++i) {
    std::mt19937_64 random(static_cast<uint64_t>(blocks[i]));
    for (uint64_t at = 0; blocks[i] != 0 && at < kBlock; at += 8) {
      const uint64_t word = random();
      std::memcpy(out.data() + i * kBlock + at, &word, 8);
    }
  }
  return out;
}

struct Above {
  explicit Above(const std::vector<int>& blocks) : bytes(bytesOf(blocks)), iov{bytes.data(), bytes.size()} {
    context.virt = {0, bytes.size()};
    context.iov = &iov;
    context.iovCount = 1;
  }
  Bytes bytes;
  iovec iov;
  Context context;
};

// (block of the child, block of the parent) for each that was found.
std::set<std::pair<uint64_t, uint64_t>> located(const std::vector<int>& child, const std::vector<int>& parent) {
  ContentIndex index(4, 4);
  Above above(parent);
  index.hash(1, above.context);
  REQUIRE(index.enter(1));
  const Bytes bytes = bytesOf(child);
  bool found = false;
  index.parents(bytes.data(), bytes.size(), [&](uint32_t slot) { found = slot == 1; });
  Evidence evidence;
  if (found) index.locate(bytes.data(), 1, above.context, 2, &evidence);
  std::set<std::pair<uint64_t, uint64_t>> out;
  for (int i = 0; i < evidence.pieceCount; ++i) {
    const Piece& piece = evidence.pieces[i];
    CHECK(piece.owner == 2);
    for (uint64_t at = 0; at < piece.length; at += kBlock) {
      out.insert({(piece.from + at) / kBlock, (piece.at + at) / kBlock});
      CHECK(std::memcmp(bytes.data() + piece.from + at, above.bytes.data() + piece.at + at, kBlock) == 0);
    }
  }
  return out;
}

TEST_CASE("blocks are found where they stand, in runs that begin with one that stands there once") {
  using Set = std::set<std::pair<uint64_t, uint64_t>>;
  CHECK(located({1, 2, 3}, {1, 2, 3}) == Set{{0, 0}, {1, 1}, {2, 2}});
  CHECK(located({2, 3}, {1, 2, 3, 4}) == Set{{0, 1}, {1, 2}});
  CHECK(located({9, 2, 8}, {1, 2, 3}) == Set{{1, 1}});
  CHECK(located({7, 8}, {1, 2, 3}) == Set{});
  // Zeroes, and other repetitions, are placed by their neighbours on either side.
  CHECK(located({0, 0, 5, 0}, {1, 0, 0, 5, 0}) == Set{{0, 1}, {1, 2}, {2, 3}, {3, 4}});
  CHECK(located({0, 0}, {0, 0, 0}) == Set{});
  CHECK(located({0, 0}, {0, 0}) == Set{{0, 0}, {1, 1}});
  CHECK(located({3, 1, 2}, {1, 2, 3}) == Set{{0, 2}, {1, 0}, {2, 1}});
}

TEST_CASE("an index holds what was entered until it leaves, whatever the order") {
  ContentIndex index(64, 64);
  std::mt19937_64 random(3);
  std::vector<std::unique_ptr<Above>> live(64);
  for (int step = 0; step < 5000; ++step) {
    const uint32_t slot = static_cast<uint32_t>(random() % 64);
    if (live[slot]) {
      index.leave(slot);
      live[slot].reset();
    } else {
      std::vector<int> blocks;
      for (uint64_t i = 0; i < 1 + random() % 6; ++i) blocks.push_back(static_cast<int>(random() % 500));
      live[slot] = std::make_unique<Above>(blocks);
      index.hash(slot, live[slot]->context);
      REQUIRE(index.enter(slot));
    }
    const Bytes wanted = bytesOf({static_cast<int>(random() % 500)});
    std::set<uint32_t> told, expected;
    index.parents(wanted.data(), kBlock, [&](uint32_t each) { told.insert(each); });
    for (uint32_t i = 0; i < 64; ++i) {
      for (uint64_t at = 0; live[i] && at < live[i]->bytes.size(); at += kBlock) {
        if (std::memcmp(live[i]->bytes.data() + at, wanted.data(), kBlock) == 0) expected.insert(i);
      }
    }
    REQUIRE(std::includes(expected.begin(), expected.end(), told.begin(), told.end()));
    if (expected.size() < 8) REQUIRE(told == expected);
  }
}

TEST_CASE("children are found by the blocks of a request that completes") {
  ContentIndex index(4, 8);
  const Bytes first = bytesOf({4, 5}), second = bytesOf({6}), third = bytesOf({5});
  REQUIRE(index.keep(0, first.data(), first.size()));
  REQUIRE(index.keep(1, second.data(), second.size()));
  REQUIRE(index.keep(2, third.data(), third.size()));
  Above above({3, 4, 5});
  index.hash(0, above.context);
  auto children = [&] {
    std::set<uint32_t> found;
    index.children(0, [&](uint32_t child) { found.insert(child); });
    return found;
  };
  CHECK(children() == std::set<uint32_t>{0, 2});
  Evidence evidence;
  index.locate(0, first.data(), 0, above.context, 0, &evidence);
  REQUIRE(evidence.pieceCount == 1);
  CHECK(evidence.pieces[0].at == kBlock);
  CHECK(evidence.pieces[0].length == 2 * kBlock);
  index.drop(0);
  CHECK(children() == std::set<uint32_t>{2});
}

TEST_CASE("an index that is full enters nothing, and has room again") {
  BlockIndex index(8);
  const std::vector<uint64_t> five{1, 2, 3, 4, 5}, four{6, 7, 8, 9};
  REQUIRE(index.enter(0, five));
  CHECK_FALSE(index.enter(1, four));
  int found = 0;
  index.each(6, [&](uint32_t) { ++found; });
  CHECK(found == 0);
  index.leave(0, five);
  CHECK(index.enter(1, four));
  index.each(6, [&](uint32_t id) { found += id == 1; });
  CHECK(found == 1);
}

}  // namespace
