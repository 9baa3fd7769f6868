// The log volume by hand: places, space, order, and what the cleaner does. How much that moves shows below: it is what
// is written to the segments beyond what guests wrote.
#include "bare.h"
#include "log_rig.h"

namespace sm::test {
namespace {

TEST_CASE("an overwrite goes to a new place, whatever is flushed between") {
  LogRig rig;
  REQUIRE(rig.model.create(64 << 10));
  for (int i = 0; i < 100; ++i) {
    rig.write(0, 4096, 512);
    rig.model.drain();
    if (i % 10 == 0) rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
    rig.model.drain();
  }
  REQUIRE(rig.places.size() == 100);
  for (size_t i = 1; i < rig.places.size(); ++i) CHECK(rig.places[i] != rig.places[i - 1]);
  rig.model.verify();
  rig.model.close();
}

TEST_CASE("discards and zeroes touch no segment, and what was never written is read from none") {
  LogRig rig;
  REQUIRE(rig.model.create(64 << 10));
  rig.write(0, 0, 32 << 10);
  rig.model.drain();
  uint64_t reads = rig.world.memory(0).counts[SM_OP_READ] + rig.world.memory(1).counts[SM_OP_READ];
  rig.model.submit(rig.disk(0), SM_OP_DISCARD, 0, 0, 16 << 10);
  rig.model.submit(rig.disk(0), SM_OP_WRITE_ZEROES, 0, 16 << 10, 16 << 10);
  rig.model.drain();
  rig.model.verify();
  CHECK(rig.segmentBytes == 32 << 10);
  CHECK(rig.world.memory(0).counts[SM_OP_READ] + rig.world.memory(1).counts[SM_OP_READ] == reads);
  CHECK(rig.world.memory(0).counts[SM_OP_DISCARD] + rig.world.memory(1).counts[SM_OP_DISCARD] == 0);
  rig.model.close();
}

TEST_CASE("the cleaner moves nothing where there is room, and what it is told to otherwise") {
  for (uint64_t percent : {0, 50, 200}) {
    LogRig rig(Options{{"clean", std::to_string(percent)}});
    rig.model.mayFail = ENOSPC;
    for (int i = 0; i < 2; ++i) REQUIRE(rig.model.create(96 << 10));
    rig.fill(0);
    rig.fill(1);
    rig.model.mix.control = 0;
    rig.model.mix.largest = 4096;
    rig.model.mix.flush = 2;
    rig.model.run(percent ? 600 : 60);
    rig.model.drain();
    while (rig.world.step()) continue;
    if (percent == 0) {
      CHECK(rig.moved() == 0);
    } else {
      // At least a fifth of what lives, and about as much as was asked for.
      CHECK(rig.moved() >= (2 * 96 << 10) / 5);
      CHECK(rig.moved() >= guestBytes * percent / 100 / 2);
    }
    rig.model.verify();
    rig.model.close();
    rig.model.open();
    rig.model.verify();
    rig.model.close();
  }
}

TEST_CASE("a full volume: a write that needs more room fails alone, overwrites go on for ever") {
  for (uint32_t depth : {1u, 8u}) {
    LogRig rig;
    const uint64_t half = rig.usable() / 2 / 4096 * 4096;
    REQUIRE(rig.model.create(half));
    REQUIRE(rig.model.create(half));
    REQUIRE(rig.model.create(64 << 10));
    rig.fill(0);
    rig.fill(1);
    REQUIRE(rig.model.failed == 0);
    rig.model.mayFail = ENOSPC;
    rig.write(2, 0, 64 << 10);
    rig.model.drain();
    CHECK(rig.model.failed == 1);
    rig.model.verify();
    rig.model.mix.depth = depth;
    for (uint64_t written = 0; written < 4 * rig.usable();) {
      const uint64_t at = below(rig.world.random(), half / 512 - 8) * 512;
      const size_t index = below(rig.world.random(), 2);
      ModelDisk& disk = rig.disk(index);
      bool unused = true;
      for (uint64_t i = 0; i < 8; ++i) unused &= !disk.blocks[at / 512 + i].writer;
      if (unused && rig.model.inFlight() < depth) {
        rig.write(index, at, 4096);
        written += 4096;
      }
      rig.world.step();
    }
    rig.model.drain();
    CHECK(rig.model.failed == 1);
    CHECK(rig.moved() > rig.usable() / 5);
    rig.model.verify();
    // Nobody flushed: the cleaner's own commits made room. What is given up is room as well.
    rig.model.submit(rig.disk(0), SM_OP_DISCARD, 0, 0, 64 << 10);
    rig.model.drain();
    rig.write(2, 0, 32 << 10);
    rig.model.drain();
    CHECK(rig.model.failed == 1);
    rig.model.close();
    rig.model.open();
    rig.model.verify();
    rig.write(1, 0, 64 << 10);
    rig.model.drain();
    CHECK(rig.model.failed == 1);
    rig.model.close();
  }
}

TEST_CASE("a segment that is being read is not written, however long that takes") {
  WorldOptions options{3, {{900 << 10}, {600 << 10}}};
  LogRig rig({}, options);
  REQUIRE(rig.model.create(rig.usable() / 2 / 4096 * 4096));
  rig.fill(0);
  std::vector<Bytes> first;
  const sm_request* held = nullptr;
  rig.world.hold = [&](const sm_request& request) { return &request == held; };
  const auto submitted = rig.world.onSubmit;
  rig.world.onSubmit = [&](const MemoryDevice& device, const sm_request& request) {
    submitted(device, request);
    if (request.op == SM_OP_READ && !held) held = &request;
  };
  Bytes before(4096);
  for (uint64_t i = 0; i < 8; ++i)
    fillBlock(&before[i * kBlock], rig.disk(0).uid, i, rig.disk(0).blocks[i].values.back().id);
  Raw read(rig, SM_OP_READ, 0, 4096);
  REQUIRE(held);
  for (int round = 0; round < 8; ++round) {
    rig.fill(0);  // `submitted` looks at every write
    rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
    rig.model.drain();
  }
  CHECK_FALSE(read.done);
  held = nullptr;
  rig.world.hold = nullptr;
  CHECK(read.wait() == 0);
  CHECK(read.memory == before);
  rig.model.verify();
  rig.model.close();
}

TEST_CASE("writes that overlap have one order, and no read goes back in it") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    LogRig rig({{"clean", "100"}, {"seed", std::to_string(seed)}},
               {seed, {{900 << 10, 512, 4096}, {600 << 10, 512, 4096}}});
    REQUIRE(rig.model.create(128 << 10));
    Raw a(rig, SM_OP_WRITE, 0, 48 << 10, 1), b(rig, SM_OP_WRITE, 16 << 10, 48 << 10, 2);
    Raw c(rig, SM_OP_WRITE, 8 << 10, 32 << 10, 3);
    rig.world.runUntil([&] { return a.done || b.done || c.done; });
    std::vector<uint8_t> last;
    for (int round = 0; round < 4; ++round) {
      if (round == 3) rig.world.runUntil([&] { return a.done && b.done && c.done; });
      Raw read(rig, SM_OP_READ, 0, 64 << 10, 9);
      REQUIRE(read.wait() == 0);
      // In each part that the same writes cover there is one value.
      const uint64_t edges[] = {0, 8, 16, 40, 48, 64};
      std::vector<uint8_t> now;
      for (size_t i = 0; i + 1 < 6; ++i) {
        now.push_back(read.memory[edges[i] << 10]);
        if (round < 3) continue;
        for (uint64_t at = edges[i] << 10; at < edges[i + 1] << 10; at += 512) REQUIRE(read.memory[at] == now.back());
      }
      last = now;
    }
    // Who is first where both are is first everywhere.
    CHECK(last[0] == 1);
    CHECK(last[4] == 2);
    if (last[2] == 1) CHECK(last[1] == 1);
    if (last[2] == 2) CHECK(last[3] == 2);
    if (last[2] == 3) CHECK((last[1] == 3 || last[3] == 3 || (last[1] == 1 && last[3] == 2)) == true);
    rig.model.close();
  }
}

