// Every shipped volume, on the real host, against crashes: a random load on recording devices, and then the media as
// crashes at random instants leave them. Each must open, and hold what was flushed or written with FUA by then; of what
// came after, each block of 512 bytes may show anything that had been submitted.
#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>

#include "devices/journal.h"
#include "devices/replay.h"
#include "native/sanitized.h"
#include "stack_of.h"

using namespace sm;
using namespace sm::test;

namespace {

constexpr uint64_t kBlock = 512, kDiskBytes = 256 << 10, kDisks = 3, kDevices = 2;
constexpr uint64_t kRounds = 20, kImagesPerRound = 50, kOperations = 250;
constexpr uint32_t kDepth = 16;
constexpr uint64_t kNever = UINT64_MAX;  // an instant

using Random = std::mt19937_64;

struct Shape {
  Options options;
  uint64_t deviceBytes = 24 << 20;
};

// Small, so that space is given up and used again all the time. A volume that is not named here gets its defaults.
Shape shapeOf(const std::string& type) {
  static const std::map<std::string, Shape> shapes = {
      {"extent", {{{"extentSize", "8K"}}, 640 << 10}},
      {"log", {{{"segmentSize", "16K"}, {"clean", "50"}}, 900 << 10}},
      {"stripe", {{{"chunkSize", "8K"}}, 900 << 10}},
  };
  const auto found = shapes.find(type);
  return found == shapes.end() ? Shape{} : found->second;
}

// What a block was given, and the instants at which that was submitted and became durable. 0: zeroes.
struct Value {
  uint32_t id = 0;
  uint64_t submitted = 0, durable = kNever;
};

struct Block {
  std::deque<Value> values{{.durable = 0}};  // oldest first; they stay where they are
  bool busy = false;
};

void fill(uint64_t* words, uint64_t disk, uint64_t block, uint32_t id) {
  std::fill_n(words, kBlock / 8, id ? disk << 56 | block << 32 | id : 0);
}

std::string said(uint64_t word) {
  return "value " + std::to_string(word & UINT32_MAX) + " of disk " + std::to_string(word >> 56) + ", block " +
         std::to_string(word >> 32 & 0xffffff);
}

// A load on the disks of a volume, one thread's; requests in flight never overlap, so that each block's values have an
// order.
class Load {
 public:
  Load(std::vector<VirtualDisk*> disks, uint64_t seed) : random_(seed), disks_(std::move(disks)) {
    blocks.assign(disks_.size(), std::vector<Block>(kDiskBytes / kBlock));
    for (uint32_t i = 0; i < kDepth; ++i) free_.push_back(&ios_.emplace_back(*this));
  }

  void run(uint64_t operations) {
    for (uint64_t i = 0; i < operations; ++i) {
      while (free_.empty() || !submit(*free_.back())) finishOne();
    }
    while (free_.size() < kDepth) finishOne();
  }

  std::vector<std::vector<Block>> blocks;  // of each disk
  uint64_t failed = 0;                     // for lack of space

 private:
  struct Io {
    explicit Io(Load& load) : load(load) {}
    DiskIo io;  // first: found from it
    Load& load;
    size_t disk = 0;
    uint64_t completed = 0;          // the instant
    std::vector<size_t> made;        // blocks that it gives a value to
    std::vector<Value*> covered;     // by a flush
    std::vector<uint64_t> memory{};  // its data
  };

  // False: its blocks are not free.
  bool submit(Io& it) {
    it.disk = random_() % disks_.size();
    auto& disk = blocks[it.disk];
    const uint64_t dice = random_() % 100;
    it.io.op = dice < 8 ? SM_OP_FLUSH : dice < 18 ? SM_OP_DISCARD : dice < 26 ? SM_OP_WRITE_ZEROES : SM_OP_WRITE;
    const bool flush = it.io.op == SM_OP_FLUSH, data = it.io.op == SM_OP_WRITE;
    const uint64_t unit = random_() % 2 ? 1 : 16;  // blocks: an extent or chunk
    const uint64_t count = flush ? 0 : (1 + random_() % 4) * unit;
    const uint64_t first = flush ? 0 : random_() % ((disk.size() - count) / unit + 1) * unit;
    for (uint64_t i = 0; i < count; ++i) {
      if (disk[first + i].busy) return false;
    }
    it.io.flags = !flush && it.io.op != SM_OP_DISCARD && random_() % 10 == 0 ? uint32_t{SM_FLAG_FUA} : 0;
    it.io.offset = first * kBlock;
    it.io.length = count * kBlock;
    it.memory.resize(count * kBlock / 8);
    it.io.iov[0] = {it.memory.data(), it.io.length};
    it.io.iovCount = data ? 1 : 0;
    it.io.done = &Load::onDone;
    it.made.clear();
    it.covered.clear();
    if (flush) std::swap(it.covered, acknowledged_[it.disk]);
    const uint32_t id = data ? ++lastId_ : 0;
    const uint64_t now = recordedInstant();
    for (uint64_t i = 0; i < count; ++i) {
      disk[first + i].busy = true;
      disk[first + i].values.push_back({id, now});
      it.made.push_back(first + i);
      fill(it.memory.data() + i * kBlock / 8, it.disk, first + i, id);
    }
    free_.pop_back();
    disks_[it.disk]->submit(&it.io);
    return true;
  }

