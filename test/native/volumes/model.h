// What a volume's disks must hold: for each block of 512 bytes all values that a read may return now, and all that it
// may return after a crash now. Drives a volume with random requests and control calls, and checks every read.
//
// Invariant: no two requests in flight touch the same block of a disk if one of them modifies it, so that each block's
// values have an order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "harness.h"

namespace sm::test {

constexpr uint64_t kBlock = 512;

// One value that a block was given. 0: zeroes; others are spelt out by fillBlock.
struct Value {
  uint32_t id = 0;
  bool done = true;     // its request has completed
  bool maybe = false;   // and failed: it may be there or not
  uint64_t doneAt = 0;  // completions before
};

struct Block {
  std::vector<Value> values{Value{}};  // oldest first; the first is durable
  uint32_t readers = 0;
  bool writer = false;
};

struct ModelDisk {
  uint64_t uid = 0;  // in every block, so that another disk's bytes show
  std::string vm, name;
  uint64_t bytes = 0;
  uint64_t otherBytes = 0;  // while it is being resized: what it may be as well
  bool maybe = false;       // it is being created or deleted: may be there or not
  std::vector<Block> blocks;
  void* handle = nullptr;
  uint32_t inFlight = 0;
};

void fillBlock(uint8_t* memory, uint64_t uid, uint64_t block, uint32_t id);
// The id of the value that a block holds; -1 where it is none of this disk's.
int64_t readBlock(const uint8_t* memory, uint64_t uid, uint64_t block);

struct Mix {  // percent; the rest are reads
  uint32_t write = 45, zeroes = 8, discard = 12, flush = 6;
  uint32_t fua = 10;            // of writes and zeroes
  uint32_t control = 2;         // creates, deletes, resizes and reopens, instead of a request
  uint64_t largest = 64 << 10;  // bytes of one request
  uint32_t depth = 16;
};

// The state of all disks: copied to be compared with an image of the same instant.
struct ModelState {
  std::vector<ModelDisk> disks;
  uint64_t completions = 0;
  uint32_t nextValue = 1;
  uint64_t nextUid = 1;
};

class Model {
 public:
  Model(World& world, const sm_volume_ops* ops, uint32_t blockSize) : world_(world), ops_(ops), blockSize_(blockSize) {}

  ModelState state;
  Mix mix;
  std::vector<std::pair<std::string, std::string>> openOptions;
  uint64_t largestDisk = 256 << 10;
  uint32_t mostDisks = 4;
  uint64_t mayFail = 0;  // a request may fail with this errno; how often it did:
  uint64_t failed = 0;
  void* volume = nullptr;

  void open();
  void close();  // waits for all requests
  void run(uint32_t steps);
  void drain();

  // After a crash: what is there must be allowed by `before`; it is what is known from now on.
  void recover(ModelState before);
  // Reads everything and checks it.
  void verify();

  bool create(uint64_t bytes);
  void remove(size_t index);
  void resize(ModelDisk& disk, uint64_t bytes);
  // Submits a request; its blocks must be free.
  void submit(ModelDisk& disk, uint8_t op, uint32_t flags, uint64_t offset, uint64_t length);
  uint32_t inFlight() const { return inFlight_; }

 private:
  struct Io;
  static void onDone(sm_request* request, void* model, uint64_t io);
  void finish(Io& io, int32_t status);
  void finishWrite(Io& io, int32_t status);
  void finishFlush(Io& io);
  void checkRead(Io& io);
  bool blocksFree(const ModelDisk& disk, uint8_t op, uint64_t first, uint64_t count) const;
  void openDisks();
  void randomControl();
  void randomRequest();
  ModelDisk* find(uint64_t uid);

  World& world_;
  const sm_volume_ops* ops_;
  const uint32_t blockSize_;
  uint32_t inFlight_ = 0;
  uint64_t recovering_ = 0;  // uid of the disk that recover reads
};

// A formatted volume in a new world. Fails the test where that does not work.
void formatVolume(World& world, const sm_volume_ops* ops,
                  const std::vector<std::pair<std::string, std::string>>& options);
std::vector<sm_option> toOptions(const std::vector<std::pair<std::string, std::string>>& options);

}  // namespace sm::test
