// What a log volume makes of its metadata: damage, pages that are no longer true, failures while it is written.
#include "bare.h"
#include "log_rig.h"

namespace sm::test {
namespace {

// A volume whose metadata is three batches: the whole map, and two more.
struct Image {
  explicit Image(const WorldOptions& with = {1, {{900 << 10}, {600 << 10}}}) : options(with) {
    LogRig rig({}, options);
    areaPages = rig.layout.areaPages;
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
    World world(options, &media);
    void* volume = nullptr;
    sm_error error{};
    const int32_t status = logOps.open(world.services(), world.devices().data(), 2, nullptr, 0, &volume, &error);
    if (status == 0) CHECK(logOps.close(volume, &error) == 0);
    if (says) *says = error.message;
    return status;
  }
  WorldOptions options;
  uint64_t areaAt, areaPages;
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

TEST_CASE("damage early in a batch that is longer than what is read behind a torn end gives itself away, too") {
  for (const uint64_t pages : {100, 200, 700}) {
    Image image({1, {{64 << 20}, {32 << 20}}});
    REQUIRE(image.areaPages > 3 + pages);
    for (uint64_t number = 3; number < 3 + pages; ++number) {
      LogPage& page = image.page(number);
      page = image.page(2);
      page.number = static_cast<uint32_t>(number);
      page.count = 0;
      page.last = number + 1 == 3 + pages;
      page.crc = logChecksum(page);
    }
    REQUIRE(image.open() == 0);
    image.page(4).crc ^= 1;
    CHECK(image.open() == -EBADMSG);
    image.page(2 + pages).crc ^= 1;  // without its last page it is a torn one
    CHECK(image.open() == 0);
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

TEST_CASE("a flush that fails on one device, a close, another flush and a crash: nothing comes back that was gone") {
  for (uint64_t seed = 1; seed <= 18; ++seed) {
    const WorldOptions options{seed, {{900 << 10}, {600 << 10}}};
    LogRig rig({}, options);
    REQUIRE(rig.model.create(300 << 10));
    for (uint64_t i = 600; i-- > 0;) {
      rig.write(0, i * 512, 512);
      rig.model.drain();
    }
    rig.model.mayFail = EIO;
    uint64_t left = seed % 3;  // of the erasure, the pages, and the last one
    rig.failing = [&](const sm_request& request) {
      return request.op == SM_OP_FLUSH && request.device->id == 2 && left-- == 0 ? -EIO : 0;
    };
    rig.model.submit(rig.disk(0), SM_OP_FLUSH, 0, 0, 0);
    rig.model.drain();
    REQUIRE(rig.model.failed == 1);
    sm_error error{};
    logOps.disk_close(rig.model.volume, rig.disk(0).handle);
    CHECK(logOps.close(rig.model.volume, &error) == -EIO);
    rig.world.runUntil([&] { return rig.world.live() == 0; });
    ModelState state = rig.model.state;
    std::vector<Bytes> images = rig.world.crash();
    for (int round = 0; round < 3; ++round) {
      World world(options, &images);
      Model model(world, &logOps, 512);
      model.recover(std::move(state));
      model.submit(model.state.disks[0], SM_OP_WRITE, 0, 0, 512);
      model.submit(model.state.disks[0], SM_OP_FLUSH, 0, 0, 0);
      model.drain();
      state = model.state;
      images = world.crash();
      model.verify();
      model.close();
    }
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

}  // namespace
}  // namespace sm::test
