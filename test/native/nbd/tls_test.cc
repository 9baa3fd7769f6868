// TLS between a server and its clients: who gets in, what holds afterwards, and what is refused.
#if SM_HAVE_GNUTLS

#include <sys/stat.h>

#include <thread>

#include "rig.h"
#include "tls_client.h"

using namespace sm;
using namespace sm::test;

namespace {

const std::string kName = "vm-1/vda";

// Everyone who takes part, and a server that asks for certificates.
struct TlsRig {
  explicit TlsRig(bool verifyPeer = true, const ServerOptions& server = {}) {
    TlsFiles files;
    files.ca = fileOf(folder.path, "ca.pem", authority.certificate());
    files.certificate = fileOf(folder.path, "cert.pem", identity.certificate());
    files.key = fileOf(folder.path, "key.pem", identity.key());
    files.verifyPeer = verifyPeer;
    std::unique_ptr<TlsServer> tls;
    REQUIRE_OK(TlsServer::open(files, &tls));
    RigOptions options;
    options.server = server;
    rig = std::make_unique<ServerRig>(options, std::move(tls));
    refused = rig->refused;
    this->server = rig->server.get();
  }
  // Ends with the counts, when everybody has gone.
  ServerCounts counts() const {
    CHECK(rig->nobodyConnected());
    return server->counts();
  }

  TempFolder folder;
  Identity authority{"CA", Identity::For::kSigning};
  Identity identity{"localhost", Identity::For::kServer, &authority};
  Identity known{"client", Identity::For::kClient, &authority};
  std::unique_ptr<ServerRig> rig;
  Failure refused;
  Server* server = nullptr;
};

void readsAndWrites(TlsClient& client) {
  REQUIRE(client.go(kName));
  uint64_t seed = 0;
  for (const uint32_t length : {4096u, 4096u * 7, 65536u, 1u << 20, 4u << 20}) {
    const std::string data = pattern(length, ++seed);
    REQUIRE(client.write(4096, data) == Error::kNone);
    CHECK((client.read(4096, length) == data));
  }
  // Many at once: records hold parts of several messages.
  std::string many;
  for (int i = 0; i < 64; ++i) many += request(Command::kWrite, i, i * 8192, 8192) + pattern(8192, i);
  CHECK(client.send(many));
  for (int i = 0; i < 64; ++i) CHECK(client.answer().received);
  for (int i = 0; i < 64; ++i) CHECK((client.read(i * 8192, 8192) == pattern(8192, i)));
}

}  // namespace

TEST_CASE("TLS: a client with a certificate reads and writes, by 1.2 and 1.3, in small records too") {
  TlsRig rig;
  SM_NEEDS_RING(rig);
  uint16_t port = 0;
  REQUIRE_OK(rig.server->listenTcp("127.0.0.1", 0, &port));
  const auto with = [&](TlsClient& client) {
    client.use(rig.known);
    client.trust(rig.authority);
    REQUIRE(client.startTls());
    CHECK(client.ask(Option::kStartTls).at(0).type == Reply::kErrInvalid);
    readsAndWrites(client);
    client.disconnect();
    CHECK(client.closed());
    CHECK(client.last == 0);  // said, not only cut off
  };
  for (const char* priority : {TlsClient::kNewest, TlsClient::kOlder}) {
    CAPTURE(priority);
    TlsClient first(rig.rig->path(), priority), second(port, priority), small(port, priority);
    with(first);
    with(second);
    gnutls_record_set_max_recv_size(small.session(), 512);
    with(small);
  }
  const ServerCounts counts = rig.counts();
  CHECK(counts.tlsFailed + counts.violations + counts.stalled == 0);
}

TEST_CASE("TLS: keys are changed under way; a handshake anew is refused") {
  TlsRig rig;
  SM_NEEDS_RING(rig);
  TlsClient newer(rig.rig->path()), older(rig.rig->path(), TlsClient::kOlder);
  for (TlsClient* client : {&newer, &older}) {
    client->use(rig.known);
    REQUIRE(client->startTls());
    REQUIRE(client->go(kName));
  }
  for (int i = 0; i < 5; ++i) {
    REQUIRE(gnutls_session_key_update(newer.session(), GNUTLS_KU_PEER) == 0);
    CHECK(newer.write(0, pattern(65536, i)) == Error::kNone);
    CHECK((newer.read(0, 65536) == pattern(65536, i)));
  }
  CHECK(older.handshake() != 0);
  newer.disconnect();
  CHECK(rig.counts().violations == 1);
}

