// Where payloads get their memory, and who gets it when there is too little.
#include "nbd/buffers.h"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "devices/nbd_protocol.h"
#include "engine/buffer_pool.h"
#include "native/host/support.h"

using namespace sm;
using namespace sm::test;
using namespace sm::nbd;

namespace {

constexpr uint64_t kMiB = 1 << 20;

struct Asker : Buffers::Waiter {
  Asker(Buffers& from, uint64_t bytes, std::vector<Asker*>* log) : buffers(from), length(bytes), served(log) {
    retry = [](Buffers::Waiter* waiter) { static_cast<Asker*>(waiter)->ask(); };
  }
  void ask() {
    data = buffers.get(length, this);
    if (data) served->push_back(this);
  }
  Buffers& buffers;
  const uint64_t length;
  std::vector<Asker*>* served;
  uint8_t* data = nullptr;
};

struct Rig {
  HostClock clock;
  IoThread thread{{.requests = 64, .bufferBytes = 4 * kMiB, .uring = false}, clock};
  Buffers buffers{thread, 32 * kMiB};
  std::vector<Asker*> served;
};

}  // namespace

TEST_CASE("half of the thread's pool stays free, what is long is our own, and the longest payload fits") {
  Rig rig;
  onThread(rig.thread, [&] {
    std::vector<uint8_t*> taken;
    Asker none(rig.buffers, 0, &rig.served);
    BufferPool& pool = rig.thread.buffers();
    for (int i = 0; i < 4; ++i) taken.push_back(rig.buffers.get(kMiB, &none));
    CHECK(pool.contains(taken[0], kMiB));
    CHECK(pool.contains(taken[1], kMiB));
    CHECK_FALSE(pool.contains(taken[2], kMiB));
    CHECK(pool.freeBytes() == 2 * kMiB);
    for (uint8_t* data : taken) {
      CHECK(reinterpret_cast<uintptr_t>(data) % 4096 == 0);
      rig.buffers.put(data);
    }
    uint8_t* longest = rig.buffers.get(kPayloadMost, &none);
    REQUIRE(longest);
    CHECK_FALSE(none.waiting());
    longest[kPayloadMost - 1] = 1;
    rig.buffers.put(longest);
    CHECK(pool.freeBytes() == pool.bytes());
  });
}

TEST_CASE("who waits is served in order, nobody overtakes, and who has gone is left out") {
  Rig rig;
  Asker all(rig.buffers, 32 * kMiB, &rig.served), large(rig.buffers, 32 * kMiB, &rig.served),
      gone(rig.buffers, 2 * kMiB, &rig.served), next(rig.buffers, 2 * kMiB, &rig.served),
      last(rig.buffers, 2 * kMiB, &rig.served);
  onThread(rig.thread, [&] {
    for (Asker* each : {&all, &large, &gone, &next, &last}) each->ask();
    CHECK(all.data);
    for (Asker* each : {&large, &gone, &next, &last}) CHECK(each->waiting());
    rig.buffers.forget(&gone);
    rig.buffers.forget(&gone);
    CHECK_FALSE(gone.waiting());
    rig.buffers.put(all.data);
  });
  onThread(rig.thread, [&] {
    CHECK(rig.served == std::vector<Asker*>{&all, &large});
    rig.buffers.put(large.data);
  });
  onThread(rig.thread, [&] {
    CHECK(rig.served == std::vector<Asker*>{&all, &large, &next, &last});
    for (Asker* each : {&next, &last}) rig.buffers.put(each->data);
    next.ask();
    CHECK(next.data);
    rig.buffers.put(next.data);
  });
}

TEST_CASE("large payloads do not keep small ones waiting, nor small ones large ones") {
  Rig rig;
  std::vector<std::unique_ptr<Asker>> small;
  Asker all(rig.buffers, 32 * kMiB, &rig.served), large(rig.buffers, 32 * kMiB, &rig.served);
  for (int i = 0; i < 4; ++i) small.push_back(std::make_unique<Asker>(rig.buffers, kMiB, &rig.served));
  onThread(rig.thread, [&] {
    all.ask();
    large.ask();
    for (const auto& each : small) each->ask();
    CHECK(small[1]->data);  // half of the pool
    CHECK(small[2]->waiting());
    rig.buffers.put(all.data);
  });
  onThread(rig.thread, [&] {
    CHECK(large.data);
    CHECK(small[2]->waiting());
    rig.buffers.put(large.data);
  });
  onThread(rig.thread, [&] {
    for (const auto& each : small) {
      REQUIRE(each->data);
      rig.buffers.put(each->data);
    }
  });
}
