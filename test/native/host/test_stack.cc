// What a tool that attaches to a running host relies on.
#include <atomic>
#include <set>
#include <thread>

#include "host/services.h"
#include "host/stack.h"
#include "stack_of.h"

using namespace sm;
using namespace sm::test;

TEST_CASE("everywhere runs once on each I/O thread, and never after it has given up") {
  HostOptions options;
  options.threads = 3;
  auto host = openHost(options);
  const sm_stack* stack = host->stack();
  CHECK(stack->version == SM_CONTRACT_VERSION);
  CHECK(stack->size == sizeof(sm_stack));
  struct Seen {
    std::atomic<int> runs{0};
    std::atomic<uint32_t> threads{0};
  } seen;
  const auto run = [](void* context) {
    auto* seen = static_cast<Seen*>(context);
    seen->threads |= 1u << IoThread::current()->index();
    ++seen->runs;
  };
  CHECK(stack->everywhere(stack, run, &seen, 60'000'000'000) == 0);
  CHECK(seen.runs == 3);
  CHECK(seen.threads == 7);

  // One thread is kept busy: its run does not come, and does not come later either.
  std::promise<void> begun, go;
  std::thread keeper([&] {
    onThread(*host->threads()[1], [&] {
      begun.set_value();
      go.get_future().wait();
    });
  });
  begun.get_future().wait();
  {
    Seen late;
    CHECK(stack->everywhere(stack, run, &late, 20'000'000) == -ETIMEDOUT);
    CHECK(late.runs == 2);
    CHECK(late.threads == 5);
  }
  go.set_value();
  keeper.join();
  CHECK(stack->everywhere(stack, run, &seen, 60'000'000'000) == 0);
  CHECK(seen.runs == 6);
}

TEST_CASE("a stamp tells what was allocated before it, above and below") {
  MemoryDisk fixture;
  HostClock& clock = fixture.clock;
  DiskRegistry disks;
  std::vector<std::unique_ptr<IoThread>> none;
  const Stack alone(none, clock, disks);
  const sm_stack* stack = alone.table();
  onThread(fixture.thread, [&] { fixture.volume.hold = true; });
  AwaitedIo early, late;
  early.submit(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0);
  while (fixture.disk->inFlight() != 1) std::this_thread::yield();
  const uint64_t stamp = stack->stamp(stack);
  CHECK(fixture.thread.busyBefore(stamp) == 1);
  late.submit(*fixture.disk, SM_OP_FLUSH, 0, nullptr, 0);
  while (fixture.disk->inFlight() != 2) std::this_thread::yield();
  CHECK(fixture.thread.busyBefore(stamp) == 1);
  CHECK(fixture.thread.busyBefore(stack->stamp(stack)) == 2);
  onThread(fixture.thread, [&] { sm_request_complete(fixture.volume.held[0], 0); });
  CHECK(early.done.get() == 0);
  CHECK(fixture.thread.busyBefore(stamp) == 0);
  onThread(fixture.thread, [&] { sm_request_complete(fixture.volume.held[1], 0); });
  CHECK(late.done.get() == 0);
}

TEST_CASE("busy_before counts the requests of all threads of a host; the clock runs") {
  HostOptions options;
  options.threads = 2;
  auto host = openHost(options);
  const sm_stack* stack = host->stack();
  sm_request* requests[2] = {};
  for (int i = 0; i < 2; ++i) {
    onThread(*host->threads()[i], [&] { requests[i] = host->threads()[i]->allocate(); });
  }
  CHECK(requests[0]->serial != requests[1]->serial);
  const uint64_t stamp = stack->stamp(stack);
  CHECK(stack->busy_before(stack, stamp) == 2);
  for (int i = 0; i < 2; ++i) {
    onThread(*host->threads()[i], [&] { host->threads()[i]->release(requests[i]); });
    CHECK(stack->busy_before(stack, stamp) == static_cast<uint64_t>(1 - i));
  }
  const uint64_t before = stack->now(stack);
  uint64_t on = 0;
  onThread(*host->threads()[0], [&] { on = stack->now(stack); });
  CHECK(before > 0);
  CHECK(on > 0);
  CHECK(stack->now(stack) >= before);
}

TEST_CASE("filters through the stack: a disk that is closed is no disk any more") {
  TempFolder folder;
  auto host = openHost();
  sm_device* device = test::openDevice(*host, "d0", folder.file("a", 24 << 20));
  REQUIRE_OK(host->formatVolume("extent", {device}, {}, false));
  Volume* volume = nullptr;
  REQUIRE_OK(host->openVolume("v0", "extent", {device}, {}, &volume));
  VirtualDisk* disk = nullptr;
  REQUIRE_OK(volume->createDisk("vm-1", "vda", 1 << 20, &disk));
  const sm_stack* stack = host->stack();
  // Takes each request and sends it on from a task of its own.
  struct Delay {
    const sm_stack* stack;
    IoThread* home;
    struct Task {
      sm_task task{};
      Delay* owner = nullptr;
      sm_request* request = nullptr;
    } task;
    uint64_t taken = 0, completed = 0;
  } delay{stack, &disk->home(), {}};
  delay.task.owner = &delay;
  delay.task.task.run = [](sm_task* task) {
    auto* self = reinterpret_cast<Delay::Task*>(task);
    self->owner->stack->resume(self->owner->stack, self->request);
  };
  static constexpr sm_filter_ops ops = {SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "delay",
                                        [](void* self, sm_request* request) -> int {
                                          auto* delay = static_cast<Delay*>(self);
                                          ++delay->taken;
                                          delay->task.request = request;
                                          delay->home->post(&delay->task.task);
                                          return SM_FILTER_TAKEN;
                                        },
                                        [](void* self, sm_request*) { ++static_cast<Delay*>(self)->completed; }};
  sm_disk* contract = disk->contract();
  CHECK(VirtualDisk::fromContract(contract) == disk);
  CHECK(std::string(contract->vm) == "vm-1");
  CHECK(contract->bytes == 1 << 20);
  CHECK(stack->filter_attach(stack, contract, &ops, &delay) == 0);
  CHECK(stack->filter_attach(stack, contract, &ops, &delay) == -EEXIST);
  WorkloadOptions load = verifyingLoad(1, 500);
  checkClean(runWorkload(*disk, load));
  CHECK(stack->filter_detach(stack, contract, &delay, 60'000'000'000) == 0);
  CHECK(delay.taken >= 500);
  CHECK(delay.completed == delay.taken);
  REQUIRE_OK(volume->closeDisk(disk));
  CHECK(stack->filter_attach(stack, contract, &ops, &delay) == -ENOENT);
  CHECK(stack->filter_detach(stack, contract, &delay, 1) == -ENOENT);
}

TEST_CASE("services: I/O of any length in pieces, refused outside the device; calls and buffers") {
  TempFolder folder;
  auto host = openHost();
  sm_device* device = test::openDevice(*host, "d0", folder.file("a", 8 << 20));
  std::vector<std::string> said;
  const VolumeServices services(*host->threads()[0],
                                [&](int level, const std::string& message) { said.push_back(message); });
  const sm_services* table = services.table();
  CHECK(table->version == SM_CONTRACT_VERSION);
  std::vector<uint8_t> data(3 * (1 << 20) + 4096), back(data.size());
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 31 + i / 4096);
  CHECK(table->io(table, device, SM_OP_WRITE, 4096, data.data(), data.size()) == 0);
  CHECK(table->io(table, device, SM_OP_FLUSH, 0, nullptr, 0) == 0);
  CHECK(table->io(table, device, SM_OP_READ, 4096, back.data(), back.size()) == 0);
  CHECK(back == data);
  CHECK(table->io(table, device, SM_OP_WRITE_ZEROES, 4096, nullptr, data.size()) == 0);
  CHECK(table->io(table, device, SM_OP_READ, 4096, back.data(), back.size()) == 0);
  CHECK(std::count(back.begin(), back.end(), 0) == static_cast<ptrdiff_t>(back.size()));
  CHECK(table->io(table, device, SM_OP_READ, 8 << 20, back.data(), 512) == -EINVAL);
  CHECK(table->io(table, device, SM_OP_READ, UINT64_MAX - 511, back.data(), 512) == -EINVAL);
  CHECK(table->io(table, device, SM_OP_READ, 100, back.data(), 512) == -EINVAL);
  CHECK(table->io(table, device, SM_OP_READ, 0, nullptr, 0) == 0);
  struct Called {
    const sm_services* table;
    IoThread* on = nullptr;
    int32_t tooMuch = 0, status = 0;
    sm_buffer buffer{};
  } called{table};
  table->call(
      table,
      [](void* context) {
        auto* called = static_cast<Called*>(context);
        called->on = IoThread::current();
        sm_buffer none{};
        called->tooMuch = called->table->buffer_get(called->table, uint64_t{1} << 40, &none);
        called->status = called->table->buffer_get(called->table, 5000, &called->buffer);
        called->table->buffer_put(called->table, &called->buffer);
      },
      &called);
  CHECK(called.on == host->threads()[0].get());
  CHECK(called.tooMuch == -EINVAL);
  CHECK(called.status == 0);
  CHECK(called.buffer.length >= 5000);
  CHECK(reinterpret_cast<uintptr_t>(called.buffer.data) % 4096 == 0);
  table->log(table, SM_LOG_WARNING, "something to say");
  CHECK(said == std::vector<std::string>{"something to say"});
}

TEST_CASE("a host says what the user should know") {
  HostOptions options;
  options.uring = false;
  auto host = openHost(options);
  const std::vector<std::string> notices = host->notices();
  REQUIRE_FALSE(notices.empty());
  CHECK(notices[0].find("io_uring") != std::string::npos);
  CHECK(volumeTypes() == std::vector<std::string>{"extent", "log", "stripe", "nbd", "kernel"});
  const auto drivers = deviceDrivers();
  for (const char* driver : {"null", "posix"}) {
    CHECK(std::find(drivers.begin(), drivers.end(), driver) != drivers.end());
  }
}

TEST_CASE("a tool has timers on each I/O thread, and knows which thread it is on") {
  HostOptions options;
  options.threads = 3;
  auto host = openHost(options);
  auto other = openHost();
  const sm_stack* stack = host->stack();
  CHECK(stack->threads(stack) == 3);
  CHECK(stack->thread(stack) == UINT32_MAX);
  onThread(*other->threads()[0], [&] { CHECK(stack->thread(stack) == UINT32_MAX); });
  struct Timer {
    sm_timer timer{};  // first: found from it
    const sm_stack* stack;
    std::atomic<int> fired{0};
    std::atomic<uint32_t> on{UINT32_MAX};
  };
  for (uint32_t i = 0; i < 3; ++i) {
    Timer soon, never;
    for (Timer* each : {&soon, &never}) {
      each->stack = stack;
      each->timer.run = [](sm_timer* timer) {
        auto* self = reinterpret_cast<Timer*>(timer);
        self->on = self->stack->thread(self->stack);
        ++self->fired;
      };
    }
    onThread(*host->threads()[i], [&] {
      CHECK(stack->thread(stack) == i);
      stack->timer_start(stack, &soon.timer, 1'000'000);
      stack->timer_start(stack, &never.timer, 1'000'000);
      stack->timer_stop(stack, &never.timer);
    });
    while (soon.fired == 0) std::this_thread::yield();
    onThread(*host->threads()[i], [] {});
    CHECK(soon.fired == 1);
    CHECK(soon.on == i);
    CHECK(never.fired == 0);
  }
}
