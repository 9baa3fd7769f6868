#include "sys/perf_rings.h"

#include <linux/perf_event.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace sm {

namespace {

constexpr size_t kTimeAt = sizeof(perf_event_header), kSizeAt = kTimeAt + sizeof(uint64_t),
                 kRawAt = kSizeAt + sizeof(uint32_t);

size_t pageBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

std::string advice(int error) {
  if (error == EACCES || error == EPERM) {
    return ": it takes CAP_PERFMON (or root); a kernel that is locked down refuses it all the same";
  }
  if (error == EMFILE) return ": allow more open files (ulimit -n)";
  if (error == ENOMEM) return ": allow more locked memory (ulimit -l)";
  return ": this kernel may have no tracepoints";
}

// What all events of a ring have in common.
perf_event_attr common() {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.sample_type = PERF_SAMPLE_TIME | PERF_SAMPLE_RAW;
  attr.disabled = 1;
  attr.use_clockid = 1;
  attr.clockid = CLOCK_MONOTONIC;
  return attr;
}

// Says what was refused, and closes `fd`.
int failed(const char* what, int fd, std::string* why) {
  const int error = errno;
  *why = std::string(what) + ": " + std::strerror(error) + advice(error);
  if (fd >= 0) close(fd);
  return -error;
}

}  // namespace

PerfRings::PerfRings(size_t bytes) : bytes_(bytes), wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

int PerfRings::open(std::string* why) {
  const int cpus = static_cast<int>(sysconf(_SC_NPROCESSORS_CONF));
  for (int cpu = 0; cpu < cpus; ++cpu) {
    // A ring belongs to an event that never happens, so that it is there before and after all others.
    perf_event_attr attr = common();
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_DUMMY;
    attr.watermark = 1;
    attr.wakeup_watermark = static_cast<uint32_t>(bytes_ / 2);
    const int fd = static_cast<int>(syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC));
    if (fd < 0 && errno == ENODEV) continue;  // the CPU is offline
    if (fd < 0) return failed("perf_event_open", -1, why);
    void* memory = mmap(nullptr, pageBytes() + bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return failed("mmap of a ring of trace records", fd, why);
    rings_.push_back({.cpu = cpu, .memory = memory, .data = static_cast<std::byte*>(memory) + pageBytes(), .fd = fd});
  }
  return 0;
}

int PerfRings::add(std::span<const uint64_t> tracepoints, const std::string& filter, std::string* why) {
  for (const Ring& ring : rings_) {
    for (const uint64_t tracepoint : tracepoints) {
      const int fd = openEvent(ring.cpu, tracepoint, true, filter, why);
      if (fd == -ENODEV) break;  // the CPU has gone
      if (fd < 0) return fd;
      if (ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, ring.fd) != 0) return failed("PERF_EVENT_IOC_SET_OUTPUT", fd, why);
      others_.push_back(fd);
      if (ioctl(fd, PERF_EVENT_IOC_ENABLE, 0) != 0) return failed("PERF_EVENT_IOC_ENABLE", -1, why);
    }
  }
  return 0;
}

int PerfRings::addCounter(uint64_t tracepoint, const std::string& filter, std::string* why) {
  counters_.emplace_back();
  for (const Ring& ring : rings_) {
    const int fd = openEvent(ring.cpu, tracepoint, false, filter, why);
    if (fd == -ENODEV) continue;
    if (fd < 0) return fd;
    counters_.back().push_back(fd);
    if (ioctl(fd, PERF_EVENT_IOC_ENABLE, 0) != 0) return failed("PERF_EVENT_IOC_ENABLE", -1, why);
  }
  return static_cast<int>(counters_.size() - 1);
}

uint64_t PerfRings::counted(int counter) const {
  uint64_t sum = 0, count;
  for (const int fd : counters_[static_cast<size_t>(counter)]) {
    if (read(fd, &count, sizeof count) == sizeof count) sum += count;
  }
  return sum;
}

