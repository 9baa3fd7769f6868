#include <doctest/doctest.h>

#include <set>
#include <vector>

#include "disks/workload_verify.h"

using sm::VerifyPattern;
using sm::VerifyTable;

TEST_CASE("no two blocks of a verifying workload are equal, and each names itself") {
  const VerifyPattern pattern("vm-1", "vda", 7), other("vm-2", "vda", 7), later("vm-1", "vda", 8);
  std::set<std::string> seen;
  const auto add = [&](const VerifyPattern& from, uint64_t offset, uint64_t generation) {
    std::vector<uint8_t> data(1024);
    from.fill(data.data(), offset, data.size(), generation);
    seen.insert(std::string(data.begin(), data.begin() + 512));
    seen.insert(std::string(data.begin() + 512, data.end()));
    uint64_t first = 0;
    CHECK(from.compare(data.data(), offset, data.size(), generation, &first) == 0);
    CHECK(from.compare(data.data(), offset, data.size(), generation + 1, &first) == 2);
    CHECK(first == offset);
    data[600] ^= 1;
    CHECK(from.compare(data.data(), offset, data.size(), generation, &first) == 1);
    CHECK(first == offset + 512);
  };
  add(pattern, 0, 2);
  add(pattern, 1024, 2);
  add(pattern, 0, 3);
  add(other, 0, 2);
  add(later, 0, 2);
  CHECK(seen.size() == 10);

  std::vector<uint8_t> block(512);
  CHECK(VerifyPattern::describe(block.data()) == "zeroes");
  uint64_t first;
  CHECK(pattern.compare(block.data(), 0, 512, 0, &first) == 0);
  pattern.fill(block.data(), 4096, 512, 5);
  CHECK(VerifyPattern::describe(block.data()) == "a block of vm-1/vda, offset 4096, generation 5, run 7");
  CHECK(pattern.expected(4096, 5) == VerifyPattern::describe(block.data()));
  block[0] = 0xab;
  CHECK(VerifyPattern::describe(block.data()).find("ab 4d 56") != std::string::npos);
}

TEST_CASE("a unit is claimed once, all can be claimed, and what is given back is found again") {
  for (uint64_t units : {1u, 63u, 64u, 65u, 200u}) {
    VerifyTable table(units);
    std::set<uint64_t> claimed;
    uint64_t unit;
    for (uint64_t i = 0; i < units; ++i) {
      REQUIRE(table.claim((i * 7) % units, &unit));
      CHECK(unit < units);
      CHECK(claimed.insert(unit).second);
    }
    CHECK_FALSE(table.claim(0, &unit));
    table.release(units / 2);
    REQUIRE(table.claim(units - 1, &unit));
    CHECK(unit == units / 2);
  }
}