  static void onDone(DiskIo* io) {
    Io& it = *reinterpret_cast<Io*>(io);
    it.completed = recordedInstant();
    std::lock_guard lock(it.load.mutex_);
    it.load.done_.push_back(&it);
    it.load.changed_.notify_one();
  }

  void finishOne() {
    Io* it;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !done_.empty(); });
      it = done_.front();
      done_.pop_front();
    }
    if (it->io.status != 0) REQUIRE(it->io.status == -ENOSPC);
    const bool works = it->io.status == 0;
    failed += !works;
    for (Value* value : it->covered) {
      if (works) value->durable = it->completed;
    }
    for (const size_t index : it->made) {
      Block& block = blocks[it->disk][index];
      block.busy = false;
      if (!works) continue;  // it may be there or not, from now on
      if (it->io.flags & SM_FLAG_FUA) block.values.back().durable = it->completed;
      else acknowledged_[it->disk].push_back(&block.values.back());
    }
    free_.push_back(it);
  }

  Random random_;
  std::vector<VirtualDisk*> disks_;
  std::deque<Io> ios_;
  std::vector<Io*> free_;
  std::map<size_t, std::vector<Value*>> acknowledged_;  // and not durable, of each disk
  uint32_t lastId_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Io*> done_;
};

// One volume, its devices and files, round after round.
class Crasher {
 public:
  explicit Crasher(const std::string& type) : type_(type), shape_(shapeOf(type)) {}

  void round(uint64_t seed) {
    std::vector<std::string> files, journals;
    for (uint64_t i = 0; i < kDevices; ++i) {
      files.push_back(folder_.file("d" + std::to_string(i), shape_.deviceBytes));
      journals.push_back(files.back() + ".journal");
      images_[i] = folder_.file("crashed" + std::to_string(i), 0);
    }
    std::vector<sm_device*> devices = open(*recording_, files, "recording");
    REQUIRE_OK(recording_->formatVolume(type_, devices, shape_.options, true));
    Volume* volume = nullptr;
    REQUIRE_OK(recording_->openVolume("v", type_, devices, {}, &volume));
    std::vector<VirtualDisk*> disks(kDisks);
    for (uint64_t i = 0; i < kDisks; ++i) {
      REQUIRE_OK(volume->createDisk("vm", std::to_string(i), kDiskBytes, &disks[i]));
    }
    const uint64_t from = recordedInstant();
    Load load(disks, seed);
    load.run(kOperations);
    for (VirtualDisk* disk : disks) REQUIRE_OK(volume->closeDisk(disk));
    REQUIRE_OK(recording_->closeVolume(volume));
    for (sm_device* device : devices) REQUIRE_OK(recording_->closeDevice(device));
    const uint64_t to = recordedInstant();
    refused += load.failed;

    std::vector<std::unique_ptr<Journal>> read(kDevices);
    for (uint64_t i = 0; i < kDevices; ++i) {
      REQUIRE_OK(Journal::open(journals[i], &read[i]));
      REQUIRE(read[i]->facts().tornBytes == 0);
    }
    Random random(seed);
    for (uint64_t image = 0; image < kImagesPerRound; ++image) {
      const uint64_t at = from + random() % (to - from + 1), choice = random();
      CAPTURE(type_);
      CAPTURE(seed);
      CAPTURE(image);
      CAPTURE(choice);
      for (uint64_t i = 0; i < kDevices; ++i) REQUIRE_OK(read[i]->crash(at, choice + i, images_[i]));
      check(load, at);
    }
    for (const std::string& journal : journals) unlink(journal.c_str());
  }

