// The adversaries among the fixtures: each loses nothing, and does to the requests below what its name says.
#include <algorithm>
#include <cstring>

#include "scenario.h"
#include "shared_object.h"

namespace sm::test {
namespace {

struct Adversary {
  const char* name;
  std::vector<Options> options;  // at open; of each its own run
};

const std::vector<Adversary>& adversaries() {
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

std::string pathOf(const std::string& name) { return std::string(SM_FIXTURES) + "/" + name + ".so"; }

Scenario adversaryScenario(const SharedObject& object, const Options& options, uint64_t seed) {
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

TEST_CASE("each adversary does what the model does, with one child and buffer or with many") {
  forEachAdversary([](Scenario scenario) {
    for (uint32_t children : {1u, 3u, 64u}) {
      CAPTURE(children);
      scenario.world.seed += 100;
      scenario.world.children = scenario.world.buffers = children;
      for (DeviceShape& shape : scenario.world.devices) shape.maxTransfer = children == 1 ? 8192 : 1 << 20;
      runModel(scenario);
    }
  });
}

TEST_CASE("each adversary does what the model does on blocks of 4 KiB") {
  forEachAdversary([](Scenario scenario) {
    scenario.world.devices[1].blockSize = 4096;
    runModel(scenario);
  });
}

TEST_CASE("each adversary fails what its devices fail, or makes up for it, and nothing else") {
  forEachAdversary([](const Scenario& scenario) {
    World world(scenario.world);
    formatVolume(world, scenario.ops, {});
    Model model(world, scenario.ops, scenario.blockSize());
    scenario.apply(model);
    model.mix.control = 0;
    model.mayFail = EIO;
    model.open();
    for (int i = 0; i < 3; ++i) REQUIRE(model.create(200 << 10));
    Random random(scenario.world.seed);
    uint64_t failures = 0;
    world.fail = [&](const MemoryDevice&, const sm_request&) {
      const bool failing = chance(random, 5);
      failures += failing;
      return failing ? -EIO : 0;
    };
    model.run(600);
    model.drain();
    CHECK(failures > 20);
    world.fail = nullptr;
    model.verify();
    model.close();
    model.open();
    model.verify();
    model.close();
  });
}

// --- what each of them does below

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

Bytes pattern(uint64_t seed, size_t bytes) {
  Bytes out(bytes);
  Random random(seed);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(random());
  return out;
}

TEST_CASE("copying and anonymizing: no child uses its parent's memory; the one's is a clone, the other's is not") {
  for (const char* name : {"copying", "anonymizing"}) {
    Scene scene(name);
    Bytes data = pattern(1, 16384), back(16384);
    const bool clones = !std::strcmp(name, "copying");
    for (uint8_t op : {SM_OP_WRITE, SM_OP_READ}) {
      Bytes& memory = op == SM_OP_WRITE ? data : back;
      const uint64_t serial = scene.run(op, 8192, memory);
      REQUIRE(scene.below.size() == 1);
      CHECK_FALSE(scene.uses(memory));
      CHECK((scene.below[0].serial == serial) == clones);
      if (op == SM_OP_WRITE) CHECK(scene.has(data));
    }
    CHECK(back == data);
  }
}

TEST_CASE("encrypting: other bytes below, the same above, zeroes among them; reads in place or not") {
  for (const char* read : {"place", "copy"}) {
    Scene scene("encrypting", {{"read", read}});
    Bytes data = pattern(2, 8192), back(8192), again = data;
    scene.run(SM_OP_WRITE, 0, data);
    CHECK_FALSE(scene.uses(data));
    CHECK_FALSE(scene.has(Bytes(data.begin(), data.begin() + 16)));
    const Bytes first = scene.below[0].data;
    scene.run(SM_OP_READ, 0, back);
    CHECK(scene.uses(back) == !std::strcmp(read, "place"));
    CHECK(back == data);
    scene.run(SM_OP_WRITE, 65536, again);
    CHECK(scene.below[0].data != first);  // the place is in it
    scene.run(SM_OP_DISCARD, 0, data);
    REQUIRE(scene.below.size() == 1);
    CHECK(scene.below[0].op == SM_OP_WRITE);
    CHECK_FALSE(scene.has(Bytes(16)));
    scene.run(SM_OP_READ, 0, back);
    CHECK(back == Bytes(8192));
  }
}

TEST_CASE("deferring: nothing below until the next request; acknowledged early, a clone comes after its parent") {
  for (const char* ack : {"late", "early"}) {
    const bool early = !std::strcmp(ack, "early");
    Scene scene("deferring", {{"ack", ack}});
    Bytes data = pattern(3, 8192), back(8192), elsewhere(512);
    bool written = false, read = false, other = false;
    const uint64_t serial = scene.submit(SM_OP_WRITE, 4096, data, &written);
    CHECK(scene.below.empty());
    CHECK(written == early);
    if (early) std::fill(data.begin(), data.end(), 0);  // its own again
    scene.submit(SM_OP_READ, 65536, elsewhere, &other);
    REQUIRE(scene.below.size() >= 2);
    CHECK(scene.below[0].op == SM_OP_WRITE);
    CHECK(scene.below[0].serial == serial);
    CHECK(scene.has(pattern(3, 8192)));
    CHECK(scene.uses(data) == !early);
    scene.submit(SM_OP_READ, 4096, back, &read);
    scene.world.runUntil([&] { return written && read && other; });
    CHECK(back == pattern(3, 8192));
  }
}

TEST_CASE("mirroring: two writes, on one device each; acknowledged early, after the first") {
  for (const char* ack : {"late", "early"}) {
    const bool early = !std::strcmp(ack, "early");
    Scene scene("mirroring", {{"ack", ack}});
    Bytes data = pattern(4, 8192), back(8192);
    scene.world.hold = [](const sm_request& request) { return request.op == SM_OP_WRITE && request.device->id == 2; };
    bool done = false;
    const uint64_t serial = scene.submit(SM_OP_WRITE, 4096, data, &done);
    while (scene.world.step()) {
    }
    CHECK(done == early);
    scene.world.hold = nullptr;
    scene.world.runUntil([&] { return done && scene.world.quiet(); });
    REQUIRE(scene.below.size() == 2);
    CHECK(scene.below[0].data == data);
    CHECK(scene.below[1].data == data);
    CHECK(scene.below[0].device != scene.below[1].device);
    CHECK(scene.below[0].serial == serial);
    CHECK(scene.below[1].serial == serial);
    std::set<uint32_t> legs;
    for (int i = 0; i < 4; ++i) {
      scene.run(SM_OP_READ, 4096, back);
      legs.insert(scene.below[0].device);
      CHECK(back == data);
    }
    CHECK(legs.size() == 2);
  }
}

TEST_CASE("mirroring goes on with one leg, whichever it is, also after it was closed") {
  for (uint32_t broken : {1u, 2u}) {
    Scene scene("mirroring");
    Bytes data = pattern(5, 8192), old = pattern(6, 8192), back(8192);
    scene.run(SM_OP_WRITE, 0, old);
    scene.world.fail = [&](const MemoryDevice& device, const sm_request& request) {
      return device.device.id == broken && request.op == SM_OP_WRITE && request.offset >= 65536 ? -EIO : 0;
    };
    scene.run(SM_OP_WRITE, 0, data);
    for (int round = 0; round < 2; ++round) {
      for (int i = 0; i < 4; ++i) {
        scene.run(SM_OP_READ, 0, back);
        CHECK(back == data);
      }
      scene.world.onSubmit = nullptr;
      scene.model.close();
      scene.model.open();
    }
  }
}

TEST_CASE("dedup: a hit issues nothing and shares the place; what is written over stays with the others") {
  Scene scene("dedup", {{"zero", "1"}});
  Bytes data = pattern(7, 4096), other = pattern(8, 4096), back(4096), none(4096);
  scene.run(SM_OP_WRITE, 0, data);
  REQUIRE(scene.below.size() == 1);
  const uint64_t place = scene.below[0].offset;
  for (uint64_t at : {4096, 65536, 131072}) {
    scene.run(SM_OP_WRITE, at, data);
    CHECK(scene.below.empty());
    scene.run(SM_OP_READ, at, back);
    REQUIRE(scene.below.size() == 1);
    CHECK(scene.below[0].offset == place);
    CHECK(back == data);
  }
  scene.run(SM_OP_WRITE, 65536, other);
  REQUIRE(scene.below.size() == 1);
  CHECK(scene.below[0].offset != place);
  Bytes part = pattern(9, 512);
  scene.run(SM_OP_WRITE, 131072 + 512, part);
  REQUIRE(scene.below.size() == 2);
  CHECK(scene.below[0].offset == place);
  CHECK(scene.below[1].op == SM_OP_WRITE);
  CHECK(scene.below[1].offset != place);
  scene.run(SM_OP_WRITE, 8192, none);
  CHECK(scene.below.empty());
  scene.run(SM_OP_READ, 0, back);
  CHECK(back == data);
}

TEST_CASE("journalling: two writes of equal bytes, the first not in its place; acknowledged early, after that") {
  for (const char* ack : {"late", "early"}) {
    const bool early = !std::strcmp(ack, "early");
    Scene scene("journalling", {{"ack", ack}});
    Bytes data = pattern(10, 8192), back(8192);
    bool done = false, read = false;
    const uint64_t serial = scene.submit(SM_OP_WRITE, 4096, data, &done);
    scene.world.runUntil([&] { return done; });
    CHECK(scene.below.size() == (early ? 1 : 2));
    scene.submit(SM_OP_READ, 4096, back, &read);
    scene.world.runUntil([&] { return read && scene.world.quiet(); });
    CHECK(back == data);
    REQUIRE(scene.below.size() == 3);
    CHECK(scene.below[0].data == data);
    CHECK(scene.below[1].data == data);
    CHECK(scene.below[0].offset != scene.below[1].offset);
    CHECK(scene.below[0].serial == serial);
    CHECK(scene.below[1].serial == serial);
    CHECK(scene.below[2].offset == scene.below[1].offset);
  }
}

TEST_CASE("rmw: a child is longer than its parent, and holds the parent's memory or a copy of it") {
  for (const char* copy : {"0", "1"}) {
    for (uint64_t block : {4096, 65536}) {
      Scene scene("rmw", {{"copy", copy}, {"block", block == 4096 ? "4K" : "64K"}});
      Bytes all = pattern(11, 131072), data = pattern(12, 1024), back(131072);
      scene.run(SM_OP_WRITE, 0, all);
      CHECK(scene.below.size() == 1);
      scene.run(SM_OP_WRITE, 1536, data);
      REQUIRE(scene.below.size() == 2);
      CHECK(scene.below[0].op == SM_OP_READ);
      CHECK(scene.below[1].op == SM_OP_WRITE);
      CHECK(scene.below[1].data.size() == block);
      CHECK(scene.has(data));
      CHECK(scene.uses(data) == !std::strcmp(copy, "0"));
      std::copy(data.begin(), data.end(), all.begin() + 1536);
      scene.run(SM_OP_READ, 0, back);
      CHECK(back == all);
    }
  }
}

}  // namespace
}  // namespace sm::test
