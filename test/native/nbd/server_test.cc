// A server's life: where it listens, whom it lets in, how connections end.
#include <sys/stat.h>

#include <thread>

#include "rig.h"

using namespace sm;
using namespace sm::test;

namespace {

const std::string kName = "vm-1/vda";

RigOptions quick() {
  RigOptions options;
  options.server.limits.handshake = kSecond / 4;
  options.server.limits.stall = kSecond / 4;
  return options;
}

}  // namespace

TEST_CASE("a unix socket is the owner's alone, whatever the umask, and goes with the server") {
  for (const mode_t mask : {0u, 022u, 0777u}) {
    const mode_t before = umask(0);
    ServerRig rig;
    SM_NEEDS_RING(rig);
    const std::string path = rig.folder.path + "/other.sock";
    umask(mask);
    const Failure failure = rig.server->listenUnix(path);
    umask(before);
    REQUIRE_OK(failure);
    struct stat made {};
    REQUIRE(stat(path.c_str(), &made) == 0);
    CHECK((made.st_mode & 07777) == 0600);
    CHECK(S_ISSOCK(made.st_mode));
    CHECK(Client(path).open(kName));
    rig.server->close(kSecond);
    CHECK(access(path.c_str(), F_OK) != 0);
    CHECK(access(rig.path().c_str(), F_OK) != 0);
  }
}

TEST_CASE("a dead socket is taken over; a live one, a file and a wrong path are not") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  std::unique_ptr<Server> second;
  REQUIRE_OK(Server::open(rig.host->threads(), {}, &second));
  checkFailure(second->listenUnix(rig.path()), EADDRINUSE, "EADDRINUSE", "nbd", "another process listens");
  checkFailure(second->listenUnix(rig.folder.path + "/d0"), EEXIST, "EEXIST", "nbd", "is no socket");
  checkFailure(second->listenUnix(""), EINVAL, "EINVAL", "nbd", "1 to 107 bytes");
  checkFailure(second->listenUnix(std::string(108, 'x')), ENAMETOOLONG, "ENAMETOOLONG", "nbd", "1 to 107 bytes");
  checkFailure(second->listenUnix("/nonexistent/folder/s"), ENOENT, "ENOENT", "nbd", "its folder");

  const std::string dead = rig.folder.path + "/dead.sock";
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  dead.copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  ::close(fd);
  REQUIRE_OK(second->listenUnix(dead));
  CHECK(Client(dead).greet());

  // What took a server's name in the meantime is not removed with the server.
  REQUIRE(unlink(dead.c_str()) == 0);
  std::unique_ptr<Server> third;
  REQUIRE_OK(Server::open(rig.host->threads(), {}, &third));
  REQUIRE_OK(third->listenUnix(dead));
  second->close(0);
  CHECK(Client(dead).greet());
}

TEST_CASE("TCP on loopback alone while there is no TLS") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  uint16_t port = 0, same = 0;
  REQUIRE_OK(rig.server->listenTcp("127.0.0.1", 0, &port));
  CHECK(port != 0);
  Client client(port);
  REQUIRE(client.open(kName));
  CHECK(client.write(0, pattern(1 << 20, 1)) == Error::kNone);
  CHECK(client.read(0, 1 << 20) == pattern(1 << 20, 1));
  CHECK(rig.server->connections().at(0).peer.find("127.0.0.1:") == 0);
  checkFailure(rig.server->listenTcp("127.0.0.1", port, &same), EADDRINUSE, "EADDRINUSE", "nbd", "bind");
  for (const char* host : {"0.0.0.0", "::", "10.1.2.3"}) {
    CAPTURE(host);
    checkFailure(rig.server->listenTcp(host, 0, &same), EACCES, "ERR_STRATAMAP_TLS_REQUIRED", "nbd", "TLS is off");
  }
  CHECK(rig.server->listenTcp("no.such.host.invalid", 0, &same).error == EINVAL);
}

