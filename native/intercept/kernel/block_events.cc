#include "intercept/kernel/block_events.h"

#include <stratamap/request.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <span>
#include <utility>

#include "intercept/kernel/block_events.bpf.h"
#include "sys/bpf_object.h"

namespace sm {

namespace {

alignas(8) constexpr unsigned char kProgram[] = {
#include "intercept/kernel/block_events.bpf.inc"
};

constexpr uint64_t kSector = 512;

// As the program writes them.
static_assert(SM_OP_READ == 1 && SM_OP_WRITE == 2 && SM_OP_FLUSH == 3 && SM_OP_DISCARD == 4 && SM_OP_WRITE_ZEROES == 5);
static_assert(BlockIo::kStart == 0 && BlockIo::kBackMerge == 1 && BlockIo::kFrontMerge == 2 && BlockIo::kIssue == 3 &&
              BlockIo::kQueue == 4);

template <class T>
T shared(T& value) {
  return std::atomic_ref<T>(value).load(std::memory_order_acquire);
}

}  // namespace

BlockEvents::BlockEvents() = default;
BlockEvents::~BlockEvents() = default;

int BlockEvents::open(uint16_t known, void (*told)(void*, const BlockIo&), void* context,
                      std::unique_ptr<BlockEvents>* out, std::string* why) {
  std::unique_ptr<BlockEvents> events(new BlockEvents);
  events->told_ = told;
  events->context_ = context;
  if (const int error =
          BpfObject::open(std::as_bytes(std::span(kProgram)), "events", SM_BLOCK_RING, &events->object_, why)) {
    return error;
  }
  events->memory_ = static_cast<sm_block_memory*>(events->object_->memory(sizeof(sm_block_memory), why));
  if (!events->memory_) return -ENOMEM;
  // No request has this one.
  events->memory_->known = known != 0 ? known : UINT32_MAX;
  const auto take = [](void* self, const void* bytes, size_t length) {
    auto& taken = static_cast<BlockEvents*>(self)->taken_;
    if (length == sizeof(sm_block_event)) taken.push_back(decode(*static_cast<const sm_block_event*>(bytes)));
  };
  events->object_->tell(take, events.get());
  for (const char* program : {"start", "back_merge", "front_merge"}) {
    if (const int error = events->object_->attach(program, why)) return error;
  }
  *out = std::move(events);
  return 0;
}

// A program that runs costs all of the system's I/O some 30 ns.
int BlockEvents::want(Wanted wanted, std::string* why) {
  auto run = [&](bool wants, bool* runs, const char* program) {
    if (!wants || *runs) return 0;
    const int error = object_->attach(program, why);
    *runs = error == 0;
    return error;
  };
  if (const int error = run(wanted.issues, &running_.issues, "issue")) return error;
  return run(wanted.queuedDiscards, &running_.queuedDiscards, "queue");
}

int BlockEvents::watch(dev_t disk, DeviceKey key, std::string* why) {
  const uint32_t count = memory_->devices;
  if (count == SM_BLOCK_DEVICES) {
    *why = "one probe observes no more than " + std::to_string(count) + " devices";
    return -ENOSPC;
  }
  memory_->device[count] = {major(disk) << 20 | minor(disk), key};  // include/linux/kdev_t.h
  std::atomic_ref(memory_->devices).store(count + 1, std::memory_order_release);
  return 0;
}

sm_expected_word* BlockEvents::expected() { return memory_->expected; }

uint64_t BlockEvents::drain() {
  object_->consume();
  if (!taken_.empty()) {
    std::stable_sort(taken_.begin(), taken_.end(), [](const BlockIo& a, const BlockIo& b) { return a.time < b.time; });
    for (const BlockIo& io : taken_) told_(context_, io);
    taken_.clear();
  }
  const uint64_t lost = shared(memory_->lost);
  return lost - std::exchange(lost_, lost);
}

uint64_t BlockEvents::missed() {
  const uint64_t missed = object_->missed();
  return missed - std::exchange(missed_, missed);
}

uint64_t BlockEvents::knownBegun(DeviceKey device) const {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < memory_->devices; ++i) {
    if (memory_->device[i].name != device) continue;
    for (auto& cpu : memory_->known_begun) sum += shared(cpu[i]);
  }
  return sum;
}

void BlockEvents::wait(int timeout) { object_->wait(timeout); }
void BlockEvents::wake() { object_->wake(); }

BlockIo BlockEvents::decode(const sm_block_event& event) {
  BlockIo io;
  io.kind = static_cast<BlockIo::Kind>(event.kind);
  io.op = event.op;
  io.ioprio = event.priority;
  io.device = event.device;
  // A flush has sector -1.
  if (event.bytes > 0 && event.sector <= (UINT64_MAX >> 10) / kSector) {
    io.phys = {event.sector * kSector, event.sector * kSector + event.bytes};
  }
  io.time = event.time;
  io.thread = event.thread;
  return io;
}

}  // namespace sm
