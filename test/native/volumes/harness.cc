#include "harness.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace sm::test {
namespace {

constexpr uint64_t kSector = 512;

// Calls `each(memory, length, at)` for the segments of a request's data.
template <typename Each>
void forSegments(const sm_request& request, Each each) {
  uint64_t at = 0;
  for (uint32_t i = 0; i < request.iov_count; ++i) {
    each(static_cast<uint8_t*>(request.iov[i].iov_base), request.iov[i].iov_len, at);
    at += request.iov[i].iov_len;
  }
}

}  // namespace

World::World(const WorldOptions& options, const std::vector<Bytes>* images) : random_(options.seed), options_(options) {
  for (size_t i = 0; i < options.devices.size(); ++i) {
    auto memory = std::make_unique<MemoryDevice>();
    const DeviceShape& shape = options.devices[i];
    memory->world = this;
    memory->name = "d" + std::to_string(i);
    memory->now.resize(shape.bytes);
    if (images)
      std::copy_n((*images)[i].begin(), std::min<size_t>((*images)[i].size(), shape.bytes), memory->now.begin());
    memory->stable = memory->now;
    memory->ops = {SM_CONTRACT_VERSION, sizeof(sm_device_ops),
                   [](const sm_device_ops*, sm_device* device, sm_request* request) {
                     auto* memory = static_cast<MemoryDevice*>(device->driver);
                     memory->world->submit(*memory, request);
                   }};
    memory->device = {&memory->ops,      static_cast<uint32_t>(i + 1),
                      shape.flags,       memory->name.c_str(),
                      shape.bytes,       shape.blockSize,
                      shape.maxTransfer, memory.get()};
    pointers_.push_back(&memory->device);
    devices_.push_back(std::move(memory));
  }
  fillTable();
}

World::~World() {
  CHECK(live_ == 0);
  CHECK(buffers_ == 0);
  CHECK(slots_.empty());
  CHECK(waiters_.empty());
  CHECK(timers_.empty());
  for (Slot* slot : slots_) delete slot;
}

void World::fillTable() {
  table_.version = SM_CONTRACT_VERSION;
  table_.size = sizeof table_;
  table_.now = [](const sm_services* self) { return of(self).clock_; };
  table_.buffer_get = [](const sm_services* self, uint64_t length, sm_buffer* out) -> int32_t {
    if (of(self).buffers_ >= of(self).options_.buffers) return -ENOMEM;
    ++of(self).buffers_;
    *out = {aligned_alloc(4096, (length + 4095) / 4096 * 4096), length};
    return 0;
  };
  table_.buffer_put = [](const sm_services* self, sm_buffer* buffer) {
    free(buffer->data);
    --of(self).buffers_;
    of(self).returned_ = true;
  };
  table_.post = [](const sm_services* self, sm_task* task) {
    std::lock_guard<std::mutex> lock(of(self).mutex_);
    of(self).posted_.push_back(task);
  };
  table_.call = [](const sm_services* self, void (*run)(void*), void* context) {
    of(self).runPosted();
    run(context);
  };
  table_.timer_start = [](const sm_services* self, sm_timer* timer, uint64_t delay) {
    self->timer_stop(self, timer);
    timer->due = of(self).clock_ + delay;
    of(self).timers_.push_back(timer);
  };
  table_.timer_stop = [](const sm_services* self, sm_timer* timer) { std::erase(of(self).timers_, timer); };
  table_.clone = [](const sm_services* self, const sm_request* parent, uint64_t from, uint64_t length) {
    return of(self).clone(parent, from, length);
  };
  table_.fresh = [](const sm_services* self) -> sm_request* {
    Slot* slot = of(self).allocate(true);
    return slot ? &slot->request : nullptr;
  };
  table_.wait = [](const sm_services* self, sm_task* task) { of(self).waiters_.push_back(task); };
  table_.release = [](const sm_services* self, sm_request* child) { of(self).release(child, true); };
  table_.io = [](const sm_services* self, sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length) {
    return of(self).io(device, op, offset, data, length);
  };
  table_.log = [](const sm_services* self, int, const char* message) { of(self).log.push_back(message); };
}

World::Slot* World::allocate(bool child) {
  if (child && live_ >= options_.children) return nullptr;
  auto* slot = new Slot;
  slot->request.extension = slot->extension;
  slot->request.serial = ++serial_;
  slot->child = child;
  live_ += child;
  slots_.insert(slot);
  return slot;
}

void World::release(sm_request* request, bool child) {
  auto* slot = reinterpret_cast<Slot*>(request);
  REQUIRE(slots_.erase(slot) == 1);
  REQUIRE(slot->child == child);
  live_ -= child;
  returned_ = true;
  delete slot;
}

sm_request* World::parent() { return &allocate(false)->request; }
void World::releaseParent(sm_request* request) { release(request, false); }

