// A model of the kernel's own stack, for one seed: two disks, which are files of a file system on a loop device, which
// is a file of a file system on a disk. Both file systems split, merge, allocate, share, copy on write, move and
// discard; others write, read and discard beside the guests. It tells what a block layer tells, and knows what stands
// where.
//
// The unit of space is a block; a block holds a token; token 0 is zeroes. A token is stored on the lowest device alone:
// the upper one is what the lower file system finds for it.
#pragma once

#include <stratamap/request.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <random>
#include <vector>

#include "correlate/observed.h"

namespace sm::test {

constexpr uint64_t kBlock = 4096, kSector = 512;
constexpr uint64_t kHole = UINT64_MAX;
constexpr int kLevels = 2;

// What the model may do; a test switches off what it is not about.
struct Hazards {
  bool retries = true;   // a request is begun again from its beginning, when a part of it would have had to wait
  bool shares = true;    // the files have blocks in common, until one of them is written to or moved
  bool moves = true;     // file systems move blocks
  bool discards = true;  // and tell devices what is free
  bool others = true;    // other files, and who writes to the guests' files or reads the devices
  bool merges = true;
};

struct Dio;

// A part of a request that is one range of a device.
struct Bio {
  uint8_t op;
  uint64_t at, blocks;
  uint16_t priority;
  Dio* dio;
  uint64_t from;  // its first block in the request
};

// A request to a file, or to a device past its file system.
struct Dio {
  uint8_t op = SM_OP_READ;
  int level = 0;
  size_t file = 0;
  uint64_t first = 0;
  uint16_t priority = 0;
  std::vector<uint64_t> tokens;
  std::function<void()> finished;
  // Where each block goes, fixed when it begins; where that is new, the file has it at the end.
  std::vector<uint64_t> places;
  bool begun = false, raw = false, exclusive = false, mayRetry = false;
  uint64_t cursor = 0, outstanding = 0;
};

class KernelModel {
 public:
  KernelModel(uint64_t seed, const Hazards& may) : may_(may), random_(seed) {
    levels_[0].blocks = 80;
    levels_[1].blocks = 128;
    for (int i = 0; i < kLevels; ++i) {
      levels_[i].used.assign(levels_[i].blocks, 0);
      // Two images and a file of others; one image and a file of others.
      for (int file = 0; file < (i == 0 ? 3 : 2); ++file) {
        const uint64_t size = file == (i == 0 ? 2 : 1) ? 8 : i == 0 ? kImage : levels_[0].blocks;
        levels_[i].files.push_back({std::vector<uint64_t>(size, kHole), std::vector<int>(size, 0)});
      }
    }
    tokens_.assign(levels_[1].blocks, 0);
    // Disk 1 was made from disk 0.
    File &golden = levels_[0].files[0], &copy = levels_[0].files[1];
    for (uint64_t i = 0; i < kImage && may_.shares; ++i) {
      if (chance(50)) continue;
      const uint64_t above = allocate(0), below = allocate(1);
      golden.places[i] = copy.places[i] = above;
      ++levels_[0].used[above];
      levels_[1].files[0].places[above] = below;
      tokens_[below] = newToken();
    }
  }
  static constexpr uint64_t kImage = 24;        // blocks of a disk
  static constexpr uint64_t kTick = 4'000'000;  // ns that a step takes

  uint64_t pick(uint64_t below) { return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_); }
  bool chance(unsigned percent) { return pick(100) < percent; }
  uint64_t newToken() { return ++lastToken_; }
  uint64_t time() const { return time_; }
  // What was told and not yet taken.
  std::vector<std::pair<int, BlockIo>> told;
  uint16_t knownPriority = 0;
  DeviceKey devices[kLevels] = {};
  sm_expected_word words[SM_EXPECTED_SLOTS] = {};

  // What a device holds.
  uint64_t at(int level, uint64_t block) const {
    if (level == kLevels - 1) return tokens_[block];
    const uint64_t place = levels_[level + 1].files[0].places[block];
    return place == kHole ? 0 : at(level + 1, place);
  }

  void begin(std::unique_ptr<Dio> dio) {
    dio->mayRetry = may_.retries && chance(20);
    dios_.push_back(std::move(dio));
  }

  // Nothing that modifies the device and was told before this time is in flight.
  uint64_t quietBefore(int level) const {
    uint64_t since = time_ + 1;
    for (const Request& request : levels_[level].queued) since = earlier(request, since);
    for (const Request& request : levels_[level].sent) since = earlier(request, since);
    return since;
  }
  bool idle() const { return dios_.empty(); }

  // One thing happens, of those that can.
  void step();

  // Somebody who is no guest does something.
  void disturb();

  // Frees what a file has there, if nobody is at it.
  bool punch(int level, size_t file, uint64_t first, uint64_t blocks);

 private:
  static constexpr size_t kRaw = SIZE_MAX;
  struct File {
    std::vector<uint64_t> places;
    std::vector<int> busy;  // by block: requests at it; -1: one that changes where it lies
  };
  struct Request {
    std::vector<Bio> bios;
    uint64_t since, begin, end;
  };
  struct Level {
    uint64_t blocks = 0;
    std::vector<int> used;  // by place: how many files have it, or are about to
    std::vector<File> files;
    std::list<Request> queued, sent;
  };

  static uint64_t earlier(const Request& request, uint64_t since) {
    return sm_op_modifies(request.bios[0].op) ? std::min(since, request.since) : since;
  }

  void tell(BlockIo::Kind kind, const Bio& bio, int level, uint64_t begin, uint64_t end);

  bool free(int level, size_t file, uint64_t first, uint64_t blocks) const {
    const File& of = levels_[level].files[file];
    for (uint64_t i = first; i < first + blocks; ++i)
      if (of.busy[i] != 0) return false;
    return true;
  }

  uint64_t allocate(int level);

  void drop(int level, uint64_t* place) {
    if (*place == kHole) return;
    --levels_[level].used[*place];
    *place = kHole;
  }

  void stranger(uint8_t op, int level, size_t file, uint64_t first, uint64_t blocks,
                std::function<void()> then = nullptr);

  // Copies blocks of a file elsewhere, by a read, or what a cache holds, and a write. Nobody else is at them meanwhile.
  void move(int level, size_t file, uint64_t first, uint64_t blocks);
  void discardFree(int level);

  // Says where each block is to go. False: somebody is in the way, or there is no room.
  bool plan(Dio* dio);

  // The next piece of some request, or its end.
  void progress();
  void startNext(Dio* dio);
  void finish(std::list<std::unique_ptr<Dio>>::iterator which);

  // A queued request goes to the driver: the lowest device itself, or the loop driver.
  void send(int level);

  // The loop driver takes its requests in the order of their issue, one after the other.
  void serveLoop();

  // The lowest device does one of its requests.
  void perform();
  void landed(int level, Request* request);

 private:
  const Hazards may_;
  std::mt19937_64 random_;
  Level levels_[kLevels];
  std::vector<uint64_t> tokens_;  // of the lowest device
  std::list<std::unique_ptr<Dio>> dios_;
  std::deque<Request*> loop_;
  uint64_t time_ = 1'000'000'000'000, lastToken_ = 0;
};

}  // namespace sm::test