TEST_CASE("TLS: no certificate, a stranger's, a server's and an old one's are refused") {
  TlsRig rig;
  SM_NEEDS_RING(rig);
  const Identity strangers("other CA", Identity::For::kSigning);
  const Identity stranger("client", Identity::For::kClient, &strangers);
  const auto gets = [&](const Identity* identity, const char* priority) {
    TlsClient client(rig.rig->path(), priority);
    if (identity) client.use(*identity);
    return client.startTls() && !client.ask(Option::kList).empty();
  };
  uint64_t expected = 0;
  for (const char* priority : {TlsClient::kNewest, TlsClient::kOlder}) {
    CAPTURE(priority);
    CHECK_FALSE(gets(nullptr, priority));
    CHECK_FALSE(gets(&stranger, priority));
    CHECK_FALSE(gets(&rig.identity, priority));
    CHECK(gets(&rig.known, priority));
    expected += 3;
  }
  CHECK_FALSE(gets(&rig.known, "NORMAL:-VERS-ALL:+VERS-TLS1.1"));
  CHECK(rig.counts().tlsFailed == expected + 1);
}

TEST_CASE("TLS: a client that does not know the server's authority goes away") {
  TlsRig rig;
  SM_NEEDS_RING(rig);
  const Identity strangers("other CA", Identity::For::kSigning);
  TlsClient client(rig.rig->path());
  client.use(rig.known);
  client.trust(strangers);
  CHECK_FALSE(client.startTls());
  client.close();
  CHECK(rig.counts().tlsFailed == 1);
}

TEST_CASE("TLS: without verification anybody gets in, encrypted") {
  TlsRig rig(false);
  SM_NEEDS_RING(rig);
  TlsClient client(rig.rig->path());
  client.trust(rig.authority);
  REQUIRE(client.startTls());
  readsAndWrites(client);
}

TEST_CASE("TLS: before it nothing is told and nothing taken") {
  TlsRig rig;
  SM_NEEDS_RING(rig);
  Client plain(rig.rig->path());
  REQUIRE(plain.greet());
  for (const Option type : {Option::kList, Option::kStructuredReply, Option::kSetMetaContext}) {
    CHECK(plain.ask(type).at(0).type == Reply::kErrTlsReqd);
  }
  CHECK(plain.ask(Option::kGo, infoData(kName)).at(0).type == Reply::kErrTlsReqd);
  CHECK(plain.ask(Option::kInfo, infoData(kName)).at(0).type == Reply::kErrTlsReqd);
  CHECK(plain.ask(Option::kAbort).at(0).type == Reply::kAck);
  CHECK(plain.closed());
  Client old(rig.rig->path());
  REQUIRE(old.greet());
  old.send(option(Option::kExportName, kName));
  CHECK(old.closed());

  SUBCASE("options in the packet of STARTTLS, for which the answer would be taken for one by TLS") {
    TlsClient client(rig.rig->path());
    client.use(rig.known);
    REQUIRE(client.greet());
    client.send(option(Option::kStartTls) + option(Option::kList));
    CHECK(client.closed());
    CHECK(rig.counts().violations == 1);
  }
  SUBCASE("a part of one") {
    Client client(rig.rig->path());
    REQUIRE(client.greet());
    client.send(option(Option::kStartTls) + "I");
    CHECK(client.closed());
    CHECK(rig.counts().violations == 1);
  }
  SUBCASE("options behind it, before the handshake") {
    TlsClient client(rig.rig->path());
    client.use(rig.known);
    REQUIRE(client.greet());
    REQUIRE(client.ask(Option::kStartTls).at(0).type == Reply::kAck);
    client.send(option(Option::kList));
    CHECK(client.handshake() != 0);
    client.close();
    CHECK(rig.counts().tlsFailed == 1);
  }
  SUBCASE("what was agreed on before does not hold") {  // here nothing can be; with TLS that is offered it could
    TlsClient client(rig.rig->path());
    client.use(rig.known);
    REQUIRE(client.greet());
    CHECK(client.ask(Option::kStructuredReply).at(0).type == Reply::kErrTlsReqd);
    REQUIRE(client.ask(Option::kStartTls).at(0).type == Reply::kAck);
    REQUIRE(client.handshake() == 0);
    CHECK(client.ask(Option::kSetMetaContext, contextData(kName, {"base:allocation"})).at(0).type ==
          Reply::kErrInvalid);
  }
}

