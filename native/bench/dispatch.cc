#include "bench/dispatch.h"

#include <stratamap/device.h>

#include <atomic>
#include <memory>

#include "bench/context_load.h"
#include "intercept/dispatch.h"

namespace bench {

namespace {

// A driver at which all ends, and an interposer that looks and passes on.
void end(const sm_device_ops*, sm_device*, sm_request* request) { request->status = 0; }
constexpr sm_device_ops kDriver{SM_CONTRACT_VERSION, sizeof(sm_device_ops), end};

class Passing : public sm::Interposer {
 public:
  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    request->serial += request->length;
    next->submit(next, device, request);
  }
  uint64_t inside() const override { return 0; }
};

// A table that holds its interposer for ever: nobody may take it out.
struct Plain {
  sm_device_ops ops;
  const sm_device_ops* next;
  sm::Interposer* interposer;
  static void submit(const sm_device_ops* self, sm_device* device, sm_request* request) {
    const auto* table = reinterpret_cast<const Plain*>(self);
    table->interposer->submit(table->next, device, request);
  }
};

// A table that counts who is inside, as one would have it who waits for that to be nobody.
struct Counted {
  sm_device_ops ops;
  const sm_device_ops* next;
  sm::Interposer* interposer;
  alignas(64) mutable std::atomic<uint64_t> inside{0};
  static void submit(const sm_device_ops* self, sm_device* device, sm_request* request) {
    const auto* table = reinterpret_cast<const Counted*>(self);
    table->inside.fetch_add(1, std::memory_order_acquire);
    table->interposer->submit(table->next, device, request);
    table->inside.fetch_sub(1, std::memory_order_release);
  }
};

// Devices are kept by the chains for the life of the process.
sm_device* deviceWith(const sm_device_ops* ops, uint32_t id) {
  auto* device = new sm_device{};
  device->ops = ops;
  device->id = id;
  device->name = "bench";
  return device;
}

struct Tables {
  Passing passing;
  Plain plain{{SM_CONTRACT_VERSION, sizeof(sm_device_ops), Plain::submit}, &kDriver, &passing};
  Counted counted{{SM_CONTRACT_VERSION, sizeof(sm_device_ops), Counted::submit}, &kDriver, &passing, {}};
  sm_device* device[3] = {deviceWith(&plain.ops, 1), deviceWith(&kDriver, 2), deviceWith(&counted.ops, 3)};
  Tables() { sm::DispatchChain::of(device[1]).insert(&passing); }
};

// CPU time of a call, ns, the mean of the threads.
double callNs(sm_device* device, int threads, uint64_t calls) {
  double spent[2] = {0, 0};
  auto run = [&](int thread) {
    sm_request request{};
    request.length = 4096;
    const double from = threadNs();
    for (uint64_t i = 0; i < calls; ++i) sm_device_submit(device, &request);
    spent[thread] = threadNs() - from;
    mustBe(request.serial == calls * 4096);
  };
  if (threads == 1) {
    run(0);
  } else {
    together(run);
  }
  return (spent[0] + spent[1]) / static_cast<double>(calls) / threads;
}

}  // namespace

Group dispatchGroup(int threads, uint64_t calls) {
  static auto* const tables = new Tables();
  Group group{threads == 1 ? "dispatch, one thread" : "dispatch, two threads", "ns", {"a call", "added"}, {}};
  auto plain = std::make_shared<double>(0);
  const char* const names[] = {"a table that nobody leaves", "the chain", "a count of those inside"};
  for (int i = 0; i < 3; ++i) {
    group.contenders.push_back({names[i],
                                [=] {
                                  const double ns = callNs(tables->device[i], threads, calls);
                                  if (i == 0) *plain = ns;
                                  return std::vector<double>{ns, ns - *plain};
                                },
                                {0, i == 1 ? 0.5 : 0}});
  }
  return group;
}

}  // namespace bench
