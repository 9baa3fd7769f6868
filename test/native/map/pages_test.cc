#include "map/pages.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

namespace {

using sm::Pages;

TEST_CASE("pages are zero, aligned, writable, and as many as were asked for") {
  for (const size_t bytes :
       {size_t{1}, size_t{4096}, size_t{4097}, Pages::kLarge - 1, Pages::kLarge, Pages::kLarge + 1}) {
    for (const bool large : {false, true}) {
      Pages pages(bytes, large);
      CHECK(pages.bytes() >= bytes);
      CHECK(reinterpret_cast<uintptr_t>(pages.data()) % (bytes >= Pages::kLarge ? Pages::kLarge : 4096) == 0);
      for (size_t at = 0; at < pages.bytes(); at += 512) REQUIRE(pages.data()[at] == 0);
      std::memset(pages.data(), 7, pages.bytes());
      CHECK(pages.data()[bytes - 1] == 7);
      if (!large || bytes < Pages::kLarge) CHECK_FALSE(pages.askedLarge());
      CHECK(pages.backedLarge() <= pages.bytes());
    }
  }
}

TEST_CASE("they have one owner") {
  Pages first(4096);
  char* const data = first.data();
  data[0] = 1;
  Pages second(std::move(first));
  CHECK(second.data() == data);
  CHECK(first.data() == nullptr);
  Pages third;
  third = std::move(second);
  CHECK(third.data()[0] == 1);
  CHECK(third.bytes() == 4096);
}

TEST_CASE("what cannot be had is said") {
  CHECK_THROWS_AS(Pages(0), std::bad_alloc);
  CHECK_THROWS_AS(Pages(SIZE_MAX), std::bad_alloc);
  CHECK_THROWS_AS(Pages(size_t{1} << 62), std::bad_alloc);
}

TEST_CASE("large pages back what is written, where the system has them for who asks") {
  std::string setting;
  std::getline(std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled"), setting);
  Pages pages(4 * Pages::kLarge);
  std::memset(pages.data(), 1, pages.bytes());
  MESSAGE("transparent_hugepage: " << setting << "; backed: " << (pages.backedLarge() >> 10) << " KiB");
  if (setting.empty() || setting.find("[never]") != std::string::npos) CHECK(pages.backedLarge() == 0);
}

}  // namespace
