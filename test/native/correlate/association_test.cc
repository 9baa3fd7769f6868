// Every registered association finds a context by a clone, and by nothing else; whatever their number and order.
#include "correlate/association.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace sm;

sm_request requestOf(uint64_t serial) {
  sm_request request{};
  request.op = SM_OP_WRITE;
  request.serial = serial;
  return request;
}

// As the contract says of clone.
sm_request cloneOf(const sm_request& parent) {
  sm_request child = requestOf(parent.serial);
  std::memcpy(child.spare, parent.spare, sizeof child.spare);
  child.private_data = parent.private_data;
  return child;
}

TEST_CASE("a clone finds its parent, a fresh request finds nobody, and nobody finds who has gone") {
  REQUIRE(associationRegistry().size() >= 2);
  for (const AssociationSpec& spec : associationRegistry()) {
    CAPTURE(std::string(spec.name));
    CHECK(std::string(spec.carrier).size() > 0);
    CHECK((spec.correlations & kDescend) != 0);
    auto association = spec.make(64);
    std::mt19937_64 random(6);
    struct Live {
      uint32_t context;
      sm_request request;
    };
    std::vector<std::unique_ptr<Live>> live;
    std::vector<uint32_t> free;
    std::vector<sm_request> ghosts;  // clones of requests that have gone
    for (uint32_t i = 0; i < 64; ++i) free.push_back(i);
    uint64_t serial = 0;
    for (int step = 0; step < 5000; ++step) {
      if (!free.empty() && random() % 2) {
        auto request = std::make_unique<Live>(Live{free.back(), requestOf(++serial)});
        free.pop_back();
        REQUIRE(association->bind(request->context, &request->request));
        live.push_back(std::move(request));
      } else if (!live.empty()) {
        const size_t i = random() % live.size();
        ghosts.push_back(cloneOf(live[i]->request));
        association->release(live[i]->context, &live[i]->request);
        const sm_request& gone = live[i]->request;
        for (uint64_t word : gone.spare) CHECK(word == 0);  // the field is given back as it was
        free.push_back(live[i]->context);
        live.erase(live.begin() + static_cast<ptrdiff_t>(i));
      }
      if (!live.empty()) {
        const Live& any = *live[random() % live.size()];
        const sm_request child = cloneOf(any.request);
        REQUIRE(association->find(&child) == any.context);
      }
      const sm_request fresh = requestOf(++serial);
      REQUIRE(association->find(&fresh) == Association::kNone);
      if (!ghosts.empty()) REQUIRE(association->find(&ghosts[random() % ghosts.size()]) == Association::kNone);
    }
  }
}

TEST_CASE("a tag leaves a field alone that its issuer uses, and is not found by what lies there by accident") {
  auto tag = makeTagAssociation(16);
  sm_request used = requestOf(1);
  for (uint64_t& word : used.spare) word = 0x1234;
  CHECK_FALSE(tag->bind(0, &used));
  for (uint64_t word : used.spare) CHECK(word == 0x1234);
  sm_request above = requestOf(2);
  REQUIRE(tag->bind(3, &above));
  CHECK_FALSE(tag->bind(16, &used));  // beyond the capacity
  std::mt19937_64 random(9);
  for (int i = 0; i < 10000; ++i) {
    sm_request below = requestOf(3);
    for (uint64_t& word : below.spare) word = i % 2 ? random() : random() % 64 | 1ull << 63;
    CHECK(tag->find(&below) == Association::kNone);
  }
}

TEST_CASE("two tags of one context, one after the other, are told apart") {
  auto tag = makeTagAssociation(4);
  sm_request first = requestOf(1), second = requestOf(2);
  REQUIRE(tag->bind(2, &first));
  const sm_request late = cloneOf(first);
  tag->release(2, &first);
  REQUIRE(tag->bind(2, &second));
  const sm_request child = cloneOf(second);
  CHECK(tag->find(&late) == Association::kNone);
  CHECK(tag->find(&child) == 2);
}

TEST_CASE("contexts are bound, found and released on several threads at once") {
  for (const AssociationSpec& spec : associationRegistry()) {
    auto association = spec.make(64);
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (uint32_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t round = 0; round < 20'000; ++round) {
          sm_request request = requestOf(round * 4 + t + 1);
          const uint32_t context = t * 16 + static_cast<uint32_t>(round % 16);
          wrong += !association->bind(context, &request);
          const sm_request child = cloneOf(request);
          wrong += association->find(&child) != context;
          association->release(context, &request);
          wrong += association->find(&child) != Association::kNone;
        }
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
}

}  // namespace
