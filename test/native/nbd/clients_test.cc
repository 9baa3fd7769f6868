// The clients that people use, against the server: each where it is installed.
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fstream>
#include <functional>
#include <iterator>

#include "rig.h"
#if SM_HAVE_GNUTLS
#include "tls_client.h"
#endif

using namespace sm;
using namespace sm::test;

namespace {

const std::string kName = "vm-1/vda";

struct Outcome {
  int status = -1;  // of its end; -1: it could not be started
  std::string output;
};

// Runs a program, found by PATH, and waits for it.
Outcome run(const std::vector<std::string>& words) {
  char name[] = "/tmp/stratamap-output-XXXXXX";
  const int out = mkostemp(name, O_CLOEXEC);
  REQUIRE(out >= 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_adddup2(&actions, out, 2);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t child = -1;
  Outcome outcome;
  if (posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ) == 0) {
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
    std::ifstream file(name);
    outcome.output.assign(std::istreambuf_iterator<char>(file), {});
  }
  posix_spawn_file_actions_destroy(&actions);
  close(out);
  unlink(name);
  return outcome;
}

bool installed(const std::vector<std::string>& probe) { return run(probe).status == 0; }

#define SM_NEEDS_CLIENT(...)                                                            \
  do {                                                                                  \
    const std::vector<std::string> probe_{__VA_ARGS__};                                 \
    if (!installed(probe_)) {                                                           \
      MESSAGE("skipped: " << probe_[0] << " is not installed, or lacks what it needs"); \
      return;                                                                           \
    }                                                                                   \
  } while (false)

void checkRun(const std::vector<std::string>& words, const std::string& says = {}) {
  const Outcome outcome = run(words);
  INFO(words[0] << ": " << outcome.output);
  CHECK(outcome.status == 0);
  CHECK(outcome.output.find(says) != std::string::npos);
}

// The disk as clients are told of it.
struct Place {
  std::string uri;                   // libnbd's
  std::string image;                 // QEMU's, by --image-opts
  std::vector<std::string> options;  // that QEMU's programs need before it
  std::vector<std::string> fio;      // runs it

