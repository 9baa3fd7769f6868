// A server over a real host, for tests over real sockets.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client.h"
#include "native/host/stack_of.h"
#include "nbd/disk_export.h"
#include "nbd/server.h"

// Ends the test case where a server cannot run.
#define SM_NEEDS_RING(rig)                           \
  do {                                               \
    if (!(rig).server) {                             \
      MESSAGE("skipped: " << (rig).refused.message); \
      return;                                        \
    }                                                \
  } while (false)

namespace sm::test {

constexpr uint64_t kSecond = 1'000'000'000;

struct RigOptions {
  std::string type = "extent";
  std::string driver = "uring";   // "null": no file
  std::string medium = "memory";  // a file there, or on "disk", or a "loop" device over that
  uint32_t threads = 1;
  uint64_t deviceBytes = 96 << 20, diskBytes = 48 << 20;
  size_t devices = 1, disks = 1;
  ServerOptions server;
  HostOptions host;
  bool readOnly = false, fastZeroes = false;
};

struct ServerRig {
  explicit ServerRig(const RigOptions& given = {}, std::unique_ptr<TlsServer> tls = nullptr)
      : options(given), folder(given.medium == "memory" ? memoryFolder() : std::getenv("TMPDIR")) {
    HostOptions hostOptions = options.host;
    hostOptions.threads = options.threads;
    host = openHost(hostOptions);
    std::vector<sm_device*> devices;
    for (size_t i = 0; i < options.devices; ++i) {
      const std::string name = "d" + std::to_string(i);
      devices.push_back(options.driver == "null" ? openNull(*host, name, options.deviceBytes)
                                                 : openDevice(*host, name, mediumOf(name), options.driver));
    }
    REQUIRE_OK(host->formatVolume(options.type, devices, {}, true));
    REQUIRE_OK(host->openVolume("v0", options.type, devices, {}, &volume));
    refused = Server::open(host->threads(), options.server, &server, std::move(tls));
    if (refused) return;
    for (size_t i = 0; i < options.disks; ++i) {
      disks.emplace_back();
      REQUIRE_OK(volume->createDisk("vm-" + std::to_string(i + 1), "vda", options.diskBytes, &disks.back()));
      REQUIRE_OK(server->addExport(exportOf(i)));
    }
    REQUIRE_OK(server->listenUnix(path()));
  }
  ~ServerRig() {
    server.reset();
    host.reset();
  }

  std::unique_ptr<DiskExport> exportOf(size_t index) {
    DiskExportOptions exportOptions;
    exportOptions.readOnly = options.readOnly;
    exportOptions.fastZeroes = options.fastZeroes;
    exportOptions.description = "disk " + std::to_string(index);
    return std::make_unique<DiskExport>(*disks[index], exportOptions);
  }
  std::string path() const { return folder.path + "/s.sock"; }

  std::string mediumOf(const std::string& name) {
    const std::string file = folder.file(name, options.deviceBytes);
    if (options.medium != "loop") return file;
    loops.push_back(std::make_unique<Loop>(file));
    return loops.back()->path;
  }

  // Until it holds, for a while.
  template <typename Condition>
  static bool soon(Condition condition) {
    for (int i = 0; i < 1000; ++i) {
      if (condition()) return true;
      usleep(10'000);
    }
    return false;
  }
  bool nobodyConnected() const {
    return soon([this] { return server->counts().connected == 0; });
  }

  const RigOptions options;
  TempFolder folder;
  std::vector<std::unique_ptr<Loop>> loops;
  std::unique_ptr<Host> host;
  Volume* volume = nullptr;
  std::vector<VirtualDisk*> disks;
  Failure refused;
  std::unique_ptr<Server> server;
};

inline std::string pattern(size_t bytes, uint64_t seed) {
  std::string out(bytes, 0);
  for (size_t i = 0; i < bytes; ++i) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    out[i] = static_cast<char>(seed >> 56);
  }
  return out;
}

}  // namespace sm::test
