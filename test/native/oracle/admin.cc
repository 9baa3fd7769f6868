// Observers coming and going, and the host's services.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "world_parts.h"

namespace truth {

namespace {
constexpr uint64_t kPatience = 1'000'000'000'000;  // ns: never used up, for the world itself lets things end
}

void World::attach(Watch& watch) {
  std::string why;
  if (sm::Probe::create(&watch.stack.table, watch.map, watch.options, &watch.probe, &why) != 0) return differ(why);
  watch.diskKeys.clear();
  watch.devicesInOrder.clear();
  watch.deviceKeys.clear();
  for (auto& disk : disks_) {
    if (watch.probe->addDisk(&disk->disk) != 0) return differ("a disk could not be added");
    watch.diskKeys.push_back(watch.map->findDisk({disk->vm, disk->name}));
  }
  for (auto& device : devices_) {
    if (watch.probe->addDevice(&device->device) != 0) return differ("a device could not be added");
    watch.devicesInOrder.push_back(device->index);
    watch.deviceKeys.push_back(watch.map->findDevice(device->name));
  }
  watch.ring = std::make_unique<sm::EventRing>(1 << 14, 0);
  watch.probe->subscribe(watch.ring.get(), nullptr, nullptr);
  watch.probe->begin();
  watch.truth.attach();
  ++counts_.attaches;
}

void World::detach(Watch& watch) {
  watch.leavingDevices = watch.devicesInOrder;
  watch.truth.close();
  const bool gaveUp = watch.probe->detach(options_.stuck ? 0 : kPatience) != 0;
  if (gaveUp && !options_.stuck && difference_.empty()) differ("detach gave up, though nothing was inside any more");
  watch.leavingDevices.clear();
  const std::string wrong = watch.onlyWrong ? "" : compareEvents(watch, &counts_);
  if (!wrong.empty()) differ(wrong);
  watch.expected.clear();
  const sm::ProbeCounters counters = watch.probe->counters();
  counts_.unrecorded += counters.unrecorded;
  counts_.evidenceLost += counters.evidenceLost;
  counts_.taintOverflow += counters.taintOverflow;
  if (watch.exact && counters.evidenceLost + counters.taintOverflow != 0)
    differ("something overflowed, though nothing should");
  watch.probe.reset();
}

int32_t World::filterDetach(Watch& watch, sm_disk* disk, void* context) {
  Disk& from = Disk::of(disk);
  auto at =
      std::find_if(from.filters.begin(), from.filters.end(), [&](auto& each) { return each->context == context; });
  if (at == from.filters.end()) return -ENOENT;
  auto filter = *at;
  from.filters.erase(at);
  watch.truth.leaveDisk(from.index);
  if (!options_.stuck) {
    pumpUntil([&] { return filter->inFlight == 0; });
    return difference_.empty() ? 0 : -ETIMEDOUT;
  }
  if (filter->inFlight == 0) return 0;
  watch.truth.abandonDisk(from.index);
  return -ETIMEDOUT;
}

int32_t World::everywhere(Watch& watch) {
  if (watch.leavingDevices.empty()) return 0;
  const uint32_t device = watch.leavingDevices.back();
  watch.leavingDevices.pop_back();
  watch.truth.leaveDevice(device);
  const uint64_t until = order_;
  if (!options_.stuck) {
    pumpUntil([&] {
      return std::none_of(pending_.begin(), pending_.end(),
                          [&](const Pending& each) { return each.device == device && each.order <= until; });
    });
  }
  return difference_.empty() ? 0 : -ETIMEDOUT;
}

void World::admin() {
  if (nested_) return;
  ++happened_;
  Watch& watch = *watches_[below(watches_.size())];
  auto say = [&](const char* what, uint64_t which) {
    if (tracing_)
      std::cerr << counts_.steps << " " << watch.options.association << ": " << what << " " << which << "\n";
  };
  if (!watch.probe) {
    say("attach", 0);
    return attach(watch);
  }
  const uint64_t what = below(6);
  if (what < 2) {
    say("detach", 0);
    return detach(watch);
  }
  const uint64_t timeout = options_.stuck ? 0 : kPatience;
  if (what < 4) {
    // A buffer that a disk out of sight shares with one in sight cannot be known.
    if (options_.wild > 0) return;
    const uint32_t i = static_cast<uint32_t>(below(disks_.size()));
    say(watch.truth.watchesDisk(i) ? "remove disk" : "add disk", i);
    if (watch.truth.watchesDisk(i)) {
      watch.probe->removeDisk(&disks_[i]->disk, timeout);
    } else {
      watch.probe->addDisk(&disks_[i]->disk);
      watch.truth.watchDisk(i);
    }
  } else {
    const uint32_t i = static_cast<uint32_t>(below(devices_.size()));
    say(watch.truth.watchesDevice(i) ? "remove device" : "add device", i);
    if (watch.truth.watchesDevice(i)) {
      watch.leavingDevices = {i};
      std::erase(watch.devicesInOrder, i);
      watch.probe->removeDevice(&devices_[i]->device, timeout);
    } else {
      watch.probe->addDevice(&devices_[i]->device);
      watch.devicesInOrder.push_back(i);
      watch.truth.watchDevice(i);
    }
  }
}

// --- services

sm_request* World::clone(const sm_request* parent, uint64_t from, uint64_t length) {
  Pooled* pooled = this->pooled();
  sm_request& child = pooled->request;
  child.op = parent->op;
  child.ioprio = parent->ioprio;
  child.flags = parent->flags;
  child.length = length;
  Carriers carriers;
  carriers.take(parent);
  carriers.giveSerial(&child);
  carriers.giveFields(&child);
  uint64_t at = 0;
  for (uint32_t i = 0; i < parent->iov_count; ++i) {
    const iovec& segment = parent->iov[i];
    const uint64_t begin = std::max(at, from), end = std::min(at + segment.iov_len, from + length);
    if (begin < end) {
      pooled->segments.push_back({static_cast<std::byte*>(segment.iov_base) + (begin - at), end - begin});
    }
    at += segment.iov_len;
  }
  child.iov = pooled->segments.empty() ? nullptr : pooled->segments.data();
  child.iov_count = static_cast<uint32_t>(pooled->segments.size());
  for (auto& watch : watches_) watch->truth.allocated(&child);
  return &child;
}

int32_t World::io(sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length) {
  Pooled* pooled = this->pooled();
  sm_request* request = &pooled->request;
  iovec iov{data, length};
  request->op = op;
  request->offset = offset;
  request->length = length;
  request->iov = data ? &iov : nullptr;
  request->iov_count = data ? 1 : 0;
  bool done = false;
  sm_request_push(
      request, [](sm_request*, void* context, uint64_t) { *static_cast<bool*>(context) = true; }, &done, 0);
  sm_device_submit(device, request);
  do progress(false);  // at least one thing, for the volume may be waiting for another than this
  while (!done);
  const int32_t status = request->status;
  release(request);
  return status;
}

void World::fillServices() {
  services_.world = this;
  static constexpr auto of = [](const sm_services* self) -> World& {
    return *reinterpret_cast<const Services*>(self)->world;
  };
  sm_services& table = services_.table;
  table.version = SM_CONTRACT_VERSION;
  table.size = sizeof table;
  table.now = [](const sm_services* self) { return of(self).clock_; };
  table.buffer_get = [](const sm_services*, uint64_t length, sm_buffer* out) -> int32_t {
    *out = {std::aligned_alloc(4096, (length + 4095) / 4096 * 4096), length};
    return 0;
  };
  table.buffer_put = [](const sm_services* self, sm_buffer* buffer) {
    std::free(buffer->data);
    of(self).returned_ = true;
  };
  table.post = [](const sm_services* self, sm_task* task) { of(self).posted_.push_back(task); };
  table.call = [](const sm_services* self, void (*run)(void*), void* context) {
    std::deque<sm_task*> tasks;  // a call comes after what was posted before it
    tasks.swap(of(self).posted_);
    for (sm_task* task : tasks) task->run(task);
    run(context);
  };
  table.timer_start = [](const sm_services* self, sm_timer* timer, uint64_t delay) {
    self->timer_stop(self, timer);
    timer->due = of(self).clock_ + delay;
    of(self).timers_.push_back(timer);
  };
  table.timer_stop = [](const sm_services* self, sm_timer* timer) { std::erase(of(self).timers_, timer); };
  table.clone = [](const sm_services* self, const sm_request* parent, uint64_t from, uint64_t length) {
    return of(self).clone(parent, from, length);
  };
  table.fresh = [](const sm_services* self) {
    sm_request* child = &of(self).pooled()->request;
    for (auto& watch : of(self).watches_) watch->truth.allocated(child);
    return child;
  };
  table.wait = [](const sm_services* self, sm_task* task) { of(self).waiters_.push_back(task); };
  table.release = [](const sm_services* self, sm_request* child) { of(self).release(child); };
  table.io = [](const sm_services* self, sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length) {
    return of(self).io(device, op, offset, data, length);
  };
  table.log = [](const sm_services*, int, const char*) {};
}

}  // namespace truth
