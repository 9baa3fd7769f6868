#include "world.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iostream>

#include "world_parts.h"

namespace truth {

namespace {
std::atomic<uint32_t> nextDevice{1'000'000};  // ids are never used again in a process
}

World::World(const WorldOptions& options)
    : random(options.seed),
      options_(options),
      memory_(kSlots * kSlotBlocks * kBlock),
      content_(std::vector<uint64_t>(options.disks, options.diskBlocks)) {
  fillServices();
  for (uint64_t slot = 0; slot < kSlots; ++slot) freeSlots_.push_back(slot);
  for (uint32_t i = 0; i < 2; ++i) devices_.push_back(std::make_unique<Device>(*this, i));
  for (uint32_t i = 0; i < options.disks; ++i) disks_.push_back(std::make_unique<Disk>(*this, i));
  volume_ = options.volume(*this);
  oracle::OracleOptions truth;
  truth.capacity = options.exact ? options.capacity : UINT64_MAX;
  truth.diskBlocks.assign(options.disks, options.diskBlocks);
  truth.deviceBlocks.assign(2, options.deviceBlocks);
  truth.sharedDevice = {false, options.sharedDevice};
  for (const Observer& observer : options.observers) {
    watches_.push_back(std::make_unique<Watch>(*this, observer, truth));
  }
}

World::~World() {
  endedInFlight_ = !quiet();
  roots_.clear();  // they may hold children
  volume_.reset();
}

void Carriers::take(const sm_request* from) {
  serial = from->serial;
  std::memcpy(spare, from->spare, sizeof spare);
  privateData = from->private_data;
  std::memcpy(extension, from->extension, sizeof extension);
}

void Carriers::giveFields(sm_request* to) const {
  std::memcpy(to->spare, spare, sizeof spare);
  to->private_data = privateData;
  std::memcpy(to->extension, extension, sizeof extension);
}

Watch::Watch(World& owner, const Observer& observer, oracle::OracleOptions truthOptions)
    : world(owner),
      truth((truthOptions.carrier = observer.carrier(), truthOptions)),
      below(owner.devices_.size()),
      exact(owner.options().exact && observer.foretold()),
      onlyWrong(owner.options().onlyWrong || !observer.foretold()) {
  options.association = observer.association;
  options.correlation = observer.correlation;
  options.capacity = owner.options().capacity;
  options.slots = owner.options().slots;
  options.shadowBytes = owner.options().shadowBytes;
  stack.watch = this;
  sm_stack& table = stack.table;
  table.version = SM_CONTRACT_VERSION;
  table.size = sizeof table;
  static constexpr auto of = [](const sm_stack* self) -> Watch& {
    return *reinterpret_cast<const Stack*>(self)->watch;
  };
  table.everywhere = [](const sm_stack* self, void (*run)(void*), void* context, uint64_t) {
    run(context);
    return of(self).world.everywhere(of(self));
  };
  table.stamp = [](const sm_stack* self) { return ++of(self).world.epoch_; };
  table.busy_before = [](const sm_stack* self, uint64_t stamp) {
    World& world = of(self).world;
    uint64_t busy = 0;
    for (const auto& guest : world.guests_) busy += World::Pooled::of(guest->request)->epoch < stamp;
    for (const auto& pending : world.pending_) busy += World::Pooled::of(pending.request)->epoch < stamp;
    return busy;
  };
  table.filter_attach = [](const sm_stack* self, sm_disk* disk, const sm_filter_ops* ops, void* context) -> int32_t {
    auto& filters = World::Disk::of(disk).filters;
    filters.insert(filters.begin(), std::make_shared<World::Filter>(World::Filter{ops, context}));
    return 0;
  };
  table.filter_detach = [](const sm_stack* self, sm_disk* disk, void* context, uint64_t) {
    return of(self).world.filterDetach(of(self), disk, context);
  };
  table.resume = [](const sm_stack*, sm_request*) {};
  table.now = [](const sm_stack* self) { return of(self).world.clock_; };
}

void World::differ(const std::string& what) {
  if (difference_.empty()) difference_ = what;
}

void World::happens(const char* what, const sm_request* request, int64_t where) {
  ++happened_;
  if (!tracing_) return;
  static const char* const kOps[] = {"", "read", "write", "flush", "discard", "zeroes"};
  std::cerr << counts_.steps << " " << what << " " << kOps[request->op] << " " << where << ":"
            << request->offset / kBlock << "+" << request->length / kBlock << " serial " << request->serial
            << " status " << request->status << " memory";
  for (const std::byte* block : oracle::memoryOf(request))
    std::cerr << " " << (block - memory_.data()) / int64_t{kBlock};
  std::cerr << "\n";
}

std::vector<sm_device*> World::devices() {
  std::vector<sm_device*> out;
  for (auto& device : devices_) out.push_back(&device->device);
  return out;
}

const std::byte* World::deviceBlock(uint64_t place) const {
  return devices_[place / options_.deviceBlocks]->bytes.data() + place % options_.deviceBlocks * kBlock;
}

std::byte* World::allocate(uint64_t* slot) {
  auto at = freeSlots_.begin() + static_cast<ptrdiff_t>(below(std::min<uint64_t>(6, freeSlots_.size())));
  *slot = *at;
  freeSlots_.erase(at);
  return memory_.data() + *slot * kSlotBlocks * kBlock;
}

bool World::quiet() const {
  return guests_.empty() && pending_.empty() && roots_.empty() && posted_.empty() && volume_->idle();
}

// --- requests

World::Pooled* World::pooled() {
  if (freeRequests_.empty()) {
    pool_.push_back(std::make_unique<Pooled>());
    freeRequests_.push_back(pool_.back().get());
  }
  Pooled* pooled = freeRequests_.back();
  freeRequests_.pop_back();
  *pooled = Pooled{};
  pooled->request.extension = pooled->extension;
  pooled->request.serial = ++serial_;
  pooled->epoch = epoch_;
  return pooled;
}

void World::release(sm_request* request) {
  freeRequests_.push_back(Pooled::of(request));
  returned_ = true;
}

std::vector<iovec> segments(const std::vector<std::byte*>& memory) {
  std::vector<iovec> out;
  for (std::byte* block : memory) {
    if (!out.empty() && static_cast<std::byte*>(out.back().iov_base) + out.back().iov_len == block) {
      out.back().iov_len += kBlock;
    } else {
      out.push_back({block, kBlock});
    }
  }
  return out;
}

GuestPtr World::submit(uint8_t op, uint32_t disk, uint64_t first, uint64_t blocks) {
  auto guest = std::make_shared<Guest>();
  guest->op = op;
  guest->disk = disk;
  guest->first = first;
  guest->blocks = blocks;
  if (op == SM_OP_READ || op == SM_OP_WRITE) {
    std::vector<GuestPtr> sharable;
    if (chance(options_.wild)) {
      for (auto& other : guests_) {
        if (other->op == op && other->blocks >= blocks) sharable.push_back(other);
      }
    }
    if (!sharable.empty()) {
      const Guest& other = *sharable[below(sharable.size())];
      guest->slot = other.slot;
      guest->memory.assign(other.memory.begin(), other.memory.begin() + static_cast<ptrdiff_t>(blocks));
    } else {
      uint64_t slot;
      std::byte* base = allocate(&slot) + below(4) * kBlock;
      guest->slot = static_cast<int>(slot);
      for (uint64_t i = 0; i < blocks; ++i) guest->memory.push_back(base + i * kBlock);
      if (blocks <= SM_IOV_MAX && chance(.15)) std::shuffle(guest->memory.begin(), guest->memory.end(), random);
      if (op == SM_OP_WRITE) {
        for (uint64_t i = 0; i < blocks; ++i) {
          const double what = std::uniform_real_distribution<double>(0, 1)(random);
          Bytes bytes{};
          if (what < .1) {
          } else if (what < .2) {
            bytes.fill(static_cast<std::byte>(1 + below(3)));
          } else {
            bytes = oracle::signedPayload(guest->unit(i), ++generation_, random());
          }
          std::memcpy(guest->memory[i], bytes.data(), kBlock);
        }
        if (blocks > 1 && chance(options_.wild / 2)) guest->memory.back() = guest->memory.front();  // one block twice
      }
    }
  }
  Pooled* pooled = this->pooled();
  sm_request* request = guest->request = &pooled->request;
  request->op = op;
  request->offset = first * kBlock;
  request->length = blocks * kBlock;
  request->disk = &disks_[disk]->disk;
  pooled->segments = segments(guest->memory);
  if (!pooled->segments.empty()) {
    request->iov = pooled->segments.data();
    request->iov_count = static_cast<uint32_t>(pooled->segments.size());
  }
  if (chance(options_.foreignField)) {
    for (uint64_t& word : request->spare) word = random() | 1;
    request->private_data = reinterpret_cast<void*>(random() | 1);
    std::memset(request->extension, 0x5a, SM_EXTENSION);
  }
  sm_request_push(request, guestDone, this, 0);
  const bool blind = chance(options_.loss);
  if (blind) {
    ++counts_.losses;
    while (sm_request_push(
               request, [](sm_request* r, void*, uint64_t) { sm_request_pop(r); }, nullptr, 0) == 0) {
    }
  }
  guests_.push_back(guest);
  ++counts_.requests;
  content_.submitted(request, disk);
  happens("submit", request, disk);
  for (auto& watch : watches_) {
    const uint64_t overlapsBefore = watch->truth.overlaps();
    const bool watched = watch->truth.watchesDisk(disk);
    watch->truth.submitted(request, disk, blind);
    if (&watch == &watches_.front()) counts_.overlaps += watch->truth.overlaps() - overlapsBefore;
    if (watched && blind) watch->expected.push_back({op, 0, disk, request->offset, request->length});
    for (uint64_t i = 0; i < blocks; ++i) watch->dirtyDisk.push_back(guest->unit(i));
  }
  for (auto& filter : disks_[disk]->filters) {
    ++filter->inFlight;
    pooled->filters.push_back(filter);
  }
  for (auto& filter : pooled->filters) filter->ops->submit(filter->context, request);
  guest->carriers.take(request);
  volume_->submit(guest);
  return guest;
}

void World::complete(const GuestPtr& guest, bool ok) { sm_request_complete(guest->request, ok ? 0 : -EIO); }

void World::guestDone(sm_request* request, void* context, uint64_t) {
  World& world = *static_cast<World*>(context);
  auto at =
      std::find_if(world.guests_.begin(), world.guests_.end(), [&](auto& each) { return each->request == request; });
  const GuestPtr guest = *at;
  world.guests_.erase(at);
  world.happens("complete", request, guest->disk);
  const std::string wrong = world.content_.completed(request);
  if (!wrong.empty()) world.differ("the test volume is broken: " + wrong);
  for (auto& watch : world.watches_) {
    if (watch->truth.follows(request)) {
      watch->expected.push_back({request->op, request->status, guest->disk, request->offset, request->length});
    }
    watch->truth.completed(request);
    for (uint64_t i = 0; i < guest->blocks; ++i) watch->dirtyDisk.push_back(guest->unit(i));
  }
  for (auto& filter : Pooled::of(request)->filters) --filter->inFlight;
  if (guest->slot >= 0 &&
      std::none_of(world.guests_.begin(), world.guests_.end(), [&](auto& each) { return each->slot == guest->slot; })) {
    world.free(static_cast<uint64_t>(guest->slot));
  }
  guest->request = nullptr;
  world.release(request);
}

ChildPtr World::issue(uint8_t op, uint64_t place, const std::vector<std::byte*>& memory, uint64_t blocks,
                      const std::function<void(sm_request*)>& fill, bool full) {
  auto child = std::make_shared<Child>();
  Pooled* pooled = this->pooled();
  sm_request* request = child->request = &pooled->request;
  child->iov = segments(memory);
  request->op = op;
  request->offset = place % options_.deviceBlocks * kBlock;
  request->length = blocks * kBlock;
  request->iov = child->iov.empty() ? nullptr : child->iov.data();
  request->iov_count = static_cast<uint32_t>(child->iov.size());
  if (fill) fill(request);
  pooled->child = child;
  sm_request_push(
      request,
      [](sm_request* request, void* context, uint64_t) {
        World& world = *static_cast<World*>(context);
        ChildPtr child = std::move(Pooled::of(request)->child);
        child->done = true;
        child->status = request->status;
        world.release(request);
      },
      this, 0);
  if (full) {
    pooled->full = true;
    ++counts_.losses;
    while (sm_request_push(
               request, [](sm_request* r, void*, uint64_t) { sm_request_pop(r); }, nullptr, 0) == 0) {
    }
  }
  sm_device_submit(&devices_[place / options_.deviceBlocks]->device, request);
  return child;
}

// --- devices

World::Device::Device(World& owner, uint32_t number)
    : world(owner), index(number), bytes(owner.options_.deviceBlocks * kBlock), name("d" + std::to_string(number)) {
  ops = {SM_CONTRACT_VERSION, sizeof(sm_device_ops), [](const sm_device_ops*, sm_device* device, sm_request* request) {
           Device& self = *static_cast<Device*>(device->driver);
           self.world.taken(self, request);
         }};
  device.ops = &ops;
  device.id = nextDevice++;
  device.flags = SM_DEVICE_DISCARD | (owner.options_.sharedDevice && index == 1 ? SM_DEVICE_SHARED : 0);
  device.name = name.c_str();
  device.bytes = bytes.size();
  device.block_size = kBlock;
  device.max_transfer = 1 << 20;
  device.driver = this;
}

void World::taken(Device& device, sm_request* request) {
  Pooled* pooled = Pooled::of(request);
  happens("  issue", request, device.index);
  ++counts_.children;
  for (auto& watch : watches_) {
    if (watch->truth.watchesDevice(device.index)) {
      ++watch->below[device.index].operations;
      watch->below[device.index].bytes += request->length;
    }
    watch->truth.issued(request, device.index, pooled->full);
    for (uint64_t at = 0; at < request->length; at += kBlock) {
      watch->dirtyDevice.push_back({device.index, (request->offset + at) / kBlock});
    }
  }
  for (const Pending& other : pending_) {  // two modifications of one block of a device, in flight at once
    counts_.collisions += other.device == device.index && sm_op_modifies(request->op) &&
                          sm_op_modifies(other.request->op) && other.request->serial != request->serial &&
                          other.request->offset < request->offset + request->length &&
                          request->offset < other.request->offset + other.request->length;
  }
  pending_.push_back({request, device.index, ++order_});
  if (chance(.1)) {
    effect(&pending_.back());
    finish(pending_.size() - 1);
  }
}

void World::effect(Pending* pending) {
  sm_request* request = pending->request;
  std::byte* at = devices_[pending->device]->bytes.data() + request->offset;
  pending->effected = true;
  pending->status = !watches_.empty() && chance(options_.failing) ? -EIO : 0;
  uint64_t blocks = request->length / kBlock;
  if (pending->status != 0) blocks /= 2;
  happens(pending->status ? "  fail" : "  effect", request, pending->device);
  const auto memory = oracle::memoryOf(request);
  for (uint64_t i = 0; i < blocks; ++i, at += kBlock) {
    switch (request->op) {
      case SM_OP_READ:
        std::memcpy(const_cast<std::byte*>(memory[i]), at, kBlock);
        break;
      case SM_OP_WRITE:
        std::memcpy(at, memory[i], kBlock);
        break;
      case SM_OP_WRITE_ZEROES:
        std::memset(at, 0, kBlock);
        break;
      case SM_OP_DISCARD:
        std::memset(at, chance(.5) ? 0 : static_cast<int>(0x80 | below(0x80)), kBlock);
        break;
    }
  }
}

void World::finish(size_t index) {
  const Pending pending = pending_[index];
  pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(index));
  happens("  land", pending.request, pending.device);
  for (auto& watch : watches_) {
    watch->truth.landed(pending.request, pending.status);
    for (uint64_t at = 0; at < pending.request->length; at += kBlock) {
      watch->dirtyDevice.push_back({pending.device, (pending.request->offset + at) / kBlock});
    }
  }
  sm_request_complete(pending.request, pending.status);
}