TEST_CASE("exports come and go; the empty name is the only one's") {
  RigOptions options;
  options.disks = 2;
  ServerRig rig(options);
  SM_NEEDS_RING(rig);
  checkFailure(rig.server->addExport(rig.exportOf(0)), EEXIST, "EEXIST", "nbd", "use another name");
  checkFailure(rig.server->removeExport("nothing", 0), ENOENT, "ENOENT", "nbd", "none of that name");
  CHECK_FALSE(Client(rig.path()).open(""));
  Client stays(rig.path()), goes(rig.path());
  REQUIRE(stays.open("vm-2/vda"));
  REQUIRE(goes.open(kName));
  CHECK(goes.write(0, pattern(4096, 1)) == Error::kNone);
  REQUIRE_OK(rig.server->removeExport(kName, kSecond));
  CHECK(goes.closed());
  REQUIRE_OK(rig.volume->closeDisk(rig.disks[0]));
  CHECK(stays.write(0, pattern(4096, 1)) == Error::kNone);
  CHECK_FALSE(Client(rig.path()).open(kName));
  Client fallback(rig.path());
  REQUIRE(fallback.open(""));
  CHECK(fallback.read(0, 4096) == pattern(4096, 1));
  const auto list = rig.server->connections();
  REQUIRE(list.size() == 2);
  for (const ConnectionInfo& each : list) {
    CHECK(each.exportName == "vm-2/vda");
    CHECK(each.peer == "unix:" + std::to_string(getpid()));
  }
}

TEST_CASE("clients that stall or break the protocol lose their connection, and nobody else does") {
  ServerRig rig(quick());
  SM_NEEDS_RING(rig);
  Client good(rig.path());
  REQUIRE(good.open(kName));
  uint64_t stalled = 0, violations = 0;
  const auto ended = [&](uint64_t moreStalled, uint64_t moreViolations) {
    stalled += moreStalled;
    violations += moreViolations;
    CHECK(rig.soon([&] {
      const ServerCounts counts = rig.server->counts();
      return counts.stalled == stalled && counts.violations == violations && counts.connected == 1;
    }));
    CHECK(good.write(0, pattern(4096, stalled)) == Error::kNone);
    CHECK(good.read(0, 4096) == pattern(4096, stalled));
  };
  SUBCASE("silent from the start") {
    Client client(rig.path());
    CHECK(client.receive(kGreetingBytes).size() == kGreetingBytes);
    CHECK(client.closed());
    ended(1, 0);
  }
  SUBCASE("one option after another, for ever") {
    Client client(rig.path());
    REQUIRE(client.greet());
    while (!client.ask(Option::kList).empty()) usleep(1000);
    ended(1, 0);
  }
  SUBCASE("half a request") {
    Client client(rig.path());
    REQUIRE(client.open(kName));
    client.send(request(Command::kRead, 1, 0, 4096).substr(0, 20));
    CHECK(client.closed());
    ended(1, 0);
  }
  SUBCASE("half a payload") {
    Client client(rig.path());
    REQUIRE(client.open(kName));
    client.send(request(Command::kWrite, 1, 0, 1 << 20) + pattern(100000, 1));
    CHECK(client.closed());
    ended(1, 0);
  }
  SUBCASE("half the payload of a request that is refused") {
    Client client(rig.path());
    REQUIRE(client.open(kName));
    client.send(request(Command::kWrite, 1, 1, 1 << 20) + pattern(100000, 1));
    CHECK(client.answer().error == Error::kInval);
    CHECK(client.closed());
    ended(1, 0);
  }
  SUBCASE("replies that are not read") {
    Client client(rig.path());
    REQUIRE(client.open(kName));
    for (int i = 0; i < 16; ++i) client.send(request(Command::kRead, i, 0, 1 << 20));
    ended(1, 0);
  }
  SUBCASE("another protocol") {
    Client client(rig.path());
    client.send("GET / HTTP/1.1\r\n\r\n");
    CHECK(client.receive(kGreetingBytes).size() == kGreetingBytes);
    CHECK(client.closed());
    ended(0, 1);
  }
  SUBCASE("no option") {
    Client client(rig.path());
    REQUIRE(client.greet());
    client.send(std::string(16, 'x'));
    CHECK(client.closed());
    ended(0, 1);
  }
  SUBCASE("no request, with others in flight") {
    Client client(rig.path());
    REQUIRE(client.open(kName));
    client.send(request(Command::kRead, 1, 0, 1 << 20) + request(Command::kRead, 1, 0, 1 << 20) + std::string(28, 'x'));
    while (!client.closed()) {
    }
    ended(0, 1);
  }
  SUBCASE("gone in the middle of everything") {
    const std::string whole =
        request(Command::kRead, 1, 0, 1 << 20) + request(Command::kWrite, 2, 0, 1 << 20) + pattern(1 << 20, 1);
    for (const size_t cut : {10u, 28u, 5000u, 70000u}) {
      Client client(rig.path());
      REQUIRE(client.open(kName));
      client.send(std::string_view(whole).substr(0, kRequestBytes + cut));
    }
    CHECK(rig.soon([&] { return rig.server->counts().connected == 1; }));
    ended(rig.server->counts().stalled, 0);  // where this thread waits for a processor it may seem to stall before
  }
  SUBCASE("idle, which is no offence") {
    Client client(rig.path());
    REQUIRE(client.open(kName));
    usleep(700'000);
    CHECK(client.read(0, 4096).size() == 4096);
    client.close();
    ended(0, 0);
  }
}

TEST_CASE("clients that read no replies do not keep others from theirs") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  std::vector<std::unique_ptr<Client>> deaf;
  for (const uint32_t length : {32u << 20, 32u << 20, 1u << 20, 1u << 20}) {
    deaf.push_back(std::make_unique<Client>(rig.path()));
    REQUIRE(deaf.back()->open(kName));
    for (int i = 0; i < 100; ++i) deaf.back()->send(request(Command::kRead, i, 0, length));
  }
  Client good(rig.path());
  REQUIRE(good.open(kName));
  for (int i = 0; i < 100; ++i) {
    CHECK(good.write(0, pattern(65536, i)) == Error::kNone);
    CHECK(good.read(0, 65536) == pattern(65536, i));
  }
}

