// What goes in by NBD comes out by NBD, and is on the disk: over real sockets, through a real volume.
#include <algorithm>
#include <map>
#include <random>
#include <thread>

#include "rig.h"

using namespace sm;
using namespace sm::test;

namespace {

const std::string kName = "vm-1/vda";

void everyCommand(ServerRig& rig, bool structured) {
  CAPTURE(structured);
  Client client(rig.path());
  REQUIRE(client.open(kName, structured));
  CHECK(client.size == rig.options.diskBytes);
  const std::string zeroes(8192, '\0');
  const std::string data = pattern(64 << 10, structured);
  CHECK(client.write(0, data) == Error::kNone);
  CHECK(client.read(0, data.size()) == data);
  CHECK(client.read(4096, 8192) == data.substr(4096, 8192));
  CHECK(client.write(4096, pattern(4096, 7), kFua) == Error::kNone);
  CHECK(client.call(Command::kFlush, 0, 0).error == Error::kNone);
  CHECK(client.read(4096, 4096) == pattern(4096, 7));
  for (const uint16_t flags : {uint16_t{0}, uint16_t{kNoHole}, uint16_t{kFua}, uint16_t{kNoHole | kFua}}) {
    CHECK(client.write(8192, data.substr(0, 16384)) == Error::kNone);
    CHECK(client.call(Command::kWriteZeroes, 12288, 8192, {}, flags).error == Error::kNone);
    CHECK(client.read(12288, 8192) == zeroes);
    CHECK(client.read(8192, 4096) == data.substr(0, 4096));
    CHECK(client.read(20480, 4096) == data.substr(12288, 4096));
  }
  for (const uint16_t flags : {uint16_t{0}, uint16_t{kFua}}) {
    CHECK(client.write(8192, data.substr(0, 8192)) == Error::kNone);
    CHECK(client.call(Command::kTrim, 8192, 8192, {}, flags).error == Error::kNone);
    CHECK(client.read(8192, 8192) == zeroes);
  }
  CHECK(client.call(Command::kCache, 0, 65536).error == Error::kNone);
  CHECK(client.call(Command::kWriteZeroes, 0, 4096, {}, kFastZero).error == Error::kNotSup);
  if (structured) CHECK(client.call(Command::kRead, 0, 65536, {}, kDf).data.size() == 65536);
  // Errors leave the stream where it should be.
  CHECK(client.write(client.size, data) == Error::kNoSpc);
  CHECK(client.write(1, data) == Error::kInval);
  CHECK(client.call(Command::kRead, client.size, 4096).error == Error::kInval);
  CHECK(client.call(static_cast<Command>(99), 0, 0).error == Error::kInval);
  CHECK(client.call(Command::kBlockStatus, 0, 4096).error == Error::kInval);
  CHECK(client.read(0, 4096) == data.substr(0, 4096));
  client.disconnect();
  CHECK(client.closed());
}

}  // namespace

TEST_CASE("every command, with structured replies and without, on a file and through every volume") {
  for (const char* type : {"extent", "log", "stripe"}) {
    CAPTURE(type);
    RigOptions options;
    options.type = type;
    options.devices = type == std::string("stripe") ? 2 : 1;
    ServerRig rig(options);
    SM_NEEDS_RING(rig);
    everyCommand(rig, true);
    everyCommand(rig, false);
    CHECK(rig.nobodyConnected());
    CHECK(rig.server->counts().violations == 0);
  }
}

TEST_CASE("requests of every size up to the most there may be") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  for (const bool structured : {true, false}) {
    Client client(rig.path());
    REQUIRE(client.open(kName, structured));
    for (const uint32_t length :
         {4096u, 16384u, 20480u, 65536u, 69632u, 1u << 20, (1u << 20) + 4096, 5u << 20, 32u << 20}) {
      CAPTURE(length);
      const std::string data = pattern(length, length + structured);
      CHECK(client.write(8192, data) == Error::kNone);
      CHECK(client.read(8192, length) == data);
      CHECK(client.offset == (structured ? 8192 : 0));
    }
    CHECK(client.call(Command::kRead, 0, (32u << 20) + 4096).error == Error::kInval);
    client.send(request(Command::kWrite, 1, 0, (32u << 20) + 4096));
    CHECK(client.closed());
  }
  CHECK(rig.nobodyConnected());
  CHECK(rig.server->counts().violations == 2);
}