int PerfRings::openEvent(int cpu, uint64_t tracepoint, bool sampled, const std::string& filter, std::string* why) {
  perf_event_attr attr = common();
  attr.type = PERF_TYPE_TRACEPOINT;
  attr.config = tracepoint;
  if (sampled) attr.sample_period = 1;
  const int fd = static_cast<int>(syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC));
  if (fd < 0) return errno == ENODEV ? -ENODEV : failed("perf_event_open", -1, why);
  if (ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter.c_str()) != 0) return failed("PERF_EVENT_IOC_SET_FILTER", fd, why);
  return fd;
}

PerfRings::~PerfRings() {
  for (const int fd : others_) close(fd);
  for (const auto& counter : counters_) {
    for (const int fd : counter) close(fd);
  }
  for (const Ring& ring : rings_) {
    munmap(ring.memory, pageBytes() + bytes_);
    close(ring.fd);
  }
  if (wake_ >= 0) close(wake_);
}

bool PerfRings::pending() const {
  for (const Ring& ring : rings_) {
    const auto* page = static_cast<const perf_event_mmap_page*>(ring.memory);
    if (__atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE) != ring.tail) return true;
  }
  return false;
}

void PerfRings::look() {
  for (Ring& ring : rings_) {
    const auto* page = static_cast<const perf_event_mmap_page*>(ring.memory);
    ring.head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE);
    ring.next = ring.tail;
    advance(&ring);
  }
}

PerfRings::Ring* PerfRings::earliest() {
  Ring* first = nullptr;
  for (Ring& ring : rings_) {
    if (ring.has && (!first || ring.record.time < first->record.time)) first = &ring;
  }
  return first;
}

// Goes on to the next sample, and counts what is told to be lost on the way.
void PerfRings::advance(Ring* ring) {
  ring->has = false;
  while (ring->next < ring->head) {
    const uint64_t at = ring->next & (bytes_ - 1);
    const auto* header = reinterpret_cast<const perf_event_header*>(ring->data + at);  // 8 bytes, never cut
    const uint32_t size = header->size;
    if (size < sizeof *header || size > ring->head - ring->next) {  // no kernel writes that: give up what is left
      ++lost_;
      ring->next = ring->head;
      break;
    }
    const std::byte* bytes = ring->data + at;
    if (at + size > bytes_) {
      ring->wrapped.resize(std::max<size_t>(ring->wrapped.size(), size));
      std::memcpy(ring->wrapped.data(), bytes, bytes_ - at);
      std::memcpy(ring->wrapped.data() + (bytes_ - at), ring->data, size - (bytes_ - at));
      bytes = ring->wrapped.data();
    }
    ring->next += size;
    uint64_t word;
    if (header->type == PERF_RECORD_LOST && size >= kTimeAt + 2 * sizeof word) {
      std::memcpy(&word, bytes + kTimeAt + sizeof word, sizeof word);
      lost_ += word;
    } else if (header->type == PERF_RECORD_SAMPLE && size >= kRawAt) {
      uint32_t length;
      std::memcpy(&length, bytes + kSizeAt, sizeof length);
      if (length > size - kRawAt) continue;
      std::memcpy(&ring->record.time, bytes + kTimeAt, sizeof word);
      ring->record.data = {bytes + kRawAt, length};
      ring->has = true;
      return;
    }
  }
}

// The kernel tells that it lost records with the next one that it has room for, which may never come: a ring that was
// nearly full is taken for one that lost some.
void PerfRings::release() {
  for (Ring& ring : rings_) {
    auto* page = static_cast<perf_event_mmap_page*>(ring.memory);
    const uint64_t used = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE) - ring.tail;
    if (used > bytes_ - bytes_ / 16) ++lost_;
    ring.tail = ring.head;
    __atomic_store_n(&page->data_tail, ring.tail, __ATOMIC_RELEASE);
  }
}

void PerfRings::wait(int timeout) {
  std::vector<pollfd> files;
  for (const Ring& ring : rings_) files.push_back({ring.fd, POLLIN, 0});
  files.push_back({wake_, POLLIN, 0});
  if (poll(files.data(), files.size(), timeout) <= 0 || !(files.back().revents & POLLIN)) return;
  uint64_t count;
  [[maybe_unused]] const ssize_t got = ::read(wake_, &count, sizeof count);
}

void PerfRings::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = write(wake_, &one, sizeof one);
}

}  // namespace sm