TEST_CASE("ABORT, EXPORT_NAME and DISC end as they should") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  Client aborts(rig.path());
  REQUIRE(aborts.greet());
  CHECK(aborts.ask(Option::kAbort).at(0).type == Reply::kAck);
  CHECK(aborts.closed());
  Client old(rig.path());
  REQUIRE(old.greet());
  old.structured = false;
  old.send(option(Option::kExportName, kName) + request(Command::kRead, 1, 0, 4096));
  CHECK(old.receive(10).size() == 10);
  CHECK(old.answer(4096).data.size() == 4096);
  Client unknown(rig.path());
  REQUIRE(unknown.greet());
  unknown.send(option(Option::kExportName, "nothing"));
  CHECK(unknown.closed());
  // What was asked for before DISC is answered.
  old.send(request(Command::kWrite, 2, 0, 4096) + pattern(4096, 1) + request(Command::kFlush, 3, 0, 0) +
           request(Command::kDisconnect, 4, 0, 0));
  CHECK(old.answer().received);
  CHECK(old.answer().received);
  CHECK(old.closed());
}

TEST_CASE("no more connections than there may be") {
  RigOptions options;
  options.server.connections = 3;
  ServerRig rig(options);
  SM_NEEDS_RING(rig);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<Client>(rig.path()));
    REQUIRE(clients.back()->open(kName));
  }
  Client late(rig.path());
  CHECK(late.closed());
  CHECK(rig.server->counts().refused == 1);
  clients.pop_back();
  CHECK(rig.soon([&] { return rig.server->counts().connected == 2; }));
  Client next(rig.path());
  CHECK(next.open(kName));
}