// --- what happens next

void World::spawn(Co<void> task) {
  auto handle = task.handle();
  roots_.push_back(std::unique_ptr<Root>(new Root{std::move(task), handle, {}}));
}

void World::Pause::await_suspend(std::coroutine_handle<> self) {
  world.running_->leaf = self;
  world.running_->waits = std::move(waits);
}

bool World::runContract() {
  if (!posted_.empty()) {
    sm_task* task = posted_.front();
    posted_.pop_front();
    task->run(task);
    return true;
  }
  if (returned_ && !waiters_.empty()) {
    returned_ = false;
    std::deque<sm_task*> waiters;
    waiters.swap(waiters_);
    for (sm_task* task : waiters) task->run(task);
    return true;
  }
  if (timers_.empty()) return false;
  auto first = std::min_element(timers_.begin(), timers_.end(), [](auto* a, auto* b) { return a->due < b->due; });
  sm_timer* timer = *first;
  timers_.erase(first);
  timer->run(timer);
  return true;
}

// Lets one thing go on. False: there was nothing, or `mayVolunteer` and it was left to the caller.
bool World::progress(bool mayVolunteer) {
  std::vector<Root*> ready;
  for (auto& root : roots_) {
    if (std::all_of(root->waits.begin(), root->waits.end(), [](const ChildPtr& c) { return c->done; })) {
      ready.push_back(root.get());
    }
  }
  const bool contract = !posted_.empty() || !timers_.empty() || (returned_ && !waiters_.empty());
  const uint64_t choices = ready.size() + pending_.size() + contract + (mayVolunteer ? 2 : 0);
  if (choices == 0) return false;
  const uint64_t pick = below(choices);
  if (pick < ready.size()) {
    Root* root = ready[pick];
    running_ = root;
    root->waits.clear();
    root->leaf.resume();
    running_ = nullptr;
    if (root->task.done()) std::erase_if(roots_, [&](auto& each) { return each.get() == root; });
  } else if (pick < ready.size() + pending_.size()) {
    const size_t index = pick - ready.size();
    if (pending_[index].effected) finish(index);
    else effect(&pending_[index]);
  } else if (contract && pick == ready.size() + pending_.size()) {
    runContract();
  } else {
    return false;
  }
  return true;
}

