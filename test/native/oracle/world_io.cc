// The world's requests and devices: what is submitted above, issued below, and done to the media.
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
  Pooled::of(request)->busy = false;
  for (auto& watch : watches_) watch->truth.released(request);
  freeRequests_.push_back(Pooled::of(request));
  returned_ = true;
  for (auto& watch : watches_) {
    if (watch->probe) watch->probe->learning();  // it looks whether it may by itself, but not at every event
  }
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

}  // namespace truth
