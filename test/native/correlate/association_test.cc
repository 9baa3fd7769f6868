// Every registered association finds a context by a clone, and by nothing else; whatever their number and order.
#include "correlate/association.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "correlate/live_buffers.h"

namespace {

using namespace sm;

struct Request : sm_request {
  explicit Request(uint64_t number) : sm_request{} {
    op = SM_OP_WRITE;
    serial = number;
    extension = room;
  }
  // As the contract says of clone.
  Request(const Request& parent) : Request(parent.serial) {
    std::memcpy(spare, parent.spare, sizeof spare);
    private_data = parent.private_data;
    std::memcpy(room, parent.room, sizeof room);
  }
  bool untouched() const {
    return std::all_of(spare, spare + 4, [](uint64_t word) { return word == 0; }) && !private_data &&
           std::all_of(room, room + SM_EXTENSION, [](uint8_t byte) { return byte == 0; });
  }
  alignas(8) uint8_t room[SM_EXTENSION]{};
};

// An association with the contexts that it needs.
struct Rig {
  explicit Rig(const AssociationSpec& spec, uint32_t capacity)
      : contexts(capacity), buffers(contexts), association(spec.make(capacity, buffers)) {
    for (uint32_t i = 0; i < capacity; ++i) contexts.take();
  }
  bool bind(uint32_t context, sm_request* above) {
    if (!association->mark(context, contexts[context], above)) return false;
    if (association->record(context, above)) return true;
    association->unmark(context, above);
    return false;
  }
  void release(uint32_t context, sm_request* above) {
    association->forget(context, above);
    association->unmark(context, above);
  }
  Slots<Context> contexts;
  LiveBuffers buffers;
  std::unique_ptr<Association> association;
};

// Those by something that a clone carries and a fresh request does not.
std::vector<AssociationSpec> byClone() {
  std::vector<AssociationSpec> all;
  for (const AssociationSpec& spec : associationRegistry()) {
    if (spec.kernel || std::string(spec.name) == "address" || std::string(spec.name) == "content") continue;
    all.push_back(spec);
  }
  return all;
}

AssociationSpec named(const std::string& name) {
  const auto all = associationRegistry();
  return *std::find_if(all.begin(), all.end(), [&](const AssociationSpec& spec) { return name == spec.name; });
}

TEST_CASE("the registry names the carriers and what they allow") {
  CHECK(associationRegistry().size() == 8);
  for (const AssociationSpec& spec : associationRegistry()) {
    CHECK(std::string(spec.carrier).size() > 0);
    CHECK((spec.correlations & kDescend) != 0);
  }
}

TEST_CASE("a clone finds its parent, a fresh request finds nobody, and nobody finds who has gone") {
  for (const AssociationSpec& spec : byClone()) {
    CAPTURE(std::string(spec.name));
    Rig rig(spec, 64);
    const Association& association = *rig.association;
    std::mt19937_64 random(6);
    struct Live {
      uint32_t context;
      Request request;
    };
    std::vector<std::unique_ptr<Live>> live;
    std::vector<uint32_t> free;
    std::vector<Request> ghosts;  // clones of requests that have gone
    std::set<uint64_t> keys;
    for (uint32_t i = 0; i < 64; ++i) free.push_back(i);
    uint64_t serial = 0;
    for (int step = 0; step < 5000; ++step) {
      if (!free.empty() && random() % 2) {
        auto request = std::make_unique<Live>(Live{free.back(), Request(++serial)});
        free.pop_back();
        REQUIRE(rig.bind(request->context, &request->request));
        REQUIRE(keys.insert(association.key(&request->request)).second);  // never again
        live.push_back(std::move(request));
      } else if (!live.empty()) {
        const size_t i = random() % live.size();
        ghosts.push_back(live[i]->request);
        rig.release(live[i]->context, &live[i]->request);
        CHECK(live[i]->request.untouched());
        free.push_back(live[i]->context);
        live.erase(live.begin() + static_cast<ptrdiff_t>(i));
      }
      if (!live.empty()) {
        const Live& any = *live[random() % live.size()];
        const Request child = any.request;
        REQUIRE(association.find(&child) == any.context);
        REQUIRE(association.key(&child) == association.key(&any.request));
      }
      const Request fresh(++serial);
      REQUIRE(association.find(&fresh) == Association::kNone);
      REQUIRE_FALSE(keys.contains(association.key(&fresh)));
      if (!ghosts.empty()) REQUIRE(association.find(&ghosts[random() % ghosts.size()]) == Association::kNone);
    }
  }
}

TEST_CASE("what we add leaves alone what its issuer uses, and is not found in what lies there by accident") {
  for (const char* name : {"inline", "extended", "pointer", "tag"}) {
    CAPTURE(std::string(name));
    Rig rig(named(name), 16);
    Request used(1);
    for (uint64_t& word : used.spare) word = 0x1234;
    used.private_data = &used;
    std::memset(used.room, 7, sizeof used.room);
    const Request before = used;
    CHECK_FALSE(rig.bind(0, &used));
    CHECK(std::memcmp(used.spare, before.spare, sizeof used.spare) == 0);
    CHECK(used.private_data == before.private_data);
    CHECK(std::memcmp(used.room, before.room, sizeof used.room) == 0);
    Request above(2);
    REQUIRE(rig.bind(3, &above));
    std::mt19937_64 random(9);
    for (int i = 0; i < 10000; ++i) {
      Request below(3);
      for (uint64_t& word : below.spare) word = i % 2 ? random() : random() % 64 | 1ull << 63;
      for (uint64_t at = 0; at < sizeof below.room; at += 8) {
        const uint64_t word = i % 2 ? random() : random() % 64 | 1ull << 63;
        std::memcpy(below.room + at, &word, 8);
      }
      // Every other one is close to a true pointer.
      const uint64_t near = reinterpret_cast<uint64_t>(above.private_data) + 1 + random() % 4096;
      below.private_data = reinterpret_cast<void*>(i % 2 ? random() : near);
      CHECK(rig.association->find(&below) == Association::kNone);
    }
  }
}

TEST_CASE("two requests in one context, one after the other, are told apart") {
  for (const AssociationSpec& spec : byClone()) {
    Rig rig(spec, 4);
    Request first(1), second(2);
    REQUIRE(rig.bind(2, &first));
    const Request late = first;
    rig.release(2, &first);
    REQUIRE(rig.bind(2, &second));
    const Request child = second;
    CHECK(rig.association->find(&late) == Association::kNone);
    CHECK(rig.association->find(&child) == 2);
  }
}

TEST_CASE("what one probe put into a request is nothing to the next") {
  for (const AssociationSpec& spec : byClone()) {
    if (std::string(spec.name) == "serial") continue;  // the host's own, and never the same again
    CAPTURE(std::string(spec.name));
    std::vector<Request> ghosts;
    for (int round = 0; round < 20; ++round) {
      Rig rig(spec, 64);
      Request request(1);
      REQUIRE(rig.bind(0, &request));
      for (const Request& ghost : ghosts) CHECK(rig.association->find(&ghost) == Association::kNone);
      ghosts.push_back(request);
      rig.release(0, &request);
    }
  }
}

TEST_CASE("by address, memory inside a live buffer is its request's, and what two share is nobody's") {
  Rig rig(named("address"), 4);
  std::vector<std::byte> memory(8192);
  iovec first[] = {{memory.data(), 1024}, {memory.data() + 4096, 1024}}, second[] = {{memory.data() + 512, 1024}};
  auto enter = [&](uint32_t slot, const iovec* iov, uint32_t count) {
    rig.contexts[slot].iov = iov;
    rig.contexts[slot].iovCount = count;
    rig.buffers.add(slot, hullOf(iov, count));
  };
  auto find = [&](uint64_t at, uint64_t length) {
    iovec iov{memory.data() + at, length};
    Request child(9);
    child.iov = &iov;
    child.iov_count = 1;
    return rig.association->find(&child);
  };
  enter(0, first, 2);
  CHECK(find(0, 512) == 0);
  CHECK(find(4096 + 512, 4096) == 0);
  CHECK(find(1024, 3072) == Association::kNone);  // between its segments
  enter(1, second, 1);
  CHECK(find(512, 512) == Association::kAmbiguous);
  CHECK(find(0, 512) == 0);
  CHECK(find(1024, 512) == 1);
  rig.buffers.remove(0);
  CHECK(find(512, 512) == 1);
  rig.contexts[1].sharedBuffer = true;  // as the correlator notes it when it meets another's
  CHECK(find(512, 512) == Association::kAmbiguous);
  CHECK(find(0, 512) == Association::kNone);
}

TEST_CASE("contexts are found on several threads while others are bound and released") {
  for (const AssociationSpec& spec : byClone()) {
    Rig rig(spec, 64);
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    std::mutex mutex;  // the map's: find alone goes without it
    for (uint32_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t round = 0; round < 20'000; ++round) {
          Request request(round * 4 + t + 1);
          const uint32_t context = t * 16 + static_cast<uint32_t>(round % 16);
          {
            std::lock_guard lock(mutex);
            wrong += !rig.bind(context, &request);
          }
          const Request child = request;
          wrong += rig.association->find(&child) != context;
          {
            std::lock_guard lock(mutex);
            rig.release(context, &request);
          }
          wrong += rig.association->find(&child) != Association::kNone;
        }
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
}

}  // namespace