  std::vector<std::string> qemu(std::vector<std::string> words) const {
    words.insert(words.end(), options.begin(), options.end());
    words.push_back("--image-opts");
    return words;
  }
};

#if SM_HAVE_GNUTLS
// The same disk from another server, which asks for certificates; `folder` gets the client's, as libnbd and QEMU name
// them.
void withTls(ServerRig& rig, const std::function<void(const Place&)>& use) {
  // fio does not let its URI name files, and libnbd looks in a user's own folder only for who is not root.
  const TempFolder home;
  REQUIRE(mkdir((home.path + "/.pki").c_str(), 0700) == 0);
  const std::string folder = home.path + "/.pki/libnbd";
  REQUIRE(mkdir(folder.c_str(), 0700) == 0);
  std::vector<std::string> fio{"env", "HOME=" + home.path, "fio"};
  if (geteuid() == 0) {
    fio.insert(fio.begin(), {"setpriv", "--euid=65534", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"});
  }
  const Identity authority("CA", Identity::For::kSigning);
  const Identity identity("localhost", Identity::For::kServer, &authority);
  const Identity client("client", Identity::For::kClient, &authority);
  const TlsFiles files{fileOf(folder, "ca-cert.pem", authority.certificate()),
                       fileOf(folder, "cert.pem", identity.certificate()), fileOf(folder, "key.pem", identity.key())};
  fileOf(folder, "client-cert.pem", client.certificate());
  fileOf(folder, "client-key.pem", client.key());
  std::unique_ptr<TlsServer> tls;
  REQUIRE_OK(TlsServer::open(files, &tls));
  std::unique_ptr<Server> server;
  REQUIRE_OK(Server::open(rig.host->threads(), {}, &server, std::move(tls)));
  REQUIRE_OK(server->addExport(rig.exportOf(0)));
  uint16_t port = 0;
  REQUIRE_OK(server->listenTcp("localhost", 0, &port));
  const std::string at = std::to_string(port);
  use({"nbds://localhost:" + at + "/vm-1%2Fvda?tls-certificates=" + folder,
       "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=localhost,file.server.port=" + at +
           ",file.export=" + kName + ",file.tls-creds=tls0",
       {"--object", "tls-creds-x509,id=tls0,endpoint=client,dir=" + folder},
       fio});
  CHECK(rig.soon([&] { return server->counts().connected == 0; }));
  const ServerCounts counts = server->counts();
  CHECK(counts.violations + counts.stalled + counts.tlsFailed == 0);
}
#else
void withTls(ServerRig&, const std::function<void(const Place&)>&) { MESSAGE("partly skipped: no TLS was built in"); }
#endif

// Over a unix socket, over TCP and by TLS, on every volume, over loop devices where they can be had.
template <typename Use>
void everywhere(Use use) {
  for (const char* type : {"extent", "log", "stripe"}) {
    CAPTURE(type);
    RigOptions options;
    options.type = type;
    options.medium = geteuid() == 0 ? "loop" : "memory";
    options.devices = type == std::string("stripe") ? 2 : 1;
    ServerRig rig(options);
    SM_NEEDS_RING(rig);
    uint16_t port = 0;
    REQUIRE_OK(rig.server->listenTcp("127.0.0.1", 0, &port));
    const std::string image = "driver=raw,file.driver=nbd,file.export=" + kName + ",file.server.type=";
    use(rig,
        Place{
            "nbd+unix:///vm-1%2Fvda?socket=" + rig.path(), image + "unix,file.server.path=" + rig.path(), {}, {"fio"}});
    use(rig, Place{"nbd://127.0.0.1:" + std::to_string(port) + "/vm-1%2Fvda",
                   image + "inet,file.server.host=127.0.0.1,file.server.port=" + std::to_string(port),
                   {},
                   {"fio"}});
    CHECK(rig.nobodyConnected());
    CHECK(rig.server->counts().violations == 0);
    CHECK(rig.server->counts().stalled == 0);
    withTls(rig, [&](const Place& place) { use(rig, place); });
  }
}

std::string imageOf(ServerRig& rig) {
  const std::string path = rig.folder.file("image", 0);
  std::ofstream(path, std::ios::binary) << pattern(rig.options.diskBytes, 77);
  return path;
}

}  // namespace

TEST_CASE("nbdinfo lists the exports and describes one") {
  SM_NEEDS_CLIENT("nbdinfo", "--version");
  everywhere([](ServerRig& rig, const Place& place) {
    checkRun({"nbdinfo", place.uri}, "export-size: " + std::to_string(rig.options.diskBytes));
    checkRun({"nbdinfo", "--size", place.uri}, std::to_string(rig.options.diskBytes));
    checkRun({"nbdinfo", "--map", place.uri}, "data");
    checkRun({"nbdinfo", "--list", place.uri}, kName);
    for (const char* can : {"flush", "fua", "trim", "zero", "fast-zero", "df", "multi-conn", "cache"}) {
      checkRun({"nbdinfo", "--can", can, place.uri});
    }
  });
}

TEST_CASE("nbdcopy, there and back, by several connections") {
  SM_NEEDS_CLIENT("nbdcopy", "--version");
  everywhere([](ServerRig& rig, const Place& place) {
    const std::string image = imageOf(rig), back = rig.folder.file("back", 0);
    checkRun({"nbdcopy", "--connections=4", "--flush", image, place.uri});
    checkRun({"nbdcopy", "--connections=4", place.uri, back});
    checkRun({"cmp", image, back});
  });
}

TEST_CASE("nbdsh: reads, writes, zeroes, trims, flushes and errors, by libnbd's own hand") {
  SM_NEEDS_CLIENT("/usr/bin/python3", "-m", "nbd", "--version");
  everywhere([](ServerRig& rig, const Place& place) {
    checkRun({"/usr/bin/python3", "-m", "nbd", "-c", R"(
h.add_meta_context("base:allocation")
h.set_uri_allow_local_file(True)
h.connect_uri(")" + place.uri + R"(")
data = bytes(range(256)) * 64
h.pwrite(data, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(len(data), 8192) == data
assert h.pread_structured(len(data), 8192, lambda *a: None, nbd.CMD_FLAG_DF) == data
h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE)
h.trim(4096, 12288, nbd.CMD_FLAG_FUA)
assert h.pread(8192, 8192) == bytes(8192)
h.cache(65536, 0)
h.flush()
seen = []
h.block_status(65536, 0, lambda context, offset, entries, error: seen.append((context, offset, list(entries))))
assert seen == [("base:allocation", 0, [65536, 0])], seen
def errno_of(call):
    try:
        call()
    except nbd.Error as error:
        return error.errno
h.set_strict_mode(0)
assert errno_of(lambda: h.pwrite(data, h.get_size())) == "ENOSPC"
assert errno_of(lambda: h.pread(4096, h.get_size())) == "EINVAL"
assert errno_of(lambda: h.pread(100, 1)) == "EINVAL"
assert errno_of(lambda: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO)) == "ENOTSUP"
assert h.pread(4096, 16384) == data[8192:12288]
h.shutdown()
print("as", "it", "should", "be")
)"},
             "as it should be");
  });
}

TEST_CASE("qemu-io: aligned, unaligned, zeroes, discards, large") {
  SM_NEEDS_CLIENT("qemu-io", "--version");
  everywhere([](ServerRig& rig, const Place& place) {
    std::vector<std::string> words = place.qemu({"qemu-io"});
    words.push_back(place.image);
    for (const char* command : {"write -P 0xa5 0 64k",
                                "read -P 0xa5 0 64k",
                                "write -P 1 100 1000",
                                "read -P 1 100 1000",
                                "read -P 0xa5 1100 1000",
                                "write -z 4k 8k",
                                "read -P 0 4k 8k",
                                "write -z -u 16k 8k",
                                "read -P 0 16k 8k",
                                "write -f -P 7 1M 3M",
                                "read -P 7 1M 3M",
                                "discard 0 64k",
                                "read -P 0 0 64k",
                                "flush",
                                "write -P 9 8M 32M",
                                "read -P 9 8M 32M",
                                "aio_write -P 3 0 1M",
                                "aio_write -P 4 1M 1M",
                                "aio_flush",
                                "read -P 3 0 1M",
                                "read -P 4 1M 1M"}) {
      words.insert(words.end(), {"-c", command});
    }
    const Outcome outcome = run(words);
    INFO(outcome.output);
    CHECK(outcome.status == 0);
    CHECK(outcome.output.find("verification failed") == std::string::npos);
    CHECK(outcome.output.find("error") == std::string::npos);
  });
}

TEST_CASE("qemu-img: convert, compare, map, check") {
  SM_NEEDS_CLIENT("qemu-img", "--version");
  everywhere([](ServerRig& rig, const Place& place) {
    const std::string image = imageOf(rig), back = rig.folder.file("back.qcow2", 0);
    const auto checkImg = [&](std::vector<std::string> words, const std::vector<std::string>& more,
                              const std::string& says = {}) {
      words = place.qemu(std::move(words));
      words.insert(words.end(), more.begin(), more.end());
      checkRun(words, says);
    };
    const std::string ours = "driver=raw,file.filename=" + image, copy = "driver=qcow2,file.filename=" + back;
    checkImg({"qemu-img", "convert", "-n", "--target-image-opts"}, {ours, place.image});
    checkImg({"qemu-img", "compare"}, {ours, place.image}, "identical");
    checkImg({"qemu-img", "map", "--output=json"}, {place.image}, "\"data\": true");
    checkImg({"qemu-img", "convert", "-O", "qcow2"}, {place.image, back});
    checkRun({"qemu-img", "check", back}, "No errors");
    checkImg({"qemu-img", "compare"}, {copy, place.image}, "identical");
  });
}

TEST_CASE("fio verifies what it wrote at depth 64, over several connections") {
  SM_NEEDS_CLIENT("fio", "--enghelp=nbd");
  everywhere([](ServerRig&, const Place& place) {
    std::vector<std::string> words = place.fio;
    const std::string uri = place.uri.substr(0, place.uri.find("?tls-"));
    words.insert(words.end(), {"--name=verify", "--ioengine=nbd", "--uri=" + uri, "--rw=randwrite", "--bsrange=4k-64k",
                               "--blockalign=4k", "--size=8m", "--offset_increment=8m", "--numjobs=4", "--iodepth=64",
                               "--verify=crc32c", "--verify_state_save=0", "--verify_fatal=1", "--minimal"});
    checkRun(words);
  });
}