  uint64_t images = 0, wrong = 0, refused = 0;
  uint64_t undecided = 0, lost = 0;  // blocks that a crash could show differently; that showed not the last of them

 private:
  static std::vector<sm_device*> open(Host& host, const std::vector<std::string>& files, const std::string& driver) {
    std::vector<sm_device*> devices;
    for (const std::string& file : files) {
      DeviceOptions options;
      options.name = "d" + std::to_string(devices.size());
      options.path = file;
      options.driver = driver;
      options.direct = false;  // blocks of 512 bytes everywhere
      REQUIRE_OK(host.openDevice(options, &devices.emplace_back()));
    }
    return devices;
  }

  // The volume opens on the images, and its disks hold what they must.
  void check(const Load& load, uint64_t at) {
    ++images;
    std::vector<sm_device*> devices = open(*reopening_, {images_, images_ + kDevices}, "posix");
    Volume* volume = nullptr;
    REQUIRE_OK(reopening_->openVolume("v", type_, devices, {}, &volume));
    for (uint64_t i = 0; i < kDisks; ++i) {
      VirtualDisk* disk = nullptr;
      REQUIRE_OK(volume->openDisk("vm", std::to_string(i), &disk));
      REQUIRE(disk->bytes() == kDiskBytes);
      REQUIRE(diskIo(*disk, SM_OP_READ, 0, data_.data(), kDiskBytes) == 0);
      for (size_t block = 0; block < load.blocks[i].size(); ++block) compare(load.blocks[i][block], i, block, at);
      REQUIRE_OK(volume->closeDisk(disk));
    }
    REQUIRE_OK(reopening_->closeVolume(volume));
    for (sm_device* device : devices) REQUIRE_OK(reopening_->closeDevice(device));
  }

  void compare(const Block& block, uint64_t disk, uint64_t index, uint64_t at) {
    const uint64_t* found = data_.data() + index * kBlock / 8;
    const auto& values = block.values;
    size_t first = values.size() - 1;
    while (values[first].durable > at) --first;
    size_t last = first;
    while (last + 1 < values.size() && values[last + 1].submitted < at) ++last;
    uint64_t expected[kBlock / 8];
    for (size_t i = last + 1; i-- > first;) {
      fill(expected, disk, index, values[i].id);
      if (std::memcmp(found, expected, kBlock) != 0) continue;
      undecided += first != last;
      lost += i != last;
      return;
    }
    if (++wrong > 5) return;
    FAIL_CHECK("disk " << disk << ", block " << index << ", crash at " << at << ": it holds " << said(found[0])
                       << " to " << said(found[kBlock / 8 - 1]) << "; the last durable is value " << values[first].id
                       << ", since " << values[first].durable << ", and " << last - first
                       << " came after it, the last with value " << values[last].id);
  }

  const std::string type_;
  const Shape shape_;
  // In memory where that can be: what a crash leaves is in the journal, and not on the medium.
  TempFolder folder_{memoryFolder()};
  std::string images_[kDevices];
  const std::unique_ptr<Host> recording_ = openHost(), reopening_ = openHost();
  std::vector<uint64_t> data_ = std::vector<uint64_t>(kDiskBytes / 8);
};

}  // namespace

TEST_CASE("volumes survive a thousand crashes on the real host") {
  for (const std::string& type : volumeTypes()) {
    if (type == "nbd" || type == "kernel") continue;  // keep nothing of their own that a crash could take
    Crasher crasher(type);
    const uint64_t rounds = std::getenv("SM_NIGHTLY") ? kRounds * 4 : kSanitized ? kRounds / 4 : kRounds;
    for (uint64_t seed = 1; seed <= rounds && crasher.wrong == 0; ++seed) crasher.round(seed);
    CHECK(crasher.images >= rounds * kImagesPerRound);
    CHECK(crasher.wrong == 0);
    CHECK(crasher.refused < crasher.images);
    // It was a test: there was something that a crash could take away, and some of it was gone.
    CHECK(crasher.undecided > 1000);
    CHECK(crasher.lost > 1000);
    MESSAGE(type << ": " << crasher.images << " images, " << crasher.refused << " requests refused for lack of space, "
                 << crasher.undecided << " blocks undecided, " << crasher.lost << " of them not the newest");
  }
}