sm_request* World::clone(const sm_request* parent, uint64_t from, uint64_t length) {
  REQUIRE(from <= parent->length);
  REQUIRE(length <= parent->length - from);
  Slot* slot = allocate(true);
  if (!slot) return nullptr;
  sm_request& child = slot->request;
  child.op = parent->op;
  child.ioprio = parent->ioprio;
  child.flags = parent->flags;
  child.length = length;
  child.serial = parent->serial;
  child.private_data = parent->private_data;
  memcpy(child.spare, parent->spare, sizeof child.spare);
  memcpy(slot->extension, parent->extension, SM_EXTENSION);
  if (!parent->iov) return &child;
  child.iov = slot->iov;
  forSegments(*parent, [&](uint8_t* memory, uint64_t size, uint64_t at) {
    const uint64_t begin = std::max(at, from), end = std::min(at + size, from + length);
    if (begin < end) slot->iov[child.iov_count++] = {memory + (begin - at), end - begin};
  });
  return &child;
}

void World::submit(MemoryDevice& device, sm_request* request) {
  const DeviceShape& shape = options_.devices[device.device.id - 1];
  REQUIRE(request->op >= SM_OP_READ);
  REQUIRE(request->op <= SM_OP_WRITE_ZEROES);
  REQUIRE(request->frame_count >= 1);
  ++device.counts[request->op];
  if (request->op == SM_OP_FLUSH) {
    REQUIRE(request->length == 0);
  } else {
    REQUIRE(request->length > 0);
    REQUIRE(request->length <= shape.maxTransfer);
    REQUIRE(request->offset <= shape.bytes);
    REQUIRE(request->length <= shape.bytes - request->offset);
    REQUIRE((request->offset | request->length) % shape.blockSize == 0);
  }
  uint64_t sum = 0;
  forSegments(*request, [&](uint8_t*, uint64_t size, uint64_t) { sum += size; });
  const bool carries = request->op == SM_OP_READ || request->op == SM_OP_WRITE;
  REQUIRE(sum == (carries ? request->length : 0));
  if (onSubmit) onSubmit(device, *request);
  flights_.push_back({request, device.folded + device.changes.size()});
  if (chance(random_, options_.immediate) && !(hold && hold(*request))) complete(flights_.size() - 1);
}

void World::complete(size_t index) {
  const Flight flight = flights_[index];
  flights_[index] = flights_.back();
  flights_.pop_back();
  sm_request* request = flight.request;
  auto& device = *static_cast<MemoryDevice*>(request->device->driver);
  const int32_t status = fail ? fail(device, *request) : 0;
  if (status) {
    if (request->op == SM_OP_WRITE) changeInPart(device, *request);
    return sm_request_complete(request, status);
  }
  switch (request->op) {
    case SM_OP_READ:
      forSegments(*request, [&](uint8_t* memory, uint64_t size, uint64_t at) {
        memcpy(memory, device.now.data() + request->offset + at, size);
      });
      break;
    case SM_OP_WRITE: {
      Bytes data(request->length);
      forSegments(*request, [&](uint8_t* memory, uint64_t size, uint64_t at) { memcpy(&data[at], memory, size); });
      change(device, request->offset, std::move(data), request->flags & SM_FLAG_FUA);
      break;
    }
    case SM_OP_WRITE_ZEROES:
      change(device, request->offset, Bytes(request->length), request->flags & SM_FLAG_FUA);
      break;
    case SM_OP_DISCARD: {  // leaves some sectors and zeroes the others
      const auto* from = device.now.data() + request->offset;
      Bytes data(from, from + request->length);
      for (uint64_t at = 0; at < data.size(); at += kSector)
        if (chance(random_, 50)) memset(&data[at], 0, kSector);
      change(device, request->offset, std::move(data), false);
      break;
    }
    case SM_OP_FLUSH:
      for (uint64_t i = 0; device.folded + i < flight.flushUpTo; ++i) device.changes[i].durable = true;
      while (!device.changes.empty() && device.changes.front().durable) {
        const MemoryDevice::Change& first = device.changes.front();
        std::copy(first.data.begin(), first.data.end(), device.stable.begin() + static_cast<long>(first.offset));
        device.changes.pop_front();
        ++device.folded;
      }
      break;
  }
  sm_request_complete(request, 0);
}

void World::change(MemoryDevice& device, uint64_t offset, Bytes data, bool durable) {
  std::copy(data.begin(), data.end(), device.now.begin() + static_cast<long>(offset));
  device.changes.push_back({offset, std::move(data), durable});
}

