#include "correlate/evidence.h"

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <tuple>
#include <vector>

namespace {

using namespace sm;

TEST_CASE("taints are a set of bytes, until there are too many parts") {
  std::mt19937_64 random(5);
  int overflows = 0;
  for (int world = 0; world < 3000; ++world) {
    Taints taints;
    std::set<uint64_t> plain;
    bool overflowed = false;
    for (int step = 0; step < 12; ++step) {
      const uint64_t begin = random() % 60, end = begin + 1 + random() % 6;
      const bool fits = taints.add({begin, end});
      for (uint64_t i = begin; i < end; ++i) plain.insert(i);
      int parts = 0;
      for (uint64_t i : plain) parts += !plain.contains(i - 1);
      if (!overflowed) {
        CHECK(fits == (parts <= 6));
        if (!fits) overflowed = true, ++overflows;
      }
      CHECK(taints.overflowed() == overflowed);
      CHECK_FALSE(taints.empty());
      const uint64_t from = random() % 60;
      const Range range{from, from + random() % 20};
      std::vector<Range> clean;
      taints.clean(range, &clean);
      std::set<uint64_t> told;
      uint64_t last = 0;
      for (Range part : clean) {
        CHECK(part.begin >= last);
        CHECK_FALSE(part.empty());
        for (uint64_t i = part.begin; i < part.end; ++i) told.insert(i);
        last = part.end;
      }
      std::set<uint64_t> expected;
      for (uint64_t i = range.begin; i < range.end; ++i) {
        if (!overflowed && !plain.contains(i)) expected.insert(i);
      }
      REQUIRE(told == expected);
      CHECK(taints.bytesOf(range) == range.length() - expected.size());
    }
    taints.clear();
    CHECK(taints.empty());
  }
  CHECK(overflows > 50);
}

constexpr uint64_t kBlock = 512;

// Memory of numbered blocks, each of its own content; requests over them.
struct Memory {
  std::vector<std::byte> bytes = std::vector<std::byte>(64 * kBlock);
  Memory() {
    for (uint64_t i = 0; i < 64; ++i) fill(i, i + 1);
  }
  std::byte* at(uint64_t block) { return bytes.data() + block * kBlock; }
  void fill(uint64_t block, uint64_t content) { std::memset(at(block), static_cast<int>(content), kBlock); }
  std::vector<iovec> iov(std::initializer_list<std::pair<uint64_t, uint64_t>> runs) {
    std::vector<iovec> out;
    for (auto [first, blocks] : runs) out.push_back({at(first), blocks * kBlock});
    return out;
  }
};

Context contextOf(const std::vector<iovec>& iov) {
  Context context;
  context.iov = iov.data();
  context.iovCount = static_cast<uint32_t>(iov.size());
  uint64_t length = 0;
  for (const iovec& each : iov) length += each.iov_len;
  context.virt = {0, length};
  context.aliased = overlapsItself(context.iov, context.iovCount);
  return context;
}

sm_request requestOf(const std::vector<iovec>& iov) {
  sm_request request{};
  request.iov = iov.data();
  request.iov_count = static_cast<uint32_t>(iov.size());
  return request;
}

using Triple = std::tuple<uint64_t, uint64_t, uint64_t>;  // from, at, length; in blocks
std::vector<Triple> piecesOf(const Evidence& evidence) {
  std::vector<Triple> out;
  for (int i = 0; i < evidence.pieceCount; ++i) {
    const Piece& piece = evidence.pieces[i];
    out.push_back({piece.from / kBlock, piece.at / kBlock, piece.length / kBlock});
  }
  return out;
}

TEST_CASE("an address inside the parent's buffer tells the position") {
  Memory memory;
  const auto parent = memory.iov({{10, 4}, {2, 2}});  // blocks 10 11 12 13 2 3
  const Context context = contextOf(parent);
  auto locate = [&](const std::vector<iovec>& child, std::vector<Triple> expected) {
    Evidence evidence;
    const sm_request request = requestOf(child);
    CHECK(locateByAddress(request.iov, request.iov_count, context, &evidence) == !expected.empty());
    CHECK(piecesOf(evidence) == expected);
  };
  locate(memory.iov({{10, 4}, {2, 2}}), {{0, 0, 6}});              // all of it
  locate(memory.iov({{12, 2}}), {{0, 2, 2}});                      // a piece
  locate(memory.iov({{30, 1}, {2, 2}, {31, 1}}), {{1, 4, 2}});     // among others
  locate(memory.iov({{13, 1}, {12, 1}}), {{0, 3, 1}, {1, 2, 1}});  // turned round
  locate(memory.iov({{9, 3}}), {{1, 0, 2}});                       // begins before it
  locate(memory.iov({{30, 4}}), {});                               // elsewhere
  locate(memory.iov({{13, 1}, {30, 1}, {2, 1}}), {{0, 3, 1}, {2, 4, 1}});
}

TEST_CASE("a parent that has a block twice is not located by address, but by equal lengths") {
  Memory memory;
  const auto parent = memory.iov({{10, 2}, {10, 1}});
  const Context context = contextOf(parent);
  REQUIRE(context.aliased);
  Evidence evidence;
  const sm_request request = requestOf(parent);
  CHECK_FALSE(locateByAddress(request.iov, request.iov_count, context, &evidence));
  std::vector<std::byte> bytes(3 * kBlock);
  gather(parent.data(), 2, bytes.data());
  locateByContent(bytes.data(), bytes.size(), context, &evidence);
  CHECK(piecesOf(evidence) == std::vector<Triple>{{0, 0, 3}});
}

TEST_CASE("segments that overlap are told from those that adjoin") {
  Memory memory;
  auto overlaps = [&](const std::vector<iovec>& iov) {
    return overlapsItself(iov.data(), static_cast<uint32_t>(iov.size()));
  };
  CHECK_FALSE(overlaps({}));
  CHECK_FALSE(overlaps(memory.iov({{1, 3}})));
  CHECK_FALSE(overlaps(memory.iov({{1, 3}, {4, 1}, {0, 1}})));
  CHECK(overlaps(memory.iov({{1, 3}, {3, 1}})));
  CHECK(overlaps(memory.iov({{5, 1}, {9, 1}, {5, 1}})));
}

TEST_CASE("content tells the position where the lengths are equal, or the block stands once") {
  Memory memory;
  memory.fill(12, 99);
  memory.fill(13, 99);
  const auto parent = memory.iov({{10, 4}});  // contents 11 12 99 99
  const Context context = contextOf(parent);
  auto locate = [&](std::initializer_list<int> contents, std::vector<Triple> expected) {
    std::vector<std::byte> bytes;
    for (int content : contents) bytes.insert(bytes.end(), kBlock, static_cast<std::byte>(content));
    Evidence evidence;
    locateByContent(bytes.data(), bytes.size(), context, &evidence);
    CHECK(piecesOf(evidence) == expected);
  };
  locate({11, 12, 99, 99}, {{0, 0, 4}});
  locate({11, 50, 99, 99}, {{0, 0, 1}, {2, 2, 2}});  // equal length: block by block
  locate({12, 11, 99, 99}, {{2, 2, 2}});             // and not elsewhere
  locate({12}, {{0, 1, 1}});
  locate({99}, {});  // stands twice
  locate({50, 12, 51, 11, 99}, {{1, 1, 1}, {3, 0, 1}});
  locate({12, 12}, {});  // of two that are alike, only one is the parent's
  locate({12, 11, 12}, {{1, 0, 1}});
}

TEST_CASE("pieces that continue each other are one, and there are at most eight") {
  Evidence evidence;
  for (uint64_t i = 0; i < 20; ++i) CHECK(evidence.addPiece({i, 100 + i, 1}));
  CHECK(evidence.pieceCount == 1);
  for (uint64_t i = 1; i < 8; ++i) CHECK(evidence.addPiece({1000 * i, 0, 1}));
  CHECK_FALSE(evidence.addPiece({9999, 0, 1}));
  CHECK(evidence.addPiece({7001, 1, 1}));  // continues the last
  CHECK(evidence.pieceCount == Evidence::kPieces);
}

TEST_CASE("a part of scattered memory is compared where it stands") {
  Memory memory;
  const auto iov = memory.iov({{5, 1}, {9, 2}, {1, 1}});
  std::vector<std::byte> bytes(4 * kBlock);
  gather(iov.data(), 3, bytes.data());
  for (uint64_t at : {0ul, 100ul, 511ul, 512ul, 700ul, 1535ul}) {
    CHECK(equalAt(iov.data(), 3, at, bytes.data() + at, 512));
    CHECK_FALSE(equalAt(iov.data(), 3, at, bytes.data() + at + 1, 512));
  }
  CHECK_FALSE(equalAt(iov.data(), 3, 1900, bytes.data() + 1900, 512));  // runs over the end
}

TEST_CASE("slots are handed out once each, and again when given back") {
  Slots<int> slots(3);
  const uint32_t a = slots.take(), b = slots.take(), c = slots.take();
  CHECK(std::set<uint32_t>{a, b, c}.size() == 3);
  CHECK(slots.take() == kNoSlot);
  slots[b] = 7;
  slots.give(b);
  CHECK(slots.take() == b);
  CHECK(slots.take() == kNoSlot);
  CHECK(slots.made() == 3);
}

}  // namespace
