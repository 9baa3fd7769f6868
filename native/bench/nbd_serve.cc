// Serves disks of a volume by NBD until SIGTERM or SIGINT, then says what it cost; for clients and measurements.
//
//   bench_nbd_serve --device FILE… [--volume TYPE] [--driver NAME] [--size BYTES] [--disks N] [--threads N]
//                   [--unix PATH] [--tcp HOST:PORT] [--buffered] [--read-only] [--probe]
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "host/host.h"
#include "intercept/probe.h"
#include "map/address_map.h"
#include "nbd/disk_export.h"
#include "nbd/server.h"

namespace {

using namespace sm;

void check(const Failure& failure) {
  if (!failure) return;
  std::fprintf(stderr, "%s\n", failure.message.c_str());
  std::exit(1);
}

void checkProbe(int error) {
  if (error == 0) return;
  std::fprintf(stderr, "the probe: error %d\n", error);
  std::exit(1);
}

double seconds(const timeval& time) { return static_cast<double>(time.tv_sec) + time.tv_usec / 1e6; }

struct Arguments {
  std::vector<std::string> devices;
  std::string volume = "extent", driver = "uring", unixPath, tcp;
  uint64_t size = 0, disks = 1;
  uint32_t threads = 1;
  bool direct = true, readOnly = false, probe = false;
};

Arguments parse(int argc, char** argv) {
  Arguments out;
  const auto wrong = [](const char* argument) {
    std::fprintf(stderr, "not understood: %s; see the beginning of nbd_serve.cc\n", argument);
    std::exit(2);
  };
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--buffered") {
      out.direct = false;
      continue;
    }
    if (name == "--read-only") {
      out.readOnly = true;
      continue;
    }
    if (name == "--probe") {
      out.probe = true;
      continue;
    }
    if (i + 1 == argc) wrong(argv[i]);
    const std::string value = argv[++i];
    if (name == "--device") {
      out.devices.push_back(value);
    } else if (name == "--volume") {
      out.volume = value;
    } else if (name == "--driver") {
      out.driver = value;
    } else if (name == "--size") {
      out.size = std::strtoull(value.c_str(), nullptr, 0);
    } else if (name == "--disks") {
      out.disks = std::strtoull(value.c_str(), nullptr, 0);
    } else if (name == "--threads") {
      out.threads = std::strtoul(value.c_str(), nullptr, 0);
    } else if (name == "--unix") {
      out.unixPath = value;
    } else if (name == "--tcp") {
      out.tcp = value;
    } else {
      wrong(argv[i - 1]);
    }
  }
  if (out.devices.empty() || out.disks == 0) wrong("no device");
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, nullptr);

  std::unique_ptr<Host> host;
  HostOptions hostOptions;
  hostOptions.threads = arguments.threads;
  check(Host::open(hostOptions, &host));
  std::vector<sm_device*> devices;
  uint64_t bytes = 0;
  for (const std::string& path : arguments.devices) {
    DeviceOptions options;
    options.name = "d" + std::to_string(devices.size());
    options.path = path;
    options.driver = arguments.driver;
    options.direct = arguments.direct;
    options.bytes = arguments.driver == "null" ? 1 << 30 : 0;
    devices.emplace_back();
    check(host->openDevice(options, &devices.back()));
    bytes += devices.back()->bytes;
  }
  check(host->formatVolume(arguments.volume, devices, {}, true));
  Volume* volume = nullptr;
  check(host->openVolume("v0", arguments.volume, devices, {}, &volume));

  std::unique_ptr<Probe> probe;
  std::string why;
  if (arguments.probe && Probe::create(host->stack(), std::make_shared<AddressMap>(), {}, &probe, &why) != 0) {
    std::fprintf(stderr, "%s\n", why.c_str());
    return 1;
  }
  if (probe) {
    for (sm_device* device : devices) checkProbe(probe->addDevice(device));
  }

  std::unique_ptr<nbd::Server> server;
  check(nbd::Server::open(host->threads(), {}, &server));
  const uint64_t size = arguments.size ? arguments.size : bytes * 3 / 4 / arguments.disks / 4096 * 4096;
  for (uint64_t i = 0; i < arguments.disks; ++i) {
    VirtualDisk* disk = nullptr;
    check(volume->createDisk("vm-" + std::to_string(i + 1), "vda", size, &disk));
    if (probe) checkProbe(probe->addDisk(disk->contract()));
    nbd::DiskExportOptions options;
    options.readOnly = arguments.readOnly;
    check(server->addExport(std::make_unique<nbd::DiskExport>(*disk, options)));
  }
  if (probe) probe->begin();
  if (!arguments.unixPath.empty()) check(server->listenUnix(arguments.unixPath));
  if (const size_t colon = arguments.tcp.rfind(':'); colon != std::string::npos) {
    uint16_t bound = 0;
    check(server->listenTcp(arguments.tcp.substr(0, colon), std::atoi(arguments.tcp.c_str() + colon + 1), &bound));
    std::printf("port %u\n", bound);
  }
  for (const std::string& notice : host->notices()) std::printf("%s\n", notice.c_str());
  std::puts("ready");
  std::fflush(stdout);

  int signal = 0;
  sigwait(&ends, &signal);
  for (const nbd::ExportCounts& each : server->exports()) {
    std::printf("%s: %llu reads, %llu writes, %llu errors\n", each.name.c_str(),
                static_cast<unsigned long long>(each.counts[nbd::Count::kReads]),
                static_cast<unsigned long long>(each.counts[nbd::Count::kWrites]),
                static_cast<unsigned long long>(each.counts[nbd::Count::kErrors]));
  }
  server->close(5'000'000'000);
  server.reset();
  if (probe) {
    std::printf("probe: %llu recorded, %llu not\n", static_cast<unsigned long long>(probe->counters().recorded),
                static_cast<unsigned long long>(probe->counters().unrecorded));
    checkProbe(probe->detach(1'000'000'000));
    probe.reset();
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("cpu %.3f s user, %.3f s system; %ld voluntary switches\n", seconds(usage.ru_utime),
              seconds(usage.ru_stime), usage.ru_nvcsw);
  check(host->close());
}
