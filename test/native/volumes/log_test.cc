// The log volume by hand: places, space, order, and what the cleaner does. How much that moves shows below: it is what
// is written to the segments beyond what guests wrote.
#include <map>

#include "bare.h"
#include "scenario.h"
#include "volumes/log_page.h"
#include "volumes/log_segments.h"

namespace sm::test {
namespace {

constexpr uint64_t kSegment = 16 << 10;

uint64_t guestBytes;              // written by guests since the rig was made
std::set<uint64_t> guestSerials;  // of their writes

// The volume, counting.
const sm_volume_ops kCounting = [] {
  sm_volume_ops ops = logOps;
  ops.submit = [](void* volume, void* disk, sm_request* request) {
    if (request->op == SM_OP_WRITE) {
      guestBytes += request->length;
      guestSerials.insert(request->serial);
    }
    logOps.submit(volume, disk, request);
  };
  return ops;
}();

struct LogRig {
  LogRig(const LogRig&) = delete;
  LogRig& operator=(const LogRig&) = delete;
  explicit LogRig(const Options& format = {}, const WorldOptions& options = {1, {{900 << 10}, {600 << 10}}})
      : world(options), model(world, &kCounting, 512) {
    Options all{{"segmentSize", "16K"}};
    all.insert(all.end(), format.begin(), format.end());
    formatVolume(world, &logOps, all);
    std::vector<uint64_t> bytes;
    for (const DeviceShape& shape : options.devices) bytes.push_back(shape.bytes);
    layout = logLayout(bytes.data(), static_cast<uint32_t>(bytes.size()), 512, kSegment);
    guestBytes = 0;
    guestSerials.clear();
    world.onSubmit = [this](const MemoryDevice& device, const sm_request& request) { submitted(device, request); };
    world.fail = [this](const MemoryDevice&, const sm_request& request) {
      const int32_t status = failing ? failing(request) : 0;
      flying.erase(&request);
      return status;
    };
    model.open();
  }
  // Nothing is written where something is being read or written.
  void submitted(const MemoryDevice& device, const sm_request& request) {
    if (request.offset < layout.parts[device.device.id - 1].dataAt || !request.length) return;
    REQUIRE((request.op == SM_OP_READ || request.op == SM_OP_WRITE));
    for (const sm_request* other : flying) {
      if (other->device != &device.device || (other->op == SM_OP_READ && request.op == SM_OP_READ)) continue;
      const bool apart =
          other->offset + other->length <= request.offset || request.offset + request.length <= other->offset;
      REQUIRE(apart);
    }
    flying.insert(&request);
    if (request.op != SM_OP_WRITE) return;
    segmentBytes += request.length;
    places.emplace_back(device.device.id, request.offset);
  }
  ModelDisk& disk(size_t index) { return model.state.disks[index]; }
  void write(size_t index, uint64_t offset, uint64_t length, uint32_t flags = 0) {
    model.submit(disk(index), SM_OP_WRITE, flags, offset, length);
  }
  void fill(size_t index) {
    for (uint64_t at = 0; at < disk(index).bytes; at += 32 << 10)
      write(index, at, std::min<uint64_t>(32 << 10, disk(index).bytes - at));
    model.drain();
  }
  uint64_t usable() const { return layout.usable() * 512; }
  uint64_t moved() const { return segmentBytes - guestBytes; }