TEST_CASE("a close lets what was read end; a forced one waits for nobody") {
  for (const bool forced : {false, true}) {
    CAPTURE(forced);
    ServerRig rig;
    SM_NEEDS_RING(rig);
    Client busy(rig.path()), idle(rig.path()), shaking(rig.path()), deaf(rig.path());
    REQUIRE(busy.open(kName));
    REQUIRE(idle.open(kName));
    REQUIRE(shaking.greet());
    const std::string data = pattern(1 << 20, 5);
    for (int i = 0; i < 8; ++i) busy.send(request(Command::kWrite, i, i << 20, data.size()) + data);
    if (forced) {  // it would never end by itself
      REQUIRE(deaf.open(kName));
      for (int i = 0; i < 16; ++i) deaf.send(request(Command::kRead, i, 0, 1 << 20));
    }
    std::vector<uint64_t> answered;
    std::thread reader([&] {
      for (;;) {
        const Client::Answer answer = busy.answer();
        if (!answer.received) return;
        if (answer.error == Error::kNone) answered.push_back(answer.cookie);
      }
    });
    if (!forced) {
      CHECK(rig.soon([&] { return rig.server->exports().at(0).counts[Count::kWrites] > 0; }));
    }
    rig.server->close(forced ? 0 : 20 * kSecond);
    reader.join();
    CHECK(idle.closed());
    CHECK(shaking.closed());
    CHECK(rig.server->counts().connected == 0);
    if (!forced) CHECK_FALSE(answered.empty());
    for (const uint64_t cookie : answered) {
      std::string back(data.size(), 0);
      REQUIRE(diskIo(*rig.disks[0], SM_OP_READ, cookie << 20, back.data(), back.size()) == 0);
      CHECK((back == data));
    }
    checkFailure(rig.server->listenUnix(rig.path()), EBADF, "ERR_STRATAMAP_CLOSED", "nbd", "closed");
  }
}

TEST_CASE("a close answers what was received whole, though there was no room to take it") {
  RigOptions options;
  options.server.limits.requests = 1;
  ServerRig rig(options);
  SM_NEEDS_RING(rig);
  Client client(rig.path());
  REQUIRE(client.open(kName));
  const std::string data = pattern(4096, 9);
  std::string all;
  for (int i = 0; i < 8; ++i) all += request(Command::kRead, i, 0, 1 << 20);  // more than a socket takes of replies
  all += request(Command::kWrite, 8, 4096, data.size()) + data;
  all += request(Command::kWrite, 9, 8192, data.size()) + data.substr(1);  // not whole
  REQUIRE(client.send(all));                                               // at once, and so it is received
  CHECK(rig.soon([&] { return rig.server->exports().at(0).counts[Count::kReads] > 0; }));
  std::thread closes([&] { rig.server->close(20 * kSecond); });
  CHECK(rig.soon([&] { return access(rig.path().c_str(), F_OK) != 0; }));
  usleep(50'000);  // and it is told
  for (uint64_t i = 0; i < 9; ++i) {
    const Client::Answer answer = client.answer();
    CHECK(answer.received);
    CHECK(answer.cookie == i);
    CHECK(answer.error == Error::kNone);
  }
  CHECK(client.closed());
  closes.join();
  std::string back(2 * data.size(), 0);
  REQUIRE(diskIo(*rig.disks[0], SM_OP_READ, 4096, back.data(), back.size()) == 0);
  CHECK((back == data + std::string(data.size(), '\0')));
}

TEST_CASE("without io_uring the server says that it needs it") {
  RigOptions options;
  options.host.uring = false;
  options.driver = "posix";
  ServerRig rig(options);
  checkFailure(rig.refused, ENOSYS, "ENOSYS", "nbd", "it needs io_uring");
}

TEST_CASE("limits that make no sense are refused") {
  ServerRig rig;
  SM_NEEDS_RING(rig);
  std::unique_ptr<Server> server;
  ServerOptions options;
  options.limits.requests = 0;
  checkFailure(Server::open(rig.host->threads(), options, &server), EINVAL, "ERR_OUT_OF_RANGE", "nbd", "1 to 1024");
}
