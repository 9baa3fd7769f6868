// A lean NBD client, to find where a server's own bound lies: several connections on one thread, requests pipelined,
// one send for all that became free by one receive. Prints one line of JSON: operations, ns, and the CPU time of its
// own.
//
//   bench_nbd_client --unix PATH [--export NAME] [--pattern randread|randwrite|write] [--block BYTES]
//                    [--connections N] [--depth N] [--seconds S]
//
// `write` writes the export once from its beginning to its end.
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "bench/nbd_stream.h"

using bench::NbdStream;

namespace {

struct Arguments {
  std::string path, name, pattern = "randread";
  uint32_t connections = 1;
  double seconds = 1;
  NbdStream::Load load;
};

Arguments parse(int argc, char** argv) {
  Arguments out;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    const auto number = static_cast<uint32_t>(std::strtoul(value.c_str(), nullptr, 0));
    bool good = i + 1 < argc;
    if (name == "--unix") {
      out.path = value;
    } else if (name == "--export") {
      out.name = value;
    } else if (name == "--pattern") {
      out.pattern = value;
    } else if (name == "--seconds") {
      out.seconds = std::atof(value.c_str());
    } else if (name == "--block") {
      out.load.block = number;
      good &= number > 0 && number <= 1 << 20;
    } else if (name == "--connections") {
      out.connections = number;
      good &= number > 0 && number <= 1024;
    } else if (name == "--depth") {
      out.load.depth = number;
      good &= number > 0 && number <= 1024;
    } else {
      good = false;
    }
    if (!good) {
      std::fprintf(stderr, "not understood: %s; see the beginning of nbd_client.cc\n", argv[i]);
      std::exit(2);
    }
  }
  out.load.sequential = out.pattern == "write";
  out.load.writes = out.load.sequential || out.pattern == "randwrite";
  if (out.path.empty() || (!out.load.writes && out.pattern != "randread")) {
    std::fprintf(stderr, "no socket, or no such pattern; see the beginning of nbd_client.cc\n");
    std::exit(2);
  }
  if (out.load.sequential) out.connections = 1;
  return out;
}

uint64_t now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  const int poll = epoll_create1(EPOLL_CLOEXEC);
  std::vector<std::unique_ptr<NbdStream>> streams;
  std::vector<uint32_t> wanted;
  const auto watch = [&](size_t index, int operation, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = index;
    epoll_ctl(poll, operation, streams[index]->fd(), &event);
    wanted[index] = events;
  };
  for (uint32_t i = 0; i < arguments.connections; ++i) {
    streams.push_back(std::make_unique<NbdStream>(arguments.path, arguments.name, arguments.load, i + 1));
    wanted.push_back(0);
    watch(i, EPOLL_CTL_ADD, EPOLLIN);
  }
  uint64_t left = arguments.load.sequential ? streams[0]->bytes() / arguments.load.block : UINT64_MAX;
  uint64_t operations = 0, inFlight = 0;
  const uint64_t began = now(), cpuBegan = now(CLOCK_PROCESS_CPUTIME_ID);
  const uint64_t until =
      arguments.load.sequential ? UINT64_MAX : began + static_cast<uint64_t>(arguments.seconds * 1e9);
  uint64_t time = began;
  const auto go = [&](size_t index) {
    NbdStream& stream = *streams[index];
    const uint32_t before = stream.inFlight();
    stream.fill(time < until ? left : 0);
    left -= stream.inFlight() - before;
    inFlight += stream.inFlight() - before;
    stream.send();
    const uint32_t events = EPOLLIN | (stream.blocked() ? EPOLLOUT : 0u);
    if (wanted[index] != events) watch(index, EPOLL_CTL_MOD, events);
  };
  for (size_t i = 0; i < streams.size(); ++i) go(i);
  uint64_t ended = began;
  while (inFlight > 0) {
    epoll_event events[64];
    const int count = epoll_wait(poll, events, 64, -1);
    time = now();
    for (int i = 0; i < count; ++i) {
      const size_t index = events[i].data.u64;
      const uint64_t done = events[i].events & ~uint32_t{EPOLLOUT} ? streams[index]->receive() : 0;
      inFlight -= done;
      if (time < until) {
        operations += done;
        ended = time;
      }
      go(index);
    }
  }
  std::printf("{\"operations\":%llu,\"ns\":%llu,\"cpu\":%llu}\n", static_cast<unsigned long long>(operations),
              static_cast<unsigned long long>(ended - began),
              static_cast<unsigned long long>(now(CLOCK_PROCESS_CPUTIME_ID) - cpuBegan));
  close(poll);
}
