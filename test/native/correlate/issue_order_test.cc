#include "correlate/issue_order.h"

#include <doctest/doctest.h>

#include <vector>

using namespace sm;

namespace {

using Steps = std::vector<Observed::Step>;

// An issue of `length` by `thread` at `time`, which it is seen to have handed over at `passed`.
Observed::Step issue(uint64_t time, uint32_t thread, uint64_t length, uint64_t passed = UINT64_MAX) {
  return {time, {time * 1'000'000, time * 1'000'000 + length}, 0, kNoSlot, thread, passed};
}
Observed::Step start(uint64_t time, uint64_t length) { return {time, {0, length}, 1, 0, 9}; }
std::vector<uint64_t> timesOf(const Steps& steps) {
  std::vector<uint64_t> times;
  for (const auto& step : steps) times.push_back(step.time);
  return times;
}

}  // namespace

TEST_CASE("what one thread issues is in order, and what another had handed over comes before") {
  Steps one = {issue(1, 1, 4096), issue(2, 1, 4096)};
  CHECK(orderIssues(&one, {start(5, 4096), start(6, 4096)}));
  Steps two = {issue(1, 1, 4096, 2), issue(3, 2, 4096)};
  CHECK(orderIssues(&two, {start(5, 4096), start(6, 4096)}));
  CHECK(timesOf(two) == std::vector<uint64_t>{1, 3});
}

TEST_CASE("of two threads at once, lengths show the order, also where it is not that of telling") {
  Steps told = {issue(1, 1, 4096), issue(3, 2, 8192)};
  CHECK(orderIssues(&told, {start(5, 4096), start(6, 8192)}));
  CHECK(timesOf(told) == std::vector<uint64_t>{1, 3});
  Steps swapped = {issue(1, 1, 4096), issue(3, 2, 8192)};
  CHECK(orderIssues(&swapped, {start(5, 8192), start(6, 4096)}));
  CHECK(timesOf(swapped) == std::vector<uint64_t>{3, 1});
  // Cut into pieces beneath.
  Steps cut = {issue(1, 1, 12288), issue(3, 2, 8192), issue(4, 1, 4096)};
  CHECK(orderIssues(&cut, {start(5, 8192), start(6, 4096), start(7, 8192), start(8, 4096)}));
  CHECK(cut[0].phys.begin == Observed::kNowhere);  // 3 1 4 or 1 3 4: the last is certain
  CHECK(cut[0].phys.length() == 20480);
  CHECK(timesOf({cut.begin() + 1, cut.end()}) == std::vector<uint64_t>{4});
  Steps longer = {issue(1, 1, 12288), issue(3, 2, 8192), issue(4, 1, 16384)};
  CHECK(orderIssues(&longer, {start(5, 8192), start(6, 12288), start(7, 16384)}));
  CHECK(timesOf(longer) == std::vector<uint64_t>{3, 1, 4});
}

TEST_CASE("of equal lengths only time shows the order: what had started beneath was there") {
  Steps equal = {issue(1, 1, 4096), issue(3, 2, 4096)};
  CHECK(orderIssues(&equal, {start(5, 4096), start(6, 4096)}));
  REQUIRE(equal.size() == 1);
  CHECK(equal[0].phys.begin == Observed::kNowhere);
  CHECK(equal[0].phys.length() == 8192);
  Steps early = {issue(1, 1, 4096), issue(3, 2, 4096)};
  CHECK(orderIssues(&early, {start(2, 4096), start(6, 4096)}));
  CHECK(timesOf(early) == std::vector<uint64_t>{1, 3});
}

TEST_CASE("three threads at once are told apart as well; what cannot have been has no order") {
  Steps three = {issue(1, 1, 4096), issue(2, 2, 8192), issue(3, 3, 16384)};
  CHECK(orderIssues(&three, {start(5, 16384), start(6, 4096), start(7, 8192)}));
  CHECK(timesOf(three) == std::vector<uint64_t>{3, 1, 2});
  Steps across = {issue(1, 1, 4096), issue(2, 2, 8192)};
  CHECK_FALSE(orderIssues(&across, {start(5, 6144), start(6, 6144)}));
}
