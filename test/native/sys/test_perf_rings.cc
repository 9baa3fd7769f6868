// Rings of trace records.
#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "sys/perf_rings.h"
#include "sys/tracefs.h"

using namespace sm;

TEST_CASE("that a ring was too small is told at once, not with the next record") {
  Tracefs tracefs;
  Tracepoint point;
  std::string why;
  if (tracefs.open(&why) != 0 || tracefs.read("raw_syscalls/sys_enter", &point, &why) != 0) {
    MESSAGE("skipped: " << why);
    return;
  }
  PerfRings rings(4096);
  const std::string filter =
      "id == " + std::to_string(SYS_getppid) + " && common_pid == " + std::to_string(syscall(SYS_gettid));
  if (rings.open(&why) != 0 || rings.add({&point.id, 1}, filter, &why) != 0) {
    MESSAGE("skipped: " << why);
    return;
  }
  int told = 0;
  auto drain = [&] { return rings.drain([&](const PerfRings::Record&) { ++told; }); };
  for (int i = 0; i < 10; ++i) syscall(SYS_getppid);
  CHECK(drain() == 0);
  CHECK(told == 10);
  for (int i = 0; i < 5000; ++i) syscall(SYS_getppid);  // on some CPU, too many
  CHECK(drain() > 0);
  CHECK(told < 5010);
}
