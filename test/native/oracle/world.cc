#include "world.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iostream>

#include "world_parts.h"

namespace truth {

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
    for (const auto& pooled : world.pool_) busy += pooled->busy && pooled->epoch < stamp;
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
  table.threads = [](const sm_stack*) -> uint32_t { return 0; };
  table.thread = [](const sm_stack*) { return UINT32_MAX; };
  table.timer_start = [](const sm_stack*, sm_timer*, uint64_t) {};
  table.timer_stop = [](const sm_stack*, sm_timer*) {};
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