TEST_CASE("random requests, many at once, in pieces of any size, against a model") {
  struct Way {
    const char *driver, *medium;
  };
  for (const Way& way : {Way{"uring", "memory"}, Way{"uring", "disk"}, Way{"posix", "disk"}, Way{"uring", "loop"}}) {
    CAPTURE(way.driver);
    CAPTURE(way.medium);
    if (way.medium == std::string("loop") && geteuid() != 0) {
      MESSAGE("partly skipped: loop devices need root");
      continue;
    }
    RigOptions options;
    options.driver = way.driver;
    options.medium = way.medium;
    options.diskBytes = 8 << 20;
    ServerRig rig(options);
    SM_NEEDS_RING(rig);
    Client client(rig.path());
    REQUIRE(client.open(kName));
    std::string model(options.diskBytes, '\0');
    std::mt19937_64 random(11);
    for (int round = 0; round < 20; ++round) {
      struct Asked {
        Command command;
        uint64_t offset;
        uint32_t length;
      };
      std::map<uint64_t, Asked> asked;
      std::string stream;
      // Each to a region of its own, so that their order does not matter.
      const uint64_t region = options.diskBytes / 64;
      for (uint64_t i = 0; i < 64; ++i) {
        const uint64_t cookie = random();
        const uint64_t from = random() % (region / 4096), blocks = 1 + random() % (region / 4096 - from);
        Asked it{Command::kRead, i * region + from * 4096, static_cast<uint32_t>(blocks * 4096)};
        const int kind = random() % 10;
        std::string payload;
        if (kind < 5) {
          it.command = Command::kWrite;
          payload = pattern(it.length, random());
          model.replace(it.offset, it.length, payload);
        } else if (kind == 5) {
          it.command = random() % 2 ? Command::kTrim : Command::kWriteZeroes;
          model.replace(it.offset, it.length, std::string(it.length, '\0'));
        }
        asked[cookie] = it;
        stream += request(it.command, cookie, it.offset, it.length) + payload;
      }
      std::thread sender([&] {
        for (size_t at = 0; at < stream.size();) {
          const size_t piece = std::min<size_t>(stream.size() - at, 1 + random() % 100000);
          client.send(std::string_view(stream).substr(at, piece));
          at += piece;
        }
      });
      while (!asked.empty()) {
        const Client::Answer answer = client.answer();
        if (!answer.received) break;
        CHECK(answer.error == Error::kNone);
        const auto it = asked.find(answer.cookie);
        REQUIRE(it != asked.end());
        if (it->second.command == Command::kRead) {
          CHECK((answer.data == model.substr(it->second.offset, it->second.length)));
        }
        asked.erase(it);
      }
      sender.join();
      REQUIRE(asked.empty());
    }
    client.disconnect();
    CHECK(client.closed());
    // And by the disk itself.
    std::string back(1 << 20, 0);
    for (uint64_t at = 0; at < model.size(); at += back.size()) {
      REQUIRE(diskIo(*rig.disks[0], SM_OP_READ, at, back.data(), back.size()) == 0);
      CHECK((back == model.substr(at, back.size())));
    }
  }
}

TEST_CASE("more requests than may be in flight, on disks of several threads, by many connections at once") {
  RigOptions options;
  options.threads = 2;
  options.disks = 2;
  options.diskBytes = 32 << 20;
  // Of everything less than the clients ask for at once: slots, requests, buffers.
  options.server.limits.requests = 12;
  options.host.requests = 64;
  options.host.bufferBytes = 2 << 20;
  options.server.bufferBytes = 32 << 20;
  ServerRig rig(options);
  SM_NEEDS_RING(rig);
  std::vector<std::thread> clients;
  std::atomic<int> good{0};
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&rig, &good, i] {
      Client client(rig.path());
      if (!client.open("vm-" + std::to_string(1 + i % 2) + "/vda")) return;
      const uint64_t base = (i / 2) * (8 << 20);
      for (int round = 0; round < 5; ++round) {
        const std::string data = pattern(512 << 10, i * 100 + round);
        for (int k = 0; k < 16; ++k) {
          client.send(request(Command::kWrite, k, base + k * data.size(), data.size()) + data);
        }
        for (int k = 0; k < 16; ++k) {
          if (client.answer().error != Error::kNone) return;
        }
        for (int k = 0; k < 16; ++k) client.send(request(Command::kRead, k, base + k * data.size(), data.size()));
        for (int k = 0; k < 16; ++k) {
          if (client.answer().data != data) return;
        }
      }
      ++good;
    });
  }
  for (std::thread& each : clients) each.join();
  CHECK(good == 8);
  CHECK(rig.nobodyConnected());
  const auto exports = rig.server->exports();
  REQUIRE(exports.size() == 2);
  for (const ExportCounts& each : exports) {
    CHECK(each.connected == 0);
    CHECK(each.counts[Count::kReads] == 4 * 5 * 16);
    CHECK(each.counts[Count::kWrites] == 4 * 5 * 16);
    CHECK(each.counts[Count::kBytesRead] == uint64_t{4 * 5 * 16} * (512 << 10));
    CHECK(each.counts[Count::kErrors] == 0);
  }
}

