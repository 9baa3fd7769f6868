// The clients that people use, against the server: each where it is installed.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <fstream>
#include <iterator>

#include "rig.h"

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

// Over a unix socket and over TCP, on every volume, over loop devices where they can be had.
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
    use(rig, "nbd+unix:///vm-1%2Fvda?socket=" + rig.path());
    use(rig, "nbd://127.0.0.1:" + std::to_string(port) + "/vm-1%2Fvda");
    CHECK(rig.nobodyConnected());
    CHECK(rig.server->counts().violations == 0);
    CHECK(rig.server->counts().stalled == 0);
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
  everywhere([](ServerRig& rig, const std::string& uri) {
    checkRun({"nbdinfo", uri}, "export-size: " + std::to_string(rig.options.diskBytes));
    checkRun({"nbdinfo", "--size", uri}, std::to_string(rig.options.diskBytes));
    checkRun({"nbdinfo", "--map", uri}, "data");
    checkRun({"nbdinfo", "--list", uri}, kName);
    for (const char* can : {"flush", "fua", "trim", "zero", "fast-zero", "df", "multi-conn", "cache"}) {
      checkRun({"nbdinfo", "--can", can, uri});
    }
  });
}

TEST_CASE("nbdcopy, there and back, by several connections") {
  SM_NEEDS_CLIENT("nbdcopy", "--version");
  everywhere([](ServerRig& rig, const std::string& uri) {
    const std::string image = imageOf(rig), back = rig.folder.file("back", 0);
    checkRun({"nbdcopy", "--connections=4", "--flush", image, uri});
    checkRun({"nbdcopy", "--connections=4", uri, back});
    checkRun({"cmp", image, back});
  });
}

TEST_CASE("nbdsh: reads, writes, zeroes, trims, flushes and errors, by libnbd's own hand") {
  SM_NEEDS_CLIENT("/usr/bin/python3", "-m", "nbd", "--version");
  everywhere([](ServerRig& rig, const std::string& uri) {
    checkRun({"/usr/bin/python3", "-m", "nbd", "-c", R"(
h.add_meta_context("base:allocation")
h.connect_uri(")" + uri + R"(")
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
  everywhere([](ServerRig& rig, const std::string& uri) {
    std::vector<std::string> words{"qemu-io", "-f", "raw", uri};
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
  everywhere([](ServerRig& rig, const std::string& uri) {
    const std::string image = imageOf(rig), back = rig.folder.file("back.qcow2", 0);
    checkRun({"qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri});
    checkRun({"qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri}, "identical");
    checkRun({"qemu-img", "map", "--output=json", "-f", "raw", uri}, "\"data\": true");
    checkRun({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, back});
    checkRun({"qemu-img", "check", back}, "No errors");
    checkRun({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", back, uri}, "identical");
  });
}

TEST_CASE("fio verifies what it wrote at depth 64, over several connections") {
  SM_NEEDS_CLIENT("fio", "--enghelp=nbd");
  everywhere([](ServerRig&, const std::string& uri) {
    checkRun({"fio", "--name=verify", "--ioengine=nbd", "--uri=" + uri, "--rw=randwrite", "--bsrange=4k-64k",
              "--blockalign=4k", "--size=8m", "--offset_increment=8m", "--numjobs=4", "--iodepth=64", "--verify=crc32c",
              "--verify_state_save=0", "--verify_fatal=1", "--minimal"});
  });
}