TEST_CASE("a write that fails in part changes nothing") {
  LogRig rig({}, {7, {{900 << 10, 512, 4096}, {600 << 10, 512, 4096}}});
  REQUIRE(rig.model.create(128 << 10));
  for (int round = 0; round < 20; ++round) {
    const auto byte = static_cast<uint8_t>(2 * round + 1);
    REQUIRE(Raw(rig, SM_OP_WRITE, 0, 64 << 10, byte).wait() == 0);
    uint64_t left = below(rig.world.random(), 16);
    rig.failing = [&](const sm_request& request) { return request.op == SM_OP_WRITE && left-- == 0 ? -EIO : 0; };
    CHECK(Raw(rig, SM_OP_WRITE, 0, 64 << 10, byte + 1).wait() == -EIO);
    rig.failing = nullptr;
    Raw read(rig, SM_OP_READ, 0, 64 << 10);
    REQUIRE(read.wait() == 0);
    CHECK(read.memory == Bytes(64 << 10, byte));
  }
  rig.model.close();
}

TEST_CASE("what the cleaner cannot read or write stays where it is") {
  for (uint8_t op : {SM_OP_READ, SM_OP_WRITE}) {
    LogRig rig(Options{{"clean", "1000"}});
    REQUIRE(rig.model.create(192 << 10));
    rig.fill(0);
    uint64_t failed = 0;
    rig.model.mayFail = EIO;
    rig.failing = [&](const sm_request& request) {
      const bool fails = request.op == op && request.offset >= rig.layout.areaAt(2) && chance(rig.world.random(), 30);
      failed += fails;
      return fails ? -EIO : 0;
    };
    for (uint64_t at = 0; at < 64 << 10; at += 1024) rig.write(0, at, 512);
    rig.model.drain();
    while (rig.world.step()) continue;
    CHECK(failed > 3);
    rig.failing = nullptr;
    rig.model.verify();
    rig.model.close();
  }
}