TEST_CASE("the null device, and a disk that is read-only") {
  RigOptions options;
  options.driver = "null";
  options.readOnly = true;
  ServerRig rig(options);
  SM_NEEDS_RING(rig);
  Client client(rig.path());
  REQUIRE(client.open(kName));
  CHECK(client.read(0, 1 << 20).size() == 1 << 20);
  CHECK(client.write(0, pattern(4096, 1)) == Error::kPerm);
  CHECK(client.call(Command::kFlush, 0, 0).error == Error::kNone);
  CHECK(client.call(Command::kWriteZeroes, 0, 4096).error == Error::kInval);  // it is not offered
  CHECK(client.read(0, 4096).size() == 4096);
}

TEST_CASE("zeroes are fast where the export says so") {
  RigOptions options;
  options.fastZeroes = true;
  ServerRig rig(options);
  SM_NEEDS_RING(rig);
  Client client(rig.path());
  REQUIRE(client.open(kName));
  CHECK(client.write(0, pattern(8192, 1)) == Error::kNone);
  CHECK(client.call(Command::kWriteZeroes, 0, 4096, {}, kFastZero).error == Error::kNone);
  CHECK(client.read(0, 4096) == std::string(4096, '\0'));
}

namespace {

// Blocks in turn, so that there are many extents.
class Turns final : public MetaContext {
 public:
  const std::string& name() const override { return name_; }
  size_t extents(uint64_t offset, uint32_t length, std::span<Extent> out) override {
    size_t count = 0;
    for (uint32_t at = 0; at < length && count < out.size(); at += 4096) {
      out[count++] = {4096, static_cast<uint32_t>((offset + at) / 4096 % 2 + 5)};
    }
    return count;
  }

 private:
  const std::string name_ = "test:turns";
};

}  // namespace

TEST_CASE("block status of several contexts, whole and one extent at a time") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  REQUIRE_OK(rig.server->removeExport(kName, kSecond));
  auto target = rig.exportOf(0);
  target->addContext(std::make_unique<Turns>());
  REQUIRE_OK(rig.server->addExport(std::move(target)));
  Client client(rig.path());
  REQUIRE(client.open(kName, true, {"test:turns", "base:allocation"}));
  const auto whole = client.call(Command::kBlockStatus, 4096, 3 * 4096);
  REQUIRE(whole.status.size() == 2);
  CHECK(whole.status[0] == std::vector<uint32_t>{3 * 4096, 0});
  CHECK(whole.status[1] == std::vector<uint32_t>{4096, 6, 4096, 5, 4096, 6});
  const auto one = client.call(Command::kBlockStatus, 4096, 3 * 4096, {}, kReqOne);
  REQUIRE(one.status.size() == 2);
  CHECK(one.status[1] == std::vector<uint32_t>{4096, 6});
  const auto many = client.call(Command::kBlockStatus, 0, 32 << 20);
  REQUIRE(many.status.size() == 2);
  CHECK(many.status[1].size() > 2 * 500);
  CHECK(client.call(Command::kBlockStatus, client.size, 4096).error == Error::kInval);
  CHECK(client.read(0, 4096).size() == 4096);
}

TEST_CASE("a flush on one connection covers what was written on another") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  Client first(rig.path()), second(rig.path());
  REQUIRE(first.open(kName));
  REQUIRE(second.open(kName));
  const std::string data = pattern(4096, 3);
  CHECK(first.write(0, data) == Error::kNone);
  CHECK(second.read(0, 4096) == data);
  CHECK(second.call(Command::kFlush, 0, 0).error == Error::kNone);
  CHECK(first.read(0, 4096) == data);
}

TEST_CASE("requests that the disk fails are answered with its error") {
  RigOptions options;
  ServerRig rig(options);
  SM_NEEDS_RING(rig);
  Client client(rig.path());
  REQUIRE(client.open(kName));
  CHECK(client.write(0, pattern(4096, 3)) == Error::kNone);
  REQUIRE_OK(rig.volume->resizeDisk(rig.disks[0], 4 << 20));  // less than the client was told
  CHECK(client.call(Command::kRead, 8 << 20, 4096).error == Error::kInval);
  CHECK(client.write(8 << 20, pattern(4096, 3)) == Error::kInval);
  CHECK(client.read(0, 4096) == pattern(4096, 3));
}
