// The parts of a world that only its own files see.
#pragma once

#include "world.h"

namespace truth {

struct World::Filter {
  const sm_filter_ops* ops;
  void* context;
  uint64_t inFlight = 0;
};

struct World::Pooled {
  sm_request request{};
  uint64_t extension[SM_EXTENSION / 8] = {};
  std::vector<iovec> segments;
  std::vector<std::shared_ptr<Filter>> filters;  // of a guest: those that saw it
  ChildPtr child;
  uint64_t epoch = 0;
  bool full = false;
  bool busy = true;                                                                      // allocated, not released
  static Pooled* of(sm_request* request) { return reinterpret_cast<Pooled*>(request); }  // its first member
};

struct World::Device {
  World& world;
  const uint32_t index;
  std::vector<std::byte> bytes;
  std::string name;
  sm_device_ops ops{};
  sm_device device{};
  Device(World& owner, uint32_t number);
};

struct World::Disk {
  sm_disk disk{};  // first: found from it
  std::string vm, name;
  uint32_t index;
  std::vector<std::shared_ptr<Filter>> filters;
  Disk(World& owner, uint32_t number) : vm("vm-" + std::to_string(number)), name("vda"), index(number) {
    disk = {number + 1, kBlock, owner.options_.diskBlocks * kBlock, vm.c_str(), name.c_str()};
  }
  static Disk& of(sm_disk* disk) { return *reinterpret_cast<Disk*>(disk); }
};

}  // namespace truth
