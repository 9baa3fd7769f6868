// Volumes as shared objects: the shipped ones and the fixtures.
#include "shared_object.h"

#include "scenario.h"

namespace sm::test {
namespace {

const std::string kFixtures = SM_FIXTURES;
const std::string kVolumes = kFixtures + "/../volumes";

TEST_CASE("each built-in volume works as a shared object") {
  size_t count = 0;
  const sm_volume_ops* const* volumes = volumeRegistry(&count);
  REQUIRE(count == 5);
  for (size_t i = 0; i < count; ++i) {
    SharedObject object(kVolumes + "/" + volumes[i]->type + ".so");
    REQUIRE(object.ops());
    CHECK(object.ops() != volumes[i]);
    CHECK(object.ops()->version == SM_CONTRACT_VERSION);
    CHECK(object.ops()->size == sizeof(sm_volume_ops));
    CHECK(std::string(object.ops()->type) == volumes[i]->type);
    if (!object.ops()->format) continue;  // keeps nothing on devices: see nbd_volume_test.cc, kernel_volume_test.cc
    Scenario scenario;
    scenario.ops = object.ops();
    scenario.mayFail = ENOSPC;
    scenario.steps = 300;
    runModel(scenario);
  }
}

TEST_CASE("the fixtures that are no volumes are what they say") {
  SharedObject wrong(kFixtures + "/badversion.so");
  REQUIRE(wrong.ops());
  CHECK(wrong.ops()->version != SM_CONTRACT_VERSION);
  SharedObject none(kFixtures + "/notavolume.so");
  CHECK_FALSE(none.ops());
}

Scenario permutingScenario(const SharedObject& object) {
  Scenario scenario;
  scenario.ops = object.ops();
  scenario.world.devices = {{4 << 20}, {3 << 20}};
  scenario.world.threads = true;
  scenario.mix.largest = 128 << 10;
  scenario.largestDisk = 2 << 20;
  return scenario;
}

TEST_CASE("permuting does what the model does") {
  SharedObject object(kFixtures + "/permuting.so");
  uint64_t seed = 0;
  for (const char* issue : {"fresh", "clone"})
    for (const char* delay : {"0", "20000"})
      for (uint32_t children : {1u, 64u}) {
        Scenario scenario = permutingScenario(object);
        scenario.world.seed = ++seed;
        scenario.world.children = children;
        if (children == 1) scenario.world.devices[0].maxTransfer = scenario.world.devices[1].maxTransfer = 8192;
        scenario.openOptions = {{"issue", issue}, {"delay", delay}, {"seed", std::to_string(seed)}};
        scenario.steps = 300;
        runModel(scenario);
      }
}

TEST_CASE("permuting issues pieces out of order, and interleaves overlapping writes") {
  SharedObject object(kFixtures + "/permuting.so");
  Scenario scenario = permutingScenario(object);
  World world(scenario.world);
  formatVolume(world, scenario.ops, {});
  Model model(world, scenario.ops, 512);
  scenario.apply(model);
  model.open();
  REQUIRE(model.create(1 << 20));
  ModelDisk& disk = model.state.disks[0];
  uint32_t backwards = 0, pieces = 0, mixed = 0;
  uint64_t last = 0;
  std::set<uint64_t> serials;
  world.onSubmit = [&](const MemoryDevice&, const sm_request& request) {
    backwards += request.offset < last;
    last = request.offset;
    ++pieces;
    CHECK(serials.insert(request.serial).second);
  };
  constexpr uint64_t kLength = 64 << 10;
  for (int round = 0; round < 20; ++round) {
    // Two writes to the same range at once. The model knows an order only for what does not overlap: done by hand.
    std::vector<uint8_t> data[2], out(kLength);
    bool done[3] = {};
    sm_request* requests[3];
    iovec iov[3];
    const auto submit = [&](int i, uint8_t op, std::vector<uint8_t>& memory) {
      requests[i] = world.parent();
      iov[i] = {memory.data(), kLength};
      requests[i]->op = op;
      requests[i]->length = kLength;
      requests[i]->iov = &iov[i];
      requests[i]->iov_count = 1;
      sm_request_push(
          requests[i], [](sm_request*, void* context, uint64_t) { *static_cast<bool*>(context) = true; }, &done[i], 0);
      scenario.ops->submit(model.volume, disk.handle, requests[i]);
    };
    for (int i = 0; i < 2; ++i) {
      data[i].assign(kLength, static_cast<uint8_t>(1 + 2 * round + i));
      submit(i, SM_OP_WRITE, data[i]);
    }
    world.runUntil([&] { return done[0] && done[1]; });
    submit(2, SM_OP_READ, out);
    world.runUntil([&] { return done[2]; });
    bool seen[2] = {};
    for (uint64_t at = 0; at < kLength; at += kBlock) {
      const bool second = out[at] == data[1][0];
      REQUIRE((second || out[at] == data[0][0]));
      seen[second] = true;
    }
    mixed += seen[0] && seen[1];
    for (sm_request* request : requests) world.releaseParent(request);
  }
  world.onSubmit = nullptr;
  CHECK(pieces > 100);
  CHECK(backwards > pieces / 5);
  CHECK(mixed > 0);
  model.close();
}

}  // namespace
}  // namespace sm::test
