// Many connections, one after another and at once, ended in every way: nothing of them stays. SM_NIGHTLY=1 for more.
#include <dirent.h>
#include <malloc.h>

#include <fstream>
#include <thread>

#include "engine/buffer_pool.h"
#include "rig.h"
#if SM_HAVE_GNUTLS
#include "tls_client.h"
#endif

using namespace sm;
using namespace sm::test;

namespace {

const std::string kName = "vm-1/vda";
const bool kNightly = std::getenv("SM_NIGHTLY") != nullptr;

size_t openFiles() {
  size_t count = 0;
  DIR* folder = opendir("/proc/self/fd");
  while (folder && readdir(folder)) ++count;
  if (folder) closedir(folder);
  return count;
}

// Resident memory, bytes. Sanitizers keep what was freed: theirs says nothing (and one of them looks for leaks itself).
size_t resident() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 0;
#else
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return 0;
#endif
#endif
  malloc_trim(0);
  size_t all = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> all >> pages;
  return pages * sysconf(_SC_PAGESIZE);
#endif
}

// What is held of everything that a connection takes.
struct Held {
  explicit Held(const ServerRig& rig) : files(openFiles()), memory(resident()) {
    for (const auto& thread : rig.host->threads()) {
      onThread(*thread, [&] { poolFree += thread->buffers().freeBytes(); });
    }
    for (VirtualDisk* disk : rig.disks) inFlight += disk->inFlight();
  }
  size_t files, memory, poolFree = 0, inFlight = 0;
};

// Of memory some is kept for the next time: the more, the more threads took part.
void checkNothingLeft(const ServerRig& rig, const Held& before, size_t kept = 1 << 20) {
  CHECK(rig.nobodyConnected());
  const Held after(rig);
  CHECK(after.files == before.files);
  CHECK(after.poolFree == before.poolFree);
  CHECK(after.inFlight == 0);
  CHECK(after.memory <= before.memory + kept);
}

}  // namespace

TEST_CASE("connections that come and go leave nothing behind") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  const size_t rounds = kNightly ? 10000 : 500;
  const auto come = [&](size_t count) {
    for (size_t i = 0; i < count; ++i) {
      Client client(rig.path());
      if (i % 5 == 0) continue;
      if (i % 5 == 4) {
        REQUIRE(client.greet());
        CHECK(client.ask(Option::kList).back().type == Reply::kAck);
        continue;
      }
      REQUIRE(client.open(kName));
      if (i % 5 == 1) client.send(request(Command::kWrite, 1, 0, 65536) + pattern(i, 1));
      if (i % 5 == 2) CHECK(client.write(0, pattern(4096, i)) == Error::kNone);
      if (i % 5 == 3) client.disconnect();
    }
    CHECK(rig.nobodyConnected());
  };
  come(50);
  const Held before(rig);
  come(rounds);
  checkNothingLeft(rig, before);
  CHECK(rig.server->counts().accepted == rounds + 50);
}

#if SM_HAVE_GNUTLS
TEST_CASE("TLS: connections that come and go leave nothing behind") {
  const TempFolder folder;
  const Identity authority("CA", Identity::For::kSigning);
  const Identity identity("localhost", Identity::For::kServer, &authority);
  const Identity known("client", Identity::For::kClient, &authority);
  std::unique_ptr<TlsServer> tls;
  REQUIRE_OK(TlsServer::open(
      {fileOf(folder.path, "ca.pem", authority.certificate()), fileOf(folder.path, "cert.pem", identity.certificate()),
       fileOf(folder.path, "key.pem", identity.key())},
      &tls));
  ServerRig rig({}, std::move(tls));
  SM_NEEDS_RING(rig);
  const size_t rounds = kNightly ? 5000 : 100;
  const auto come = [&](size_t count) {
    for (size_t i = 0; i < count; ++i) {
      TlsClient client(rig.path());
      if (i % 5 != 0) client.use(known);  // else it is refused
      if (i % 5 == 1) {
        REQUIRE(client.greet());
        REQUIRE(client.ask(Option::kStartTls).at(0).type == Reply::kAck);
        client.Client::send(std::string("\x16\x03\x01\x02\x00", 5));
        continue;
      }
      if (!client.startTls() || i % 5 < 2) continue;
      REQUIRE(client.go(kName));
      if (i % 5 == 2) client.send(request(Command::kWrite, 1, 0, 65536) + pattern(i % 60000, 1));
      if (i % 5 == 3) CHECK(client.write(0, pattern(4096, i)) == Error::kNone);
      if (i % 5 == 4) client.send(request(Command::kRead, 1, 0, 1 << 20));
    }
    CHECK(rig.nobodyConnected());
  };
  come(20);
  const Held before(rig);
  come(rounds);
  checkNothingLeft(rig, before);
}
#endif

TEST_CASE("200 at once under load, and many of them cut off in the middle of a request") {
  RigOptions options;
  options.threads = 2;
  options.server.connections = 300;  // one that is cut off is gone a moment later
  ServerRig rig(options);
  SM_NEEDS_RING(rig);
  constexpr size_t kThreads = 4, kEach = 50;
  constexpr uint32_t kOwn = 64 << 10;  // bytes of the disk that are one client's alone
  const int rounds = kNightly ? 100 : 4;
  const auto run = [&](int times) {
    std::atomic<uint64_t> wrong{0};
    std::vector<std::thread> threads;
    for (size_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        std::vector<std::unique_ptr<Client>> clients(kEach);
        for (int round = 0; round < times; ++round) {
          for (size_t i = 0; i < kEach; ++i) {
            std::unique_ptr<Client>& client = clients[i];
            if (!client) client = std::make_unique<Client>(rig.path());
            if (client->size == 0 && !client->open(kName)) ++wrong;
            const uint64_t at = (thread * kEach + i) * kOwn;
            client->send(request(Command::kWrite, round, at, kOwn) + pattern(kOwn, at + round));
            client->send(request(Command::kFlush, round, 0, 0));
          }
          for (size_t i = 0; i < kEach; ++i) {
            std::unique_ptr<Client>& client = clients[i];
            const uint64_t at = (thread * kEach + i) * kOwn;
            for (int reply = 0; reply < 2; ++reply) {
              const Client::Answer answer = client->answer();
              if (!answer.received || answer.error != Error::kNone) ++wrong;
            }
            if (client->read(at, kOwn) != pattern(kOwn, at + round)) ++wrong;
            switch ((i + round) % 4) {
              case 0:  // in a payload
                client->send((request(Command::kWrite, 1, at, kOwn) + pattern(kOwn, 1)).substr(0, 20000));
                client.reset();
                break;
              case 1:  // with replies under way
                for (int more = 0; more < 8; ++more) client->send(request(Command::kRead, more, at, kOwn));
                client.reset();
                break;
              default:
                break;
            }
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(rig.nobodyConnected());
  };
  run(1);
  const Held before(rig);
  run(rounds);
  checkNothingLeft(rig, before, 8 << 20);
  CHECK(rig.server->counts().refused + rig.server->counts().violations + rig.server->counts().stalled == 0);
}
