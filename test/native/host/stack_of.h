// A host with devices on real files, for the tests of the whole.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "host/host.h"
#include "support.h"

namespace sm::test {

#define REQUIRE_OK(call)                             \
  do {                                               \
    const ::sm::Failure failure_ = (call);           \
    INFO(failure_.code << ": " << failure_.message); \
    REQUIRE_FALSE(static_cast<bool>(failure_));      \
  } while (false)

// Every failure says which layer, a code and a sentence.
inline void checkFailure(const Failure& failure, int error, const std::string& code, const std::string& layer,
                         const std::string& says) {
  INFO(failure.code << " (" << failure.layer << "): " << failure.message);
  CHECK(failure.error == error);
  CHECK(failure.code == code);
  CHECK(failure.layer == layer);
  CHECK(failure.message.find(says) != std::string::npos);
}

inline std::unique_ptr<Host> openHost(HostOptions options = {}) {
  options.requests = std::min(options.requests, 1024u);
  options.bufferBytes = std::min<uint64_t>(options.bufferBytes, 8 << 20);
  std::unique_ptr<Host> host;
  REQUIRE_OK(Host::open(options, &host));
  return host;
}

inline sm_device* openDevice(Host& host, const std::string& name, const std::string& path,
                             const std::string& driver = "uring") {
  DeviceOptions options;
  options.name = name;
  options.path = path;
  options.driver = driver;
  sm_device* device = nullptr;
  REQUIRE_OK(host.openDevice(options, &device));
  return device;
}

inline sm_device* openNull(Host& host, const std::string& name, uint64_t bytes) {
  DeviceOptions options;
  options.name = name;
  options.driver = "null";
  options.bytes = bytes;
  sm_device* device = nullptr;
  REQUIRE_OK(host.openDevice(options, &device));
  return device;
}

// A kind of volume, how many devices it takes, how many operations at each depth it is tried with, and how it is
// formatted.
struct VolumeKind {
  std::string type;
  size_t devices;
  uint64_t operations = 1500;
  Options options;
};

inline std::vector<VolumeKind> volumeKinds() {
  std::vector<VolumeKind> kinds{{"extent", 1}, {"extent", 2}, {"log", 1}, {"log", 2}, {"stripe", 2}};
  const auto fixture = [&](const char* name, uint64_t operations, const std::vector<Options>& formats) {
    const std::string path = std::string(SM_FIXTURES "/") + name + ".so";
    if (access(path.c_str(), R_OK) != 0) {
      MESSAGE("skipped for volume " << name << ": " << path << " is not built");
      return;
    }
    for (const Options& options : formats) kinds.push_back({path, 2, operations, options});
  };
  fixture("permuting", 1500, {{}});
  for (const char* name : {"copying", "anonymizing", "encrypting", "dedup", "rmw"}) fixture(name, 400, {{}});
  for (const char* name : {"deferring", "mirroring", "journalling"}) fixture(name, 400, {{}, {{"ack", "early"}}});
  return kinds;
}

inline WorkloadOptions verifyingLoad(uint32_t depth, uint64_t operations) {
  WorkloadOptions options;
  options.pattern = "mixed";
  options.readPercent = 40;
  options.discardPercent = 4;
  options.zeroesPercent = 4;
  options.flushPercent = 1;
  options.queueDepth = depth;
  options.operations = operations;
  options.verify = true;
  return options;
}

inline void checkClean(const WorkloadResult& result) {
  CHECK(result.errors == 0);
  CHECK(result.firstError == 0);
  CHECK_MESSAGE(result.mismatches == 0, result.firstMismatch);
  CHECK(result.verifiedBytes > 0);
}

}  // namespace sm::test
