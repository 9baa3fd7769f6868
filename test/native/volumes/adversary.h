// The adversaries among the fixtures, and what they do below a request.
#pragma once

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "scenario.h"
#include "shared_object.h"

namespace sm::test {

struct Adversary {
  const char* name;
  std::vector<Options> options;  // at open; of each its own run
};

inline const std::vector<Adversary>& adversaries() {
  static const std::vector<Adversary> all{
      {"copying", {{}, {{"issue", "fresh"}}}},
      {"anonymizing", {{}}},
      {"encrypting", {{{"read", "place"}}, {{"read", "copy"}, {"issue", "fresh"}}}},
      {"deferring", {{}, {{"ack", "early"}}, {{"ack", "early"}, {"issue", "fresh"}}}},
      {"mirroring", {{}, {{"ack", "early"}}, {{"ack", "early"}, {"issue", "fresh"}}}},
      {"dedup", {{}, {{"zero", "1"}, {"issue", "fresh"}}}},
      {"journalling", {{}, {{"ack", "early"}}, {{"ack", "early"}, {"issue", "fresh"}}}},
      {"rmw", {{}, {{"block", "64K"}, {"issue", "fresh"}}, {{"block", "64K"}, {"copy", "1"}}}},
  };
  return all;
}

inline std::string pathOf(const std::string& name) { return std::string(SM_FIXTURES) + "/" + name + ".so"; }

inline Scenario adversaryScenario(const SharedObject& object, const Options& options, uint64_t seed) {
  Scenario scenario;
  scenario.ops = object.ops();
  scenario.world.devices = {{4 << 20}, {3 << 20}};
  scenario.world.seed = seed;
  scenario.mix.largest = 160 << 10;
  scenario.openOptions = options;
  scenario.steps = 300;
  return scenario;
}

template <typename Run>
void forEachAdversary(Run run) {
  uint64_t seed = 0;
  for (const Adversary& adversary : adversaries()) {
    SharedObject object(pathOf(adversary.name));
    CHECK(std::string(object.ops()->type) == adversary.name);
    for (const Options& options : adversary.options) {
      std::string with;
      for (const auto& [key, value] : options) with.append(" ").append(key).append("=").append(value);
      INFO(adversary.name << with);
      run(adversaryScenario(object, options, ++seed));
    }
  }
}

struct Below {
  uint32_t device;
  uint8_t op;
  uint64_t offset, serial;
  std::vector<std::pair<const uint8_t*, size_t>> memory;
  Bytes data;  // of a write
};

// An open volume with one disk, requests by hand, and what they come to below.
struct Scene {
  explicit Scene(const std::string& name, const Options& options = {})
      : object(pathOf(name)),
        scenario(adversaryScenario(object, options, 1)),
        world(scenario.world),
        model(world, scenario.ops, 512) {
    scenario.apply(model);
    formatVolume(world, scenario.ops, {});
    model.open();
    REQUIRE(model.create(512 << 10));
    world.onSubmit = [this](const MemoryDevice& device, const sm_request& request) {
      Below child{device.device.id, request.op, request.offset, request.serial, {}, {}};
      for (uint32_t i = 0; i < request.iov_count; ++i) {
        const auto* base = static_cast<const uint8_t*>(request.iov[i].iov_base);
        child.memory.emplace_back(base, request.iov[i].iov_len);
        child.data.insert(child.data.end(), base, base + request.iov[i].iov_len);
      }
      below.push_back(std::move(child));
    };
  }
  ~Scene() {
    world.onSubmit = nullptr;
    for (sm_request* request : requests) world.releaseParent(request);
    model.close();
  }

  // Its serial. Completed when `done` says so.
  uint64_t submit(uint8_t op, uint64_t offset, Bytes& memory, bool* done) {
    sm_request* request = world.parent();
    requests.push_back(request);
    iovs.push_back({memory.data(), memory.size()});
    request->op = op;
    request->offset = offset;
    request->length = memory.size();
    if (op == SM_OP_READ || op == SM_OP_WRITE) request->iov = &iovs.back(), request->iov_count = 1;
    sm_request_push(
        request,
        [](sm_request* request, void* context, uint64_t) {
          CHECK(request->status == 0);
          *static_cast<bool*>(context) = true;
        },
        done, 0);
    scenario.ops->submit(model.volume, model.state.disks[0].handle, request);
    return request->serial;
  }
  uint64_t run(uint8_t op, uint64_t offset, Bytes& memory) {
    bool done = false;
    below.clear();
    const uint64_t serial = submit(op, offset, memory, &done);
    world.runUntil([&] { return done; });
    return serial;
  }
  // Whether a child used any of the memory.
  bool uses(const Bytes& memory) const {
    for (const Below& child : below)
      for (const auto& [base, size] : child.memory)
        if (base < memory.data() + memory.size() && memory.data() < base + size) return true;
    return false;
  }
  bool has(const Bytes& data) const {
    for (const Below& child : below)
      if (std::search(child.data.begin(), child.data.end(), data.begin(), data.end()) != child.data.end()) return true;
    return false;
  }

  SharedObject object;
  Scenario scenario;
  World world;
  Model model;
  std::vector<Below> below;
  std::vector<sm_request*> requests;
  std::deque<iovec> iovs;
};

inline Bytes pattern(uint64_t seed, size_t bytes) {
  Bytes out(bytes);
  Random random(seed);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(random());
  return out;
}

}  // namespace sm::test