  World world;
  Model model;
  LogLayout layout;
  std::function<int32_t(const sm_request&)> failing;
  std::set<const sm_request*> flying;                 // to the segments
  std::vector<std::pair<uint32_t, uint64_t>> places;  // device and offset of what was written there
  uint64_t segmentBytes = 0;
};

// Requests whose order the model does not know.
struct Raw {
  Raw(LogRig& rig, uint8_t op, uint64_t offset, uint64_t length, uint8_t byte = 0)
      : world(rig.world), memory(length, byte), iov{memory.data(), length}, request(rig.world.parent()) {
    request->op = op;
    request->offset = offset;
    request->length = length;
    request->iov = &iov;
    request->iov_count = 1;
    sm_request_push(
        request, [](sm_request*, void* context, uint64_t) { *static_cast<bool*>(context) = true; }, &done, 0);
    logOps.submit(rig.model.volume, rig.disk(0).handle, request);
  }
  ~Raw() { world.releaseParent(request); }
  Raw(const Raw&) = delete;
  Raw& operator=(const Raw&) = delete;
  int32_t wait() {
    world.runUntil([this] { return done; });
    return request->status;
  }
  World& world;
  Bytes memory;
  iovec iov;
  sm_request* request;
  bool done = false;
};

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
  CHECK(runCrashes(scenario, std::getenv("SM_NIGHTLY") ? 4000 : 150) >= 150);
}

// A volume whose metadata is three batches: the whole map, and two more.
struct Image {
  Image() {
    LogRig rig;
    areaAt = rig.layout.areaAt(1);
    REQUIRE(rig.model.create(64 << 10));
    for (uint64_t i = 0; i < 3; ++i) {
      rig.write(0, i * 4096, 4096);
      rig.model.drain();
      rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
      rig.model.drain();
    }
    rig.model.close();
    media = {rig.world.memory(0).now, rig.world.memory(1).now};
  }
  LogPage& page(uint64_t number) { return reinterpret_cast<LogPage*>(&media[0][areaAt])[number]; }
  int32_t open(std::string* says = nullptr) {
    World world({1, {{900 << 10}, {600 << 10}}}, &media);
    void* volume = nullptr;
    sm_error error{};
    const int32_t status = logOps.open(world.services(), world.devices().data(), 2, nullptr, 0, &volume, &error);
    if (status == 0) CHECK(logOps.close(volume, &error) == 0);
    if (says) *says = error.message;
    return status;
  }
  uint64_t areaAt;
  std::vector<Bytes> media;
};

TEST_CASE("damaged metadata is no torn end: a batch behind it gives it away") {
  for (uint64_t number : {0, 1, 2, 3}) {
    Image image;
    for (uint64_t i = 0; i < 3; ++i) REQUIRE(image.page(i).last == 1);
    REQUIRE(image.open() == 0);
    image.page(number).records[0].place ^= 1;
    std::string says;
    CHECK(image.open(&says) == (number < 2 ? -EBADMSG : 0));
    if (number < 2) CHECK(says.find("is damaged") != std::string::npos);
  }
}

TEST_CASE("pages that a generation left which nobody knows of are not the next one's") {
  LogRig rig;
  const uint64_t at = rig.layout.areaAt(1);
  REQUIRE(rig.model.create(300 << 10));
  for (uint64_t i = 600; i-- > 0;)  // backwards: each block is a record of its own, and all are three pages
    REQUIRE(Raw(rig, SM_OP_WRITE, i * 512, 512, 7).wait() == 0);
  Bytes& medium = rig.world.memory(0).now;
  bool sealed = false;
  rig.failing = [&](const sm_request& request) {  // an error, but it has landed
    if (request.op != SM_OP_WRITE || request.device->id != 1 || request.offset <= at ||
        request.offset >= rig.layout.areaAt(2) || request.length != kPage)
      return 0;
    const auto& page = *static_cast<const LogPage*>(request.iov[0].iov_base);
    if (!page.last) return 0;
    memcpy(&medium[request.offset], &page, kPage);
    sealed = true;
    return -EIO;
  };
  CHECK(Raw(rig, SM_OP_FLUSH, 0, 0).wait() == -EIO);
  REQUIRE(sealed);
  std::vector<Bytes> media = {medium, rig.world.memory(1).now};
  memset(&media[0][at], 0, kPage);  // and a crash, when the next attempt has erased the first page
  rig.failing = nullptr;
  rig.model.close();

  for (int round = 0; round < 2; ++round) {
    World world({1, {{900 << 10}, {600 << 10}}}, &media);
    Bare bare(world, &logOps);
    REQUIRE_MESSAGE(bare.open() == 0, bare.error.message);
    void* disk = nullptr;
    uint64_t bytes = 0;
    REQUIRE(logOps.disk_open(bare.volume, "vm-1", "disk-1", &disk, &bytes, &bare.error) == 0);
    if (round == 0) REQUIRE(bare.io(disk, SM_OP_WRITE, 0, 512, 512) == 0);
    REQUIRE(bare.io(disk, SM_OP_FLUSH) == 0);
    const uint64_t reads = world.memory(0).counts[SM_OP_READ] + world.memory(1).counts[SM_OP_READ];
    REQUIRE(bare.io(disk, SM_OP_READ, 0, 1024, bytes - 1024) == 0);
    CHECK(world.memory(0).counts[SM_OP_READ] + world.memory(1).counts[SM_OP_READ] == reads);  // all zeroes
    CHECK(bare.close() == 0);
    media = {world.memory(0).now, world.memory(1).now};
  }
}

TEST_CASE("after a flush has failed no metadata is written any more") {
  LogRig rig;
  REQUIRE(rig.model.create(64 << 10));
  REQUIRE(Raw(rig, SM_OP_WRITE, 0, 4096, 7).wait() == 0);
  rig.failing = [](const sm_request& request) {
    return request.op == SM_OP_FLUSH && request.device->id == 2 ? -EIO : 0;
  };
  CHECK(Raw(rig, SM_OP_FLUSH, 0, 0).wait() == -EIO);
  const uint64_t writes = rig.world.memory(0).counts[SM_OP_WRITE];
  sm_error error{};
  CHECK(logOps.close(rig.model.volume, &error) == -EIO);
  CHECK(rig.world.memory(0).counts[SM_OP_WRITE] == writes);
}

TEST_CASE("metadata that is whole but makes no sense is refused") {
  const auto with = [](const std::function<void(LogRecord&)>& change) {
    Image image;
    LogPage& page = image.page(2);
    REQUIRE(page.count == 1);
    change(page.records[0]);
    page.crc = logChecksum(page);
    return image.open();
  };
  CHECK(with([](LogRecord&) {}) == 0);
  CHECK(with([](LogRecord& record) { record.disk = 0; }) == -EBADMSG);
  CHECK(with([](LogRecord& record) { record.disk = 9; }) == -EBADMSG);
  CHECK(with([](LogRecord& record) { record.count = 0; }) == -EBADMSG);
  CHECK(with([](LogRecord& record) { record.count = UINT32_MAX; }) == -EBADMSG);
  CHECK(with([](LogRecord& record) { record.place = UINT32_MAX; }) == -EBADMSG);
  CHECK(with([](LogRecord& record) { record.first = 0; }) == 0);  // of three writes to one place, the last counts
  CHECK([] {
    Image image;
    image.page(0).generation = UINT64_MAX;
    image.page(0).crc = logChecksum(image.page(0));
    return image.open();
  }() == -EBADMSG);
  Image image;  // two blocks at one place
  image.page(2).records[0].place = image.page(1).records[0].place;
  image.page(2).crc = logChecksum(image.page(2));
  CHECK(image.open() == -EBADMSG);
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
  for (uint64_t seed = 1; seed <= (std::getenv("SM_NIGHTLY") ? 200 : 8); ++seed) {
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