void World::randomSubmit() {
  static constexpr uint8_t kOps[] = {SM_OP_WRITE, SM_OP_WRITE,        SM_OP_WRITE,   SM_OP_WRITE, SM_OP_WRITE,
                                     SM_OP_WRITE, SM_OP_READ,         SM_OP_READ,    SM_OP_READ,  SM_OP_READ,
                                     SM_OP_READ,  SM_OP_WRITE_ZEROES, SM_OP_DISCARD, SM_OP_FLUSH};
  const uint8_t op = kOps[below(std::size(kOps))];
  const uint32_t disk = static_cast<uint32_t>(below(options_.disks));
  if (op == SM_OP_FLUSH) {
    submit(op, disk, 0, 0);
    return;
  }
  uint64_t blocks = 1 + below(options_.largest);
  if (options_.spiky) blocks = chance(.05) ? options_.largest : 1;
  uint64_t first = below(options_.diskBlocks - blocks + 1);
  if (options_.spiky && blocks == 1) first &= ~uint64_t{1};  // so that they do not touch
  submit(op, disk, first, blocks);
}

// A step counts when something became visible: a submission, an issue, an effect, a landing, a completion, an attach.
void World::tick(bool all) {
  clock_ += 10;
  for (auto& watch : watches_) {
    if (watch->probe) watch->probe->learning();  // it looks whether it may by itself, but not at every event
  }
  if (happened_ == 0) return;
  happened_ = 0;
  ++counts_.steps;
  for (auto& watch : watches_) check(*watch, all || counts_.steps % 64 == 0);
}

bool World::step() {
  if (chance(options_.admin)) admin();
  if (!progress(true)) {
    if (guests_.size() < options_.depth) randomSubmit();
    else if (chance(.5)) volume_->background();
  }
  tick(false);
  return difference_.empty();
}

bool World::advance() {
  progress(false);
  tick(true);
  return difference_.empty();
}

bool World::drain() {
  for (uint64_t i = 0; !quiet() && difference_.empty(); ++i) {
    progress(false);
    if (i > 1'000'000) differ("the volume hangs");
    tick(false);
  }
  compareAll();
  return difference_.empty();
}

void World::pumpUntil(const std::function<bool()>& done) {
  nested_ = true;
  for (uint64_t i = 0; !done() && difference_.empty(); ++i) {
    if (guests_.size() < options_.depth && chance(.1)) randomSubmit();
    else progress(false);
    if (i > 1'000'000) differ("detaching never ends");
    tick(false);
  }
  nested_ = false;
}

}  // namespace truth
