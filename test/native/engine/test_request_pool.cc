#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <vector>

#include "engine/request_pool.h"

using namespace sm;

namespace {

bool isZero(const void* data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    if (static_cast<const uint8_t*>(data)[i] != 0) return false;
  }
  return true;
}

std::string joined(const sm_request* request) {
  std::string text;
  for (uint32_t i = 0; i < request->iov_count; ++i) {
    text.append(static_cast<char*>(request->iov[i].iov_base), request->iov[i].iov_len);
  }
  return text;
}

}  // namespace

TEST_CASE("a request is clean, whoever had it before") {
  HostClock clock;
  RequestPool pool(1, 0, clock);
  sm_request* request = pool.allocate();
  REQUIRE(request);
  const uint64_t first = request->serial;
  std::memset(request, 0xff, sizeof *request);
  std::memset(reinterpret_cast<char*>(request) + sizeof *request, 0xff, SM_EXTENSION);
  pool.release(request);
  request = pool.allocate();
  REQUIRE(request);
  CHECK(request->serial != 0);
  CHECK(request->serial != first);
  CHECK(request->frame_count == 0);
  CHECK(request->extension == request + 1);
  CHECK(isZero(request->extension, SM_EXTENSION));
  sm_request copy = *request;
  copy.serial = 0;
  CHECK(isZero(&copy, offsetof(sm_request, extension)));
}

TEST_CASE("the pool ends, and what is given back can be had again") {
  HostClock clock;
  RequestPool pool(10, 0, clock);
  std::set<sm_request*> taken;
  while (sm_request* request = pool.allocate()) taken.insert(request);
  CHECK(taken.size() == 10);
  CHECK(pool.clone(*taken.begin(), 0, 0) == nullptr);
  pool.release(*taken.begin());
  CHECK(pool.returns() == 1);
  CHECK(pool.allocate() == *taken.begin());
}

TEST_CASE("serials are unique over the threads of a host, and never 0") {
  HostClock clock;
  clock.threads = 3;
  std::set<uint64_t> seen;
  for (uint32_t thread = 0; thread < 3; ++thread) {
    RequestPool pool(4, thread, clock);
    for (int i = 0; i < 1000; ++i) {
      sm_request* request = pool.allocate();
      CHECK(request->serial != 0);
      CHECK(seen.insert(request->serial).second);
      pool.release(request);
    }
  }
}

TEST_CASE("a clone carries what the contract names, and nothing else") {
  HostClock clock;
  RequestPool pool(4, 0, clock);
  sm_request* parent = pool.allocate();
  char text[] = "abcdefghijklmnopqrstuvwxyz";
  const iovec iov[] = {{text, 5}, {text + 5, 0}, {text + 5, 10}, {text + 15, 11}};
  parent->op = SM_OP_WRITE;
  parent->flags = SM_FLAG_FUA;
  parent->ioprio = 0x4007;
  parent->offset = 4096;
  parent->length = 26;
  parent->iov = iov;
  parent->iov_count = 4;
  parent->status = -5;
  parent->disk = reinterpret_cast<sm_disk*>(8);
  parent->private_data = text;
  for (int i = 0; i < 4; ++i) parent->spare[i] = 100 + i;
  std::memset(parent->extension, 0x5a, SM_EXTENSION);
  sm_request_push(parent, nullptr, nullptr, 0);

  struct Slice {
    uint64_t from, length;
    uint32_t segments;
  };
  for (const Slice& slice : {Slice{0, 26, 3}, {3, 4, 2}, {5, 10, 1}, {4, 12, 3}, {20, 6, 1}, {26, 0, 0}}) {
    CAPTURE(slice.from);
    sm_request* child = pool.clone(parent, slice.from, slice.length);
    REQUIRE(child);
    CHECK(child->op == SM_OP_WRITE);
    CHECK(child->flags == SM_FLAG_FUA);
    CHECK(child->ioprio == 0x4007);
    CHECK(child->serial == parent->serial);
    CHECK(child->private_data == text);
    CHECK(std::memcmp(child->spare, parent->spare, sizeof child->spare) == 0);
    CHECK(child->extension == child + 1);
    CHECK(std::memcmp(child->extension, parent->extension, SM_EXTENSION) == 0);
    CHECK(child->offset == 0);
    CHECK(child->length == slice.length);
    CHECK(child->status == 0);
    CHECK(child->disk == nullptr);
    CHECK(child->device == nullptr);
    CHECK(child->frame_count == 0);
    CHECK(child->iov_count == slice.segments);
    CHECK(joined(child) == std::string(text + slice.from, slice.length));
    pool.release(child);
  }

  CHECK(pool.clone(parent, 27, 0) == nullptr);
  CHECK(pool.clone(parent, 20, 7) == nullptr);
  CHECK(pool.clone(parent, 1, UINT64_MAX) == nullptr);

  parent->op = SM_OP_DISCARD;
  parent->iov = nullptr;
  parent->iov_count = 0;
  parent->length = 1 << 30;
  sm_request* child = pool.clone(parent, 4096, 65536);
  REQUIRE(child);
  CHECK(child->iov == nullptr);
  CHECK(child->length == 65536);
}

TEST_CASE("busyBefore counts what is older than the stamp and not yet released") {
  HostClock clock;
  RequestPool pool(8, 0, clock);
  sm_request* old = pool.allocate();
  sm_request* child = pool.clone(old, 0, 0);
  CHECK(pool.busyBefore(clock.epoch) == 0);
  const uint64_t stamp = ++clock.epoch;
  sm_request* young = pool.allocate();
  CHECK(pool.busyBefore(stamp) == 2);
  CHECK(pool.busyBefore(stamp + 1) == 3);
  pool.release(old);
  CHECK(pool.busyBefore(stamp) == 1);
  pool.release(child);
  CHECK(pool.busyBefore(stamp) == 0);
  pool.release(young);
  CHECK(pool.busyBefore(stamp + 1) == 0);
}