TEST_CASE("a place that can never be written does not stop the cleaner") {
  LogRig rig;
  REQUIRE(rig.model.create(rig.usable() / 4096 * 4096));
  rig.fill(0);
  rig.model.mayFail = EIO;
  const sm_device* bad = nullptr;
  uint64_t at = 0, failed = 0;
  rig.failing = [&](const sm_request& request) {
    if (request.op != SM_OP_WRITE || request.offset < rig.layout.areaAt(2) || guestSerials.contains(request.serial))
      return 0;
    if (!bad) {
      bad = request.device;
      at = request.offset;
    }
    if (request.device != bad || at < request.offset || at >= request.offset + request.length) return 0;
    ++failed;
    return -EIO;
  };
  for (int i = 0; i < 400; ++i) {
    rig.write(0, below(rig.world.random(), rig.disk(0).bytes / 4096) * 4096, 4096);
    rig.model.drain();
  }
  CHECK(failed > 0);
  CHECK(rig.model.failed == 0);
  rig.failing = nullptr;
  rig.model.verify();
  rig.model.close();
}

TEST_CASE("what is discarded under a write that fills no holes gives it no room that others have taken") {
  LogRig rig;
  const uint64_t size = rig.usable() / 2 / 4096 * 4096, part = 32 << 10;
  REQUIRE(rig.model.create(size + part));
  rig.fill(0);
  REQUIRE(rig.model.create(rig.usable() - size - part));
  REQUIRE(rig.model.create(part));
  rig.fill(1);
  bool holding = true;
  rig.world.hold = [&](const sm_request& request) { return holding && request.op == SM_OP_WRITE; };
  Raw over(rig, SM_OP_WRITE, 0, part, 7);
  holding = false;
  const std::set<const sm_request*> held = rig.flying;
  REQUIRE_FALSE(held.empty());
  rig.world.hold = [&](const sm_request& request) { return held.contains(&request); };
  REQUIRE(Raw(rig, SM_OP_DISCARD, 0, part).wait() == 0);
  rig.write(2, 0, part);
  rig.model.drain();
  rig.world.hold = nullptr;
  CHECK(over.wait() == -ENOSPC);
  Raw read(rig, SM_OP_READ, 0, part, 9);
  REQUIRE(read.wait() == 0);
  CHECK(read.memory == Bytes(part));
  REQUIRE(Raw(rig, SM_OP_DISCARD, part, part).wait() == 0);
  CHECK(Raw(rig, SM_OP_WRITE, 0, part, 7).wait() == 0);
  rig.model.close();
}

TEST_CASE("log survives crashes while the cleaner moves and the metadata begins anew all the time") {
  Scenario scenario;
  scenario.ops = &logOps;
  scenario.mayFail = ENOSPC;
  scenario.world.devices = {{900 << 10}, {500 << 10}};
  scenario.world.seed = 77;
  scenario.formatOptions = {{"segmentSize", "16K"}, {"clean", "300"}};
  scenario.steps = 400;
  scenario.mix.flush = 25;
  scenario.mix.largest = 16 << 10;
  SUBCASE("") {}
  SUBCASE("fresh, children scarce") {
    scenario.openOptions = {{"issue", "fresh"}};
    scenario.world.children = 3;
  }
  SUBCASE("full") {
    scenario.mix.discard = scenario.mix.zeroes = 1;
    scenario.mix.write = 60;
  }
  CHECK(runCrashes(scenario, std::getenv("SM_NIGHTLY") ? 1000 : 150) >= 150);
}

TEST_CASE("a volume is not opened for requests smaller than its blocks") {
  WorldOptions options{1, {{900 << 10, 4096}, {600 << 10, 4096}}};
  LogRig rig({}, options);
  rig.model.close();
  const std::vector<Bytes> media = {rig.world.memory(0).now, rig.world.memory(1).now};
  for (DeviceShape& shape : options.devices) shape.blockSize = 512;
  World world(options, &media);
  void* volume = nullptr;
  sm_error error{};
  CHECK(logOps.open(world.services(), world.devices().data(), 2, nullptr, 0, &volume, &error) == -EINVAL);
  CHECK(std::string(error.message).find("places blocks of 4096") != std::string::npos);
}

