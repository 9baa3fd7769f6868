// The exchange of a device's dispatch table, by itself: order, comings and goings under load from several threads.
#include "intercept/dispatch.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace {

using sm::DispatchChain;
using sm::Interposer;

// A driver that completes at once, and counts.
struct Driver {
  sm_device_ops ops{SM_CONTRACT_VERSION, sizeof(sm_device_ops), submit};
  sm_device device{};
  std::atomic<uint64_t> seen{0};

  Driver() {
    static std::atomic<uint32_t> ids{1'000'000};
    device.ops = &ops;
    device.id = ids.fetch_add(1);
    device.name = "d";
    device.driver = this;
  }
  static void submit(const sm_device_ops*, sm_device* device, sm_request* request) {
    static_cast<Driver*>(device->driver)->seen.fetch_add(1, std::memory_order_relaxed);
    sm_request_complete(request, 0);
  }
};

// Threads that play the part of I/O threads: between two requests each looks whether it is asked to be seen.
struct Threads {
  sm_stack stack{};
  std::atomic<uint64_t> asked{0};
  std::vector<std::unique_ptr<std::atomic<uint64_t>>> seen;
  bool answer = true;

  Threads() {
    stack.everywhere = [](const sm_stack* self, void (*)(void*), void*, uint64_t) -> int32_t {
      auto* threads = reinterpret_cast<Threads*>(const_cast<sm_stack*>(self));
      if (!threads->answer) return -ETIMEDOUT;
      uint64_t turn = threads->asked.fetch_add(1) + 1;
      for (auto& each : threads->seen) {
        while (each->load(std::memory_order_acquire) < turn) std::this_thread::yield();
      }
      return 0;
    };
  }
  void between(size_t thread) { seen[thread]->store(asked.load(std::memory_order_acquire), std::memory_order_release); }
};

struct Counting : Interposer {
  std::atomic<uint64_t> down{0}, up{0};
  std::vector<int>* order = nullptr;
  int name = 0;
  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    down.fetch_add(1, std::memory_order_relaxed);
    if (order) order->push_back(name);
    if (sm_request_push(request, done, this, 7) != 0) std::abort();
    next->submit(next, device, request);
  }
  static void done(sm_request* request, void* context, uint64_t word) {
    auto* self = static_cast<Counting*>(context);
    if (word == 7) self->up.fetch_add(1, std::memory_order_relaxed);
    if (self->order) self->order->push_back(-self->name);
    sm_request_pop(request);
  }
  uint64_t inside() const override { return down.load() - up.load(); }
};

void ended(sm_request*, void* context, uint64_t) { ++*static_cast<uint64_t*>(context); }

uint64_t run(sm_device* device, uint64_t n) {
  uint64_t completed = 0;
  for (uint64_t i = 0; i < n; ++i) {
    sm_request request{};
    request.op = SM_OP_READ;
    if (sm_request_push(&request, ended, &completed, 0) != 0) std::abort();
    sm_device_submit(device, &request);
  }
  return completed;
}

}  // namespace