// What a write that failed may have left: none, some or all of its sectors.
void World::changeInPart(MemoryDevice& device, const sm_request& request) {
  const uint32_t percents[] = {0, 50, 100};
  const uint32_t percent = percents[below(random_, 3)];
  Bytes data(request.length);
  forSegments(request, [&](uint8_t* memory, uint64_t size, uint64_t at) { memcpy(&data[at], memory, size); });
  for (uint64_t at = 0; at < data.size(); at += kSector)
    if (!chance(random_, percent)) memcpy(&data[at], &device.now[request.offset + at], kSector);
  change(device, request.offset, std::move(data), false);
}

std::vector<Bytes> World::crash() {
  std::vector<Bytes> images;
  for (auto& device : devices_) {
    Bytes image = device->stable;
    const auto apply = [&](const MemoryDevice::Change& change, uint32_t percent) {
      for (uint64_t at = 0; at < change.data.size(); at += kSector)
        if (change.durable || chance(random_, percent)) memcpy(&image[change.offset + at], &change.data[at], kSector);
    };
    const uint32_t percents[] = {0, 50, 50, 100};
    for (const auto& change : device->changes) apply(change, percents[below(random_, 4)]);
    for (const Flight& flight : flights_) {
      const sm_request& request = *flight.request;
      if (request.device != &device->device || !sm_op_modifies(request.op) || request.op == SM_OP_DISCARD) continue;
      MemoryDevice::Change change{request.offset, Bytes(request.length), false};
      forSegments(request,
                  [&](uint8_t* memory, uint64_t size, uint64_t at) { memcpy(&change.data[at], memory, size); });
      apply(change, percents[below(random_, 4)]);
    }
    images.push_back(std::move(image));
  }
  return images;
}

std::vector<Bytes> World::durable() {
  std::vector<Bytes> images;
  for (auto& device : devices_) {
    Bytes image = device->stable;
    for (const auto& change : device->changes)
      if (change.durable) std::copy(change.data.begin(), change.data.end(), &image[change.offset]);
    images.push_back(std::move(image));
  }
  return images;
}

void World::runWaiters() {
  returned_ = false;
  std::deque<sm_task*> waiters;
  waiters.swap(waiters_);
  for (sm_task* waiter : waiters) waiter->run(waiter);
}

void World::runPosted() {
  std::deque<sm_task*> tasks;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    tasks.swap(posted_);
  }
  for (sm_task* task : tasks) task->run(task);
}

bool World::completeOne() {
  std::vector<size_t> free;
  for (size_t i = 0; i < flights_.size(); ++i)
    if (!hold || !hold(*flights_[i].request)) free.push_back(i);
  if (free.empty()) return false;
  complete(free[below(random_, free.size())]);
  return true;
}

bool World::step() {
  if (onStep) onStep();
  ++clock_;
  sm_task* task = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t choices = flights_.size() + timers_.size() + (posted_.empty() ? 0 : 2);
    if (!posted_.empty() && below(random_, choices) < 2) {
      task = posted_.front();
      posted_.pop_front();
    }
  }
  if (task) {
    task->run(task);
  } else if (returned_ && !waiters_.empty() && chance(random_, 30)) {
    runWaiters();
  } else if (!timers_.empty() && (flights_.empty() || chance(random_, 20))) {
    const auto first =
        std::min_element(timers_.begin(), timers_.end(), [](sm_timer* a, sm_timer* b) { return a->due < b->due; });
    sm_timer* timer = *first;
    timers_.erase(first);
    clock_ = std::max(clock_, timer->due);
    timer->run(timer);
  } else if (completeOne()) {
    return true;
  } else if (returned_ && !waiters_.empty()) {
    runWaiters();
  } else {
    std::lock_guard<std::mutex> lock(mutex_);
    return !posted_.empty();
  }
  return true;
}

void World::runUntil(const std::function<bool()>& done) {
  const auto start = std::chrono::steady_clock::now();
  while (!done()) {
    if (step()) continue;
    if (!options_.threads) FAIL("the volume hangs: nothing is in flight, and not all is done");
    if (std::chrono::steady_clock::now() - start > std::chrono::seconds(60)) FAIL("the volume's threads hang");
    std::this_thread::yield();
  }
}

int32_t World::io(sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length) {
  int32_t status = 0;
  do {
    const uint64_t piece = std::min<uint64_t>(length, device->max_transfer);
    sm_request* request = parent();
    iovec iov{data, piece};
    request->op = op;
    request->offset = offset;
    request->length = piece;
    if (data) request->iov = &iov;
    request->iov_count = data ? 1 : 0;
    bool done = false;
    sm_request_push(
        request, [](sm_request*, void* context, uint64_t) { *static_cast<bool*>(context) = true; }, &done, 0);
    sm_device_submit(device, request);
    runUntil([&] { return done; });
    status = request->status;
    releaseParent(request);
    offset += piece;
    length -= piece;
    if (data) data = static_cast<char*>(data) + piece;
  } while (length > 0 && status == 0);
  return status;
}

}  // namespace sm::test
