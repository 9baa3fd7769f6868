// I/O threads and a way to do I/O on a device from a test.
#pragma once

#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "devices/device.h"
#include "engine/buffer_pool.h"
#include "engine/io_thread.h"
#include "native/sys/temp.h"

namespace sm::test {

struct TestIo {
  uint8_t op = 0;
  uint64_t offset = 0, length = 0;
  std::vector<iovec> iov;
  uint32_t flags = 0;
  uint16_t ioprio = 0;
  int32_t status = 1;
  int completions = 0;
  bool elsewhere = false;  // completed on another thread than it was submitted on
};

class Rig {
 public:
  explicit Rig(uint32_t threadCount = 1, IoThreadOptions options = {}) {
    clock.threads = threadCount;
    for (uint32_t i = 0; i < threadCount; ++i) {
      options.index = i;
      owned_.push_back(std::make_unique<IoThread>(options, clock));
      threads.push_back(owned_.back().get());
    }
  }

  void on(uint32_t thread, std::function<void()> work) {
    threads[thread]->call([](void* context) { (*static_cast<std::function<void()>*>(context))(); }, &work);
  }

  // Submits all of them at once on one thread, and waits for all.
  void run(sm_device* device, std::vector<TestIo>& ios, uint32_t thread = 0) {
    struct Batch {
      std::mutex mutex;
      std::condition_variable changed;
      size_t left;
      IoThread* thread;
    } batch;
    batch.thread = threads[thread];
    batch.left = ios.size();
    on(thread, [&] {
      for (TestIo& io : ios) {
        sm_request* request = threads[thread]->allocate();
        if (!request) std::abort();
        request->op = io.op;
        request->flags = io.flags;
        request->ioprio = io.ioprio;
        request->offset = io.offset;
        request->length = io.length;
        request->iov = io.iov.empty() ? nullptr : io.iov.data();
        request->iov_count = io.iov.size();
        sm_request_push(
            request,
            [](sm_request* request, void* context, uint64_t io) {
              TestIo* it = reinterpret_cast<TestIo*>(io);
              it->status = request->status;
              ++it->completions;
              Batch* batch = static_cast<Batch*>(context);
              it->elsewhere = IoThread::current() != batch->thread;
              batch->thread->release(request);
              std::lock_guard lock(batch->mutex);
              --batch->left;
              batch->changed.notify_one();
            },
            &batch, reinterpret_cast<uintptr_t>(&io));
        sm_device_submit(device, request);
      }
    });
    std::unique_lock lock(batch.mutex);
    batch.changed.wait(lock, [&] { return batch.left == 0; });
  }

  int32_t run(sm_device* device, TestIo io, uint32_t thread = 0) {
    std::vector<TestIo> one{std::move(io)};
    run(device, one, thread);
    return one[0].completions == 1 && !one[0].elsewhere ? one[0].status : 12345;
  }
  int32_t write(sm_device* device, uint64_t offset, const void* data, uint64_t length, uint32_t flags = 0) {
    return run(device, {.op = SM_OP_WRITE,
                        .offset = offset,
                        .length = length,
                        .iov = {{const_cast<void*>(data), length}},
                        .flags = flags});
  }
  int32_t read(sm_device* device, uint64_t offset, void* data, uint64_t length) {
    return run(device, {.op = SM_OP_READ, .offset = offset, .length = length, .iov = {{data, length}}});
  }
  int32_t ranged(sm_device* device, uint8_t op, uint64_t offset, uint64_t length, uint32_t flags = 0) {
    return run(device, {.op = op, .offset = offset, .length = length, .flags = flags});
  }

  HostClock clock;
  std::vector<IoThread*> threads;

 private:
  std::vector<std::unique_ptr<IoThread>> owned_;
};

// Memory at a chosen distance from 4 KiB alignment.
class Memory {
 public:
  explicit Memory(size_t bytes, size_t skew = 0)
      : block_(static_cast<uint8_t*>(std::aligned_alloc(4096, (bytes + skew + 4095) / 4096 * 4096))), skew_(skew) {}
  ~Memory() { std::free(block_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  uint8_t* data() const { return block_ + skew_; }

 private:
  uint8_t* block_;
  size_t skew_;
};

inline std::string randomBytes(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text(bytes, 0);
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

}  // namespace sm::test
