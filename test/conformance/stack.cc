#include "stack.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "intercept/deadline.h"

namespace conformance {

using namespace sm;

namespace {
constexpr uint64_t kTimeout = 60'000'000'000;  // ns
constexpr std::chrono::milliseconds kPause(2);

Tally sumOf(const Counters& counters) {
  Tally sum;
  for (const OpCounters& each : counters.counters()) {
    sum.operations += each.operations;
    sum.bytes += each.bytes;
  }
  return sum;
}

}  // namespace

// Tells the truth of every request of a disk.
struct Stack::Witness {
  Stack* stack;
  uint32_t disk;

  static int submit(void* self, sm_request* request) {
    auto* witness = static_cast<Witness*>(self);
    if (request->op != SM_OP_FLUSH) witness->stack->content_.submitted(request, witness->disk);
    return SM_FILTER_NEXT;
  }
  static void complete(void* self, sm_request* request) {
    auto* witness = static_cast<Witness*>(self);
    if (request->op == SM_OP_FLUSH) return;
    const std::string wrong = witness->stack->content_.completed(request);
    if (!wrong.empty()) witness->stack->complain(wrong);
  }
  static const sm_filter_ops* ops() {
    static const sm_filter_ops kOps = {SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "witness", submit, complete};
    return &kOps;
  }
};

Stack::Stack(const Cell& cell, Outcome* outcome)
    : cell_(cell),
      outcome_(outcome),
      folder_(cell.volume.devices ? test::memoryFolder() : std::getenv("TMPDIR")),
      content_(std::vector<uint64_t>(kDisks, kDiskBytes / oracle::kBlock)) {
  openAll(cell);
}

void Stack::complain(const std::string& what) {
  if (outcome_->complaints.size() < 8) outcome_->complaints.push_back(what);
}

bool Stack::failed(const Failure& failure, const char* what) {
  if (!failure) return false;
  complain(std::string(what) + ": " + failure.message);
  return true;
}

bool Stack::openDevice(const Cell& cell, size_t index) {
  DeviceOptions options;
  options.name = "d" + std::to_string(index);
  options.path = folder_.file(options.name, kDeviceBytes);
  options.driver = cell.medium == Medium::kLoop ? "uring" : nameOf(cell.medium);
  options.direct = cell.medium == Medium::kPosix || cell.medium == Medium::kLoop;  // else blocks of 512 bytes
  if (cell.medium == Medium::kLoop) {
    LoopDevice loop;
    std::string why;
    if (loopAttach({.file = options.path}, &loop, &why) != 0) {
      complain(why);
      return false;
    }
    loops_.push_back(loop);
    options.path = loop.path;
  }
  sm_device* device = nullptr;
  return !failed(host_->openDevice(options, &device), "openDevice") && watch(device, options.path);
}

bool Stack::watch(sm_device* device, const std::string& path) {
  blockSize_ = std::max<uint64_t>(blockSize_, device->block_size);
  int outside = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (outside < 0) outside = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (outside < 0) complain(path + " cannot be read");
  devices_.push_back(device);
  files_.push_back(outside);
  counters_.push_back(std::make_unique<Counters>(host_->stack()));
  if (counters_.back()->addDevice(device) == 0) return outside >= 0;
  complain("the counters have no room");
  return false;
}

// On the disk, or on a file system of its own on a loop device.
std::string Stack::makeDirectory(const Cell& cell) {
  if (cell.medium != Medium::kLoop) return folder_.path;
  mounted_ = std::make_unique<test::Mounted>(kDisks * kDeviceBytes);
  if (mounted_->path.empty()) complain(mounted_->why);
  return mounted_->path;
}

void Stack::openAll(const Cell& cell) {
  const bool owns = cell.volume.devices == 0;
  const bool uring = !owns || cell.medium != Medium::kPosix;  // else the driver that stands in
  if (failed(Host::open({.requests = 4096, .bufferBytes = 8 << 20, .uring = uring}, &host_), "openHost")) return;
  for (size_t i = 0; i < cell.volume.devices; ++i) {
    if (!openDevice(cell, i)) return;
  }
  Options options = cell.volume.open;
  if (owns) options.emplace_back("directory", makeDirectory(cell));
  memory_.reset(static_cast<std::byte*>(aligned_alloc(4096, kDeviceBytes)));
  if (failed(host_->formatVolume(cell.volume.type, devices_, cell.volume.format, false), "formatVolume")) return;
  if (failed(host_->openVolume("v", cell.volume.type, devices_, options, &volume_), "openVolume")) return;
  for (size_t i = 0; i < kDisks; ++i) {
    const std::string vm = "vm-" + std::to_string(i / 2), disk = "vd" + std::to_string(i % 2);
    if (failed(volume_->createDisk(vm, disk, kDiskBytes, &disks_.emplace_back()), "createDisk")) return;
    for (sm_device* device : volume_->ownDevices(disks_.back())) {
      if (!watch(device, options.back().second + "/" + vm + "/" + disk + ".img")) return;
    }
  }
  open_ = true;
}

bool Stack::attach(bool witnessed) {
  map_ = std::make_shared<AddressMap>();
  std::string why;
  if (Probe::create(host_->stack(), map_, {.association = cell_.association, .correlation = cell_.correlation}, &probe_,
                    &why) != 0) {
    complain(why);
    return false;
  }
  rest();  // what the volume does on its own would be seen in part
  int status = 0;
  for (VirtualDisk* disk : disks_) status = status ? status : probe_->addDisk(disk->contract());
  for (sm_device* device : devices_) status = status ? status : probe_->addDevice(device);
  for (uint32_t i = 0; witnessed && i < disks_.size() && status == 0; ++i) {
    witnesses_.push_back(std::make_unique<Witness>(Witness{this, i}));
    status = disks_[i]->attachFilter(Witness::ops(), witnesses_[i].get());
  }
  if (status != 0) complain(std::string("the probe cannot attach: ") + std::strerror(-status));
  before_.clear();
  for (const auto& counters : counters_) before_.push_back(sumOf(*counters));
  probe_->begin();
  if (status != 0) return false;
  for (const Deadline deadline(kTimeout); !probe_->learning(); std::this_thread::sleep_for(kPause)) {
    if (!deadline.over()) continue;
    complain("the probe does not begin to learn");
    return false;
  }
  return true;
}

void Stack::detach() {
  for (size_t i = 0; i < witnesses_.size(); ++i) disks_[i]->detachFilter(witnesses_[i].get(), kTimeout);
  witnesses_.clear();
  if (!probe_) return;
  if (probe_->detach(kTimeout) != 0) complain("the probe does not let go");
  probe_.reset();
  for (size_t i = 0; i < disks_.size(); ++i) {
    for (const VirtualExtent& extent : map_->locate(key(i), 0, kDiskBytes)) {
      if (extent.state == State::kMapped) return complain("something is mapped after the detach");
    }
  }
}

void Stack::checkLedger() {
  rest();
  for (size_t i = 0; i < devices_.size(); ++i) {
    const DeviceKey device = map_->findDevice(devices_[i]->name);
    Tally all;
    for (const Tally& tally : map_->deviceLedger(device).fates) {
      all.operations += tally.operations;
      all.bytes += tally.bytes;
    }
    Tally below = sumOf(*counters_[i]);
    below.operations -= before_[i].operations;
    below.bytes -= before_[i].bytes;
    if (all.operations == below.operations && all.bytes == below.bytes) continue;
    complain(std::string("the ledger of ") + devices_[i]->name + " has " + std::to_string(all.operations) +
             " operations and " + std::to_string(all.bytes) + " bytes; below it were " +
             std::to_string(below.operations) + " and " + std::to_string(below.bytes));
  }
}

void Stack::rest() {
  constexpr int kStill = 5;  // looks in a row, each after the I/O thread has had a turn
  const Deadline deadline(kTimeout);
  uint64_t before = UINT64_MAX;
  for (int still = 0; still < kStill; std::this_thread::sleep_for(kPause)) {
    host_->stack()->everywhere(
        host_->stack(), [](void*) {}, nullptr, deadline.left());
    uint64_t begun = 0, ended = 0;
    for (const auto& counters : counters_) {
      for (const OpCounters& each : counters->counters()) {
        begun += each.operations;
        ended += each.succeeded + each.failed + each.unseen;
      }
    }
    still = begun == ended && begun == before ? still + 1 : 0;
    before = begun;
    if (deadline.over()) return complain("the volume does not come to rest");
  }
}

uint64_t Stack::writesBelow() const {
  uint64_t writes = 0;
  for (const auto& counters : counters_) writes += counters->counters()[SM_OP_WRITE].operations;
  return writes;
}

void Stack::beginFaults(uint64_t seed) {
  // Not of flushes: a volume may take one that failed for the end of all durability.
  Match data;
  data.ops = ~Match::bit(SM_OP_FLUSH);
  std::vector<FaultRule> rules;
  for (auto [kind, probability] :
       {std::pair{FaultKind::kError, 0.05}, {FaultKind::kTorn, 0.02}, {FaultKind::kShort, 0.02}}) {
    FaultRule& rule = rules.emplace_back();
    rule.match = data;
    rule.kind = kind;
    rule.probability = probability;
  }
  faulted_ = true;
  fault_ = std::make_unique<Fault>(host_->stack(), seed, rules);
  for (sm_device* device : devices_) {
    if (fault_->addDevice(device, SIZE_MAX) != 0) complain("the fault has no room");
  }
}

void Stack::endFaults() {
  if (fault_ && fault_->detach(kTimeout) != 0) complain("the fault does not let go");
  fault_.reset();
}

DiskKey Stack::key(size_t disk) const {
  return map_->findDisk({disks_[disk]->contract()->vm, disks_[disk]->contract()->name});
}

const std::byte* Stack::read(DeviceKey device, uint64_t offset, uint64_t length) {
  const std::string name = map_->deviceName(device);
  size_t index = 0;
  while (devices_.at(index)->name != name) ++index;
  const uint64_t from = offset / 4096 * 4096;
  const uint64_t to = std::min<uint64_t>((offset + length + 4095) / 4096 * 4096, devices_[index]->bytes);
  const ssize_t got = pread(files_[index], memory_.get(), to - from, static_cast<off_t>(from));
  if (got != static_cast<ssize_t>(to - from)) {
    complain("cannot read " + name + " at " + std::to_string(offset));
    std::memset(memory_.get(), 0xEE, to - from);
  }
  return memory_.get() + (offset - from);
}

Stack::~Stack() {
  endFaults();
  detach();
  if (host_) {
    // A volume's own devices go with its disks.
    for (const auto& counters : counters_) {
      if (counters->detach(kTimeout) != 0) complain("the counters do not let go");
    }
    for (VirtualDisk* disk : disks_) {
      if (disk) failed(volume_->closeDisk(disk), "closeDisk");
    }
    if (volume_) {
      const Failure failure = host_->closeVolume(volume_);
      if (!faulted_) failed(failure, "closeVolume");
    }
    failed(host_->close(), "closeHost");
  }
  for (int file : files_) {
    if (file >= 0) close(file);
  }
  for (LoopDevice& loop : loops_) {
    std::string why;
    if (loopDetach(&loop, &why) != 0) complain(why);
  }
}

}  // namespace conformance