TEST_CASE("interposers see requests top first and completions bottom first, and leave the driver's table behind") {
  Driver driver;
  Threads threads;
  std::vector<int> order;
  Counting a, b;
  a.order = b.order = &order;
  a.name = 1;
  b.name = 2;
  DispatchChain& chain = DispatchChain::of(&driver.device);
  CHECK(chain.insert(&a) == 0);
  CHECK(chain.insert(&b) == 0);
  CHECK(chain.insert(&a) == -EEXIST);
  CHECK(run(&driver.device, 1) == 1);
  CHECK(order == std::vector<int>{2, 1, -1, -2});
  CHECK(chain.remove(&threads.stack, &b, 1'000'000'000) == 0);
  order.clear();
  CHECK(run(&driver.device, 1) == 1);
  CHECK(order == std::vector<int>{1, -1});
  CHECK(chain.remove(&threads.stack, &a, 1'000'000'000) == 0);
  CHECK(chain.remove(&threads.stack, &a, 1'000'000'000) == -ENOENT);
  CHECK(driver.device.ops == &driver.ops);
  CHECK(driver.seen == 2);
}

TEST_CASE("an entrant that is late passes through, and a removal that cannot be sure says so") {
  Driver driver;
  Threads threads;
  Counting a;
  DispatchChain& chain = DispatchChain::of(&driver.device);
  CHECK(chain.insert(&a) == 0);
  const sm_device_ops* old = driver.device.ops;  // a thread that loaded the table and was held up
  threads.answer = false;
  CHECK(chain.remove(&threads.stack, &a, 1'000) == -ETIMEDOUT);
  sm_request request{};
  uint64_t completed = 0;
  REQUIRE(sm_request_push(&request, ended, &completed, 0) == 0);
  old->submit(old, &driver.device, &request);
  CHECK(completed == 1);
  CHECK(driver.seen == 1);
  CHECK(a.down == 0);
}

TEST_CASE("a chain takes no more interposers than a request has frames for") {
  Driver driver;
  Threads threads;
  std::vector<std::unique_ptr<Counting>> many;
  DispatchChain& chain = DispatchChain::of(&driver.device);
  for (size_t i = 0; i < DispatchChain::kMost; ++i) {
    many.push_back(std::make_unique<Counting>());
    CHECK(chain.insert(many.back().get()) == 0);
  }
  Counting more;
  CHECK(chain.insert(&more) == -ENOSPC);
  CHECK(run(&driver.device, 10) == 10);
  for (auto& each : many) CHECK(chain.remove(&threads.stack, each.get(), 1'000'000'000) == 0);
}

TEST_CASE("two threads submit while interposers come and go: each request is completed once, none is lost inside") {
  Driver driver;
  Threads threads;
  DispatchChain& chain = DispatchChain::of(&driver.device);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> submitted{0}, completed{0};
  for (int i = 0; i < 2; ++i) threads.seen.push_back(std::make_unique<std::atomic<uint64_t>>(0));
  std::vector<std::thread> pool;
  for (size_t t = 0; t < 2; ++t) {
    pool.emplace_back([&, t] {
      while (!stop.load(std::memory_order_relaxed)) {
        completed.fetch_add(run(&driver.device, 16));
        submitted.fetch_add(16);
        threads.between(t);
      }
      threads.seen[t]->store(UINT64_MAX);
    });
  }
  uint64_t watched = 0;
  for (int i = 0; i < 1000; ++i) {
    auto a = std::make_unique<Counting>();
    auto b = std::make_unique<Counting>();
    REQUIRE(chain.insert(a.get()) == 0);
    REQUIRE(chain.insert(b.get()) == 0);
    if (i % 10 == 0) std::this_thread::yield();
    REQUIRE(chain.remove(&threads.stack, a.get(), 10'000'000'000) == 0);
    REQUIRE(chain.remove(&threads.stack, b.get(), 10'000'000'000) == 0);
    CHECK(a->down == a->up);
    CHECK(b->down == b->up);
    watched += a->down + b->down;
  }
  stop = true;
  for (auto& thread : pool) thread.join();
  CHECK(submitted == completed);
  CHECK(driver.seen == submitted);
  CHECK(watched > 0);
  CHECK(driver.device.ops == &driver.ops);
}

namespace {

// Holds back what comes, until it is told to pass it on.
struct Holding : Counting {
  std::vector<std::pair<const sm_device_ops*, sm_request*>> held;
  sm_device* device = nullptr;
  bool holds = true;
  void submit(const sm_device_ops* next, sm_device* to, sm_request* request) override {
    if (!holds) return Counting::submit(next, to, request);
    device = to;
    DispatchChain::hold(next);
    held.emplace_back(next, request);
  }
  void passOn() {
    for (auto [next, request] : std::exchange(held, {})) {
      Counting::submit(next, device, request);
      DispatchChain::letGo(next);
    }
  }
  void release() override { passOn(); }
  uint64_t inside() const override { return held.size() + Counting::inside(); }
};

struct Pending {
  sm_request request{};
  uint64_t completed = 0;
  explicit Pending(sm_device* device) {
    request.op = SM_OP_READ;
    if (sm_request_push(&request, ended, &completed, 0) != 0) std::abort();
    sm_device_submit(device, &request);
  }
};

}  // namespace

TEST_CASE("an order is a permutation of those that are in; they can be put in anywhere") {
  Driver driver;
  Threads threads;
  std::vector<int> order;
  Counting a, b, c, stranger;
  int name = 0;
  for (Counting* each : {&a, &b, &c}) {
    each->order = &order;
    each->name = ++name;
  }
  DispatchChain& chain = DispatchChain::of(&driver.device);
  CHECK(chain.insert(&a) == 0);
  CHECK(chain.insert(&b, 1) == 0);
  CHECK(chain.insert(&c, 99) == 0);
  using List = std::vector<Interposer*>;
  CHECK(chain.interposers() == List{&a, &b, &c});
  const sm_device_ops* before = driver.device.ops;
  for (const List& wrong : {List{}, List{&a, &b}, List{&a, &b, &b}, List{&a, &b, &stranger}, List{&a, &b, &c, &c}}) {
    CHECK(chain.order(&threads.stack, wrong) == -EINVAL);
  }
  CHECK(driver.device.ops == before);
  CHECK(chain.order(&threads.stack, List{&c, &a, &b}) == 0);
  CHECK(chain.interposers() == List{&c, &a, &b});
  CHECK(run(&driver.device, 1) == 1);
  CHECK(order == std::vector<int>{3, 1, 2, -2, -1, -3});
  for (Counting* each : {&a, &b, &c}) CHECK(chain.remove(&threads.stack, each, 1'000'000'000) == 0);
}

TEST_CASE("a request that is held in an old chain meets the rest of that chain, each once, but who is gone") {
  Driver driver;
  Threads threads;
  DispatchChain& chain = DispatchChain::of(&driver.device);
  Holding holding;
  Counting below;
  auto gone = std::make_unique<Counting>();
  REQUIRE(chain.insert(&below) == 0);
  REQUIRE(chain.insert(gone.get()) == 0);
  REQUIRE(chain.insert(&holding) == 0);
  Pending one(&driver.device);
  // `below` comes to stand above: it has yet to see the request, and sees it where it stood.
  REQUIRE(chain.order(&threads.stack, std::vector<Interposer*>{&below, &holding, gone.get()}) == 0);
  REQUIRE(chain.remove(&threads.stack, gone.get(), 1'000'000'000) == 0);
  const uint64_t seen = gone->down;
  gone.reset();
  Pending two(&driver.device);
  CHECK(below.down == 1);
  REQUIRE(chain.remove(&threads.stack, &below, 1) == -ETIMEDOUT);  // the second request is inside it
  REQUIRE(chain.insert(&below) == 0);                              // and it is back, before they go on
  CHECK(holding.held.size() == 2);
  holding.holds = false;
  CHECK(chain.remove(&threads.stack, &holding, 1) == -ETIMEDOUT);  // these threads let nothing go
  holding.passOn();
  CHECK(one.completed == 1);
  CHECK(two.completed == 1);
  CHECK(below.down == 1);  // the first passed its old link
  CHECK(below.up == 1);
  CHECK(holding.down == 2);
  CHECK(seen == 0);
  CHECK(chain.remove(&threads.stack, &below, 1'000'000'000) == 0);
}

TEST_CASE("chains are used again when nothing can lead into them, and not before") {
  Driver driver;
  Threads threads;
  DispatchChain& chain = DispatchChain::of(&driver.device);
  Holding holding;
  Counting a, b;
  for (Interposer* each : std::vector<Interposer*>{&a, &b, &holding}) REQUIRE(chain.insert(each) == 0);
  auto turn = [&](int times) {
    for (int i = 0; i < times; ++i) {
      std::vector<Interposer*> order = chain.interposers();
      std::swap(order[1], order[2]);
      REQUIRE(chain.order(&threads.stack, order) == 0);
    }
  };
  turn(10);
  const size_t few = chain.generations();
  turn(1000);
  CHECK(chain.generations() == few);
  // No thread was seen: they may all be on their way into any of them.
  threads.answer = false;
  turn(10);
  CHECK(chain.generations() > few);
  threads.answer = true;
  turn(1);
  const size_t more = chain.generations();
  turn(1000);
  CHECK(chain.generations() == more);
  // Held in every one of them.
  std::vector<std::unique_ptr<Pending>> pending;
  for (size_t i = 0; i < more + 5; ++i) {
    pending.push_back(std::make_unique<Pending>(&driver.device));
    turn(1);
  }
  CHECK(chain.generations() > more);
  CHECK(driver.seen == 0);
  holding.passOn();
  for (auto& each : pending) CHECK(each->completed == 1);
  CHECK(a.down == pending.size());
  CHECK(b.down == pending.size());
  const size_t most = chain.generations();
  turn(1000);
  CHECK(chain.generations() == most);
  for (Interposer* each : std::vector<Interposer*>{&a, &b, &holding}) {
    REQUIRE(chain.remove(&threads.stack, each, 1'000'000'000) == 0);
  }
}