TEST_CASE("a full volume takes overwrites also after crashes, one after the other, in the midst of cleaning") {
  Scenario scenario;
  scenario.ops = &logOps;
  scenario.world.devices = {{700 << 10}, {500 << 10}};
  scenario.formatOptions = {{"segmentSize", "16K"}};
  uint32_t crashes = 0;
  for (uint64_t seed = 1; seed <= (std::getenv("SM_NIGHTLY") ? 60 : 8); ++seed) {
    scenario.world.seed = seed;
    const uint64_t bytes[] = {700 << 10, 500 << 10};
    const uint64_t size = logLayout(bytes, 2, 512, kSegment).usable() * 512;
    ModelState state;
    std::vector<Bytes> images;
    for (int generation = 0; generation < 6; ++generation) {
      World world(scenario.world, generation ? &images : nullptr);
      if (generation == 0) formatVolume(world, &logOps, scenario.formatOptions);
      Model model(world, &logOps, 512);
      if (generation == 0) {
        model.open();
        REQUIRE(model.create(size));
      } else {
        model.recover(std::move(state));
      }
      ModelDisk& disk = model.state.disks[0];
      for (uint64_t at = 0; generation == 0 && at < size; at += 8192) {
        model.submit(disk, SM_OP_WRITE, 0, at, 8192);
        model.drain();
      }
      model.mix = {.write = 100, .zeroes = 0, .discard = 0, .flush = 0, .fua = 5, .control = 0, .largest = 8192};
      const uint64_t steps = 200 + below(world.random(), 300);
      model.run(static_cast<uint32_t>(steps));
      images = world.crash();
      state = model.state;
      ++crashes;
      model.verify();
      CHECK(model.failed == 0);
      model.close();
    }
  }
  CHECK(crashes >= 48);
}

TEST_CASE("where no segment is free, the cleaner goes on in the one that it was writing to") {
  std::vector<Bytes> media;
  uint64_t size;
  {
    LogRig rig;
    size = rig.usable();
    REQUIRE(rig.model.create(size));
    rig.model.close();
    media = {rig.world.memory(0).now, rig.world.memory(1).now};
    // Something lives in every segment, mostly at its end: few blocks in the first one, and in the second one the
    // beginning of it, as if those had been moved there from the first.
    auto* page = reinterpret_cast<LogPage*>(&media[0][rig.layout.areaAt(0)]);
    REQUIRE(page->last == 1);
    const uint32_t blocks = rig.layout.segmentBlocks();
    uint32_t block = 0;
    for (uint32_t i = 0; i < rig.layout.segments; ++i) {
      const uint32_t live = i == 0 ? 8 : i == 1 ? 12 : blocks / 2;
      const uint32_t place = i * blocks + (i == 1 ? 0 : blocks - live);
      page->records[page->count++] = {1, block, live, place + 1};
      block += live;
    }
    REQUIRE(block * 512 <= size);
    page->crc = logChecksum(*page);
  }
  World world({1, {{900 << 10}, {600 << 10}}}, &media);
  Bare bare(world, &logOps);
  REQUIRE_MESSAGE(bare.open() == 0, bare.error.message);
  void* disk = nullptr;
  uint64_t bytes = 0;
  REQUIRE(logOps.disk_open(bare.volume, "vm-1", "disk-1", &disk, &bytes, &bare.error) == 0);
  for (int round = 0; round < 3; ++round)
    for (uint64_t at = 0; at + 4096 <= size; at += 4096) REQUIRE(bare.io(disk, SM_OP_WRITE, 0, at, 4096) == 0);
  CHECK(bare.close() == 0);
}

TEST_CASE("a volume of a segment size that does not suit is refused") {
  World world({1, {{600 << 10}}});
  const auto format = [&](const char* key, const char* value) {
    const sm_option option{key, value};
    sm_error error{};
    return logOps.format(world.services(), world.devices().data(), 1, &option, 1, &error);
  };
  CHECK(format("segmentSize", "8K") == -EINVAL);
  CHECK(format("segmentSize", "32M") == -EINVAL);
  CHECK(format("segmentSize", "24K") == -EINVAL);
  CHECK(format("clean", "1001") == -EINVAL);
  CHECK(format("segmentSize", "64K") == -ENOSPC);
  CHECK(world.memory(0).counts[SM_OP_WRITE] == 0);
}

}  // namespace
}  // namespace sm::test