TEST_CASE("TLS: handshakes that stall, break off and are never ended leave nothing behind") {
  ServerOptions options;
  options.limits.handshake = kSecond / 2;
  TlsRig rig(true, options);
  SM_NEEDS_RING(rig);
  const auto begun = [&](Client& client) {
    if (!client.greet()) return false;
    const auto replies = client.ask(Option::kStartTls);
    return !replies.empty() && replies[0].type == Reply::kAck;
  };
  SUBCASE("silence") {
    Client client(rig.rig->path());
    REQUIRE(begun(client));
    CHECK(client.closed());
    CHECK(rig.counts().stalled == 1);
  }
  SUBCASE("half a hello") {
    Client client(rig.rig->path());
    REQUIRE(begun(client));
    client.send(std::string("\x16\x03\x01\x02\x00\x01\x00", 7));
    CHECK(client.closed());
    CHECK(rig.counts().stalled == 1);
  }
  SUBCASE("no TLS") {
    Client client(rig.rig->path());
    REQUIRE(begun(client));
    client.send(pattern(1000, 1));
    client.receive(1000);  // an alert
    CHECK(rig.counts().tlsFailed == 1);
  }
  SUBCASE("gone at every step, many at once") {
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&] {
        for (int i = 0; i < 20; ++i) {
          TlsClient client(rig.rig->path());
          client.use(rig.known);
          if (!begun(client) || i % 4 == 0) continue;
          if (i % 4 == 1) {
            shutdown(client.fd(), SHUT_WR);
            continue;
          }
          if (client.handshake() != 0 || i % 4 == 2) continue;
          if (client.go(kName)) client.send(request(Command::kWrite, 1, 0, 65536) + pattern(30000, 1));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(rig.counts().accepted == 80);
  }
  SUBCASE("the server closes") {
    Client shaking(rig.rig->path());
    REQUIRE(begun(shaking));
    std::vector<std::unique_ptr<TlsClient>> clients;
    std::thread shakes([&] {
      for (int i = 0; i < 20; ++i) {
        clients.push_back(std::make_unique<TlsClient>(rig.rig->path()));
        clients.back()->use(rig.known);
        if (!clients.back()->startTls()) return;
      }
    });
    usleep(20'000);
    rig.server->close(kSecond);
    shakes.join();
    CHECK(shaking.closed());
    CHECK(rig.server->counts().connected == 0);
  }
}

TEST_CASE("TLS: every address may be listened on") {
  TlsRig rig;
  SM_NEEDS_RING(rig);
  uint16_t port = 0;
  REQUIRE_OK(rig.server->listenTcp("0.0.0.0", 0, &port));
  TlsClient client(port);
  client.use(rig.known);
  CHECK(client.startTls());
}

TEST_CASE("TLS: files that are missing, wrong or do not belong together") {
  const Identity authority("CA", Identity::For::kSigning);
  const Identity server("localhost", Identity::For::kServer, &authority);
  TempFolder folder;
  const TlsFiles good{fileOf(folder.path, "ca.pem", authority.certificate()),
                      fileOf(folder.path, "cert.pem", server.certificate()),
                      fileOf(folder.path, "key.pem", server.key())};
  const auto failure = [](const TlsFiles& files) {
    std::unique_ptr<TlsServer> tls;
    Failure failure = TlsServer::open(files, &tls);
    CHECK(static_cast<bool>(tls) != static_cast<bool>(failure));
    return failure;
  };
  CHECK_FALSE(static_cast<bool>(failure(good)));
  const std::string missing = folder.path + "/missing", empty = fileOf(folder.path, "empty", "");
  const std::string locked = fileOf(folder.path, "locked.pem", server.key("secret"));
  const std::string foreign = fileOf(folder.path, "foreign.pem", authority.key());
  const std::string pipe = folder.path + "/pipe";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  TlsFiles files = good;
  for (std::string TlsFiles::*member : {&TlsFiles::ca, &TlsFiles::certificate, &TlsFiles::key}) {
    files = good;
    files.*member = missing;
    checkFailure(failure(files), ENOENT, "ENOENT", "nbd", "(" + missing + ") cannot be read");
    files.*member = folder.path;
    checkFailure(failure(files), EINVAL, "EINVAL", "nbd", "it is no file");
    files.*member = pipe;
    checkFailure(failure(files), EINVAL, "EINVAL", "nbd", "it is no file");
    files.*member = folder.file("long", 2 << 20);
    checkFailure(failure(files), EFBIG, "EFBIG", "nbd", "longer than 1 MiB");
    files.*member = empty;
    checkFailure(failure(files), EINVAL, "ERR_STRATAMAP_TLS", "nbd", "(" + empty + ") holds no");
  }
  files = good;
  files.ca = good.key;
  checkFailure(failure(files), EINVAL, "ERR_STRATAMAP_TLS", "nbd", "holds no certificate");
  files = good;
  files.key = good.certificate;
  checkFailure(failure(files), EINVAL, "ERR_STRATAMAP_TLS", "nbd", "holds no key");
  files.key = locked;
  checkFailure(failure(files), EINVAL, "ERR_STRATAMAP_TLS", "nbd", "without a password");
  files.key = foreign;
  checkFailure(failure(files), EINVAL, "ERR_STRATAMAP_TLS", "nbd", "is not that of " + good.certificate);
  files = good;
  files.ca.clear();
  files.verifyPeer = false;
  CHECK_FALSE(static_cast<bool>(failure(files)));
}

#else

#include "rig.h"

using namespace sm;
using namespace sm::test;

TEST_CASE("TLS: without GnuTLS it is said so") {
  std::unique_ptr<TlsServer> tls;
  checkFailure(TlsServer::open({}, &tls), ENOTSUP, "ERR_STRATAMAP_TLS", "nbd", "built without GnuTLS");
}

#endif
