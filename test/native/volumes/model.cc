#include "model.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sm::test {
namespace {

constexpr uint64_t kMark = 0x626c6f636b206f66;

uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace

void fillBlock(uint8_t* memory, uint64_t uid, uint64_t block, uint32_t id) {
  memset(memory, 0, kBlock);
  if (id == 0) return;
  uint64_t words[kBlock / 8] = {kMark, uid, block, id};
  for (size_t i = 4; i < kBlock / 8; ++i) words[i] = mix(mix(uid) + mix(block * 3) + id * 7 + i);
  memcpy(memory, words, kBlock);
}

int64_t readBlock(const uint8_t* memory, uint64_t uid, uint64_t block) {
  uint64_t words[4];
  memcpy(words, memory, sizeof words);
  const uint32_t id = words[0] == kMark ? static_cast<uint32_t>(words[3]) : 0;
  uint8_t expected[kBlock];
  fillBlock(expected, uid, block, id);
  return memcmp(memory, expected, kBlock) ? -1 : static_cast<int64_t>(id);
}

std::vector<sm_option> toOptions(const std::vector<std::pair<std::string, std::string>>& options) {
  std::vector<sm_option> out;
  for (const auto& [key, value] : options) out.push_back({key.c_str(), value.c_str()});
  return out;
}

void formatVolume(World& world, const sm_volume_ops* ops,
                  const std::vector<std::pair<std::string, std::string>>& options) {
  const auto list = toOptions(options);
  sm_error error{};
  const int32_t status =
      ops->format(world.services(), world.devices().data(), static_cast<uint32_t>(world.devices().size()), list.data(),
                  static_cast<uint32_t>(list.size()), &error);
  REQUIRE_MESSAGE(status == 0, error.message);
}

struct Model::Io {
  sm_request* request;
  uint64_t uid;
  uint64_t first, count;  // blocks
  uint32_t value = 0;
  uint64_t submittedAt;
  std::vector<uint8_t> memory;
  std::vector<iovec> iov;
};

ModelDisk* Model::find(uint64_t uid) {
  for (ModelDisk& disk : state.disks)
    if (disk.uid == uid) return &disk;
  return nullptr;
}

void Model::submit(ModelDisk& disk, uint8_t op, uint32_t flags, uint64_t offset, uint64_t length) {
  auto* io = new Io{world_.parent(), disk.uid, offset / kBlock, length / kBlock, 0, state.completions, {}, {}};
  sm_request& request = *io->request;
  request.op = op;
  request.flags = flags;
  request.offset = offset;
  request.length = length;
  if (op == SM_OP_WRITE) io->value = state.nextValue++;
  if (op == SM_OP_READ || op == SM_OP_WRITE) {
    io->memory.assign(length, 0xee);
    if (op == SM_OP_WRITE)
      for (uint64_t i = 0; i < io->count; ++i) fillBlock(&io->memory[i * kBlock], disk.uid, io->first + i, io->value);
    for (uint64_t at = 0; at < length;) {
      uint64_t piece = 1 + below(world_.random(), length - at);
      if (io->iov.size() + 1 == SM_IOV_MAX) piece = length - at;
      io->iov.push_back({&io->memory[at], piece});
      at += piece;
    }
    request.iov = io->iov.data();
    request.iov_count = static_cast<uint32_t>(io->iov.size());
  }
  for (uint64_t i = 0; i < io->count; ++i) {
    Block& block = disk.blocks[io->first + i];
    if (!sm_op_modifies(op)) {
      ++block.readers;
    } else {
      block.writer = true;
      block.values.push_back({io->value, false, false, 0});
    }
  }
  ++disk.inFlight;
  ++inFlight_;
  sm_request_push(&request, &Model::onDone, this, reinterpret_cast<uint64_t>(io));
  ops_->submit(volume, disk.handle, &request);
}

void Model::onDone(sm_request* request, void* context, uint64_t word) {
  auto* model = static_cast<Model*>(context);
  const std::unique_ptr<Io> io(reinterpret_cast<Io*>(word));
  REQUIRE(request->frame_count == 0);
  model->finish(*io, request->status);
  model->world_.releaseParent(request);
}

void Model::finish(Io& io, int32_t status) {
  ++state.completions;
  ModelDisk& disk = *find(io.uid);
  --disk.inFlight;
  --inFlight_;
  if (status) {
    CHECK(static_cast<uint64_t>(-status) == mayFail);
    ++failed;
  }
  if (io.request->op == SM_OP_FLUSH) {
    if (!status) finishFlush(io);
  } else if (io.request->op == SM_OP_READ) {
    if (!status) checkRead(io);
    for (uint64_t i = 0; i < io.count; ++i) --disk.blocks[io.first + i].readers;
  } else {
    finishWrite(io, status);
  }
}

void Model::finishWrite(Io& io, int32_t status) {
  ModelDisk& disk = *find(io.uid);
  for (uint64_t i = 0; i < io.count; ++i) {
    Block& block = disk.blocks[io.first + i];
    block.writer = false;
    Value& value = block.values.back();
    value.done = true;
    value.doneAt = state.completions;
    value.maybe = status != 0;
    if (!status && (io.request->flags & SM_FLAG_FUA)) block.values.erase(block.values.begin(), block.values.end() - 1);
  }
}

// What was complete when the flush was submitted is durable: older values are gone for good.
void Model::finishFlush(Io& io) {
  for (ModelDisk& disk : state.disks)
    for (Block& block : disk.blocks) {
      size_t keep = 0;
      for (size_t i = 0; i < block.values.size(); ++i) {
        const Value& value = block.values[i];
        if (value.done && !value.maybe && value.doneAt <= io.submittedAt) keep = i;
      }
      block.values.erase(block.values.begin(), block.values.begin() + static_cast<long>(keep));
    }
}

void Model::checkRead(Io& io) {
  ModelDisk& disk = *find(io.uid);
  for (uint64_t i = 0; i < io.count; ++i) {
    Block& block = disk.blocks[io.first + i];
    const int64_t id = readBlock(&io.memory[i * kBlock], disk.uid, io.first + i);
    bool allowed = false;
    for (size_t j = block.values.size(); j-- > 0 && !allowed;) {
      allowed = id == block.values[j].id;
      if (!block.values[j].maybe && recovering_ != disk.uid) break;
    }
    CHECK_MESSAGE(allowed, "disk " << disk.uid << " block " << io.first + i << " holds " << id << ", not "
                                   << block.values.back().id);
    if (recovering_ == disk.uid) block.values = {Value{static_cast<uint32_t>(id < 0 ? 0 : id)}};
  }
}

bool Model::blocksFree(const ModelDisk& disk, uint8_t op, uint64_t first, uint64_t count) const {
  for (uint64_t i = first; i < first + count; ++i)
    if (disk.blocks[i].writer || (sm_op_modifies(op) && disk.blocks[i].readers)) return false;
  return true;
}

void Model::drain() {
  world_.runUntil([this] { return inFlight_ == 0; });
}

void Model::open() {
  const auto options = toOptions(openOptions);
  sm_error error{};
  const int32_t status =
      ops_->open(world_.services(), world_.devices().data(), static_cast<uint32_t>(world_.devices().size()),
                 options.data(), static_cast<uint32_t>(options.size()), &volume, &error);
  REQUIRE_MESSAGE(status == 0, error.message);
  openDisks();
}

void Model::openDisks() {
  for (ModelDisk& disk : state.disks) {
    sm_error error{};
    uint64_t bytes = 0;
    REQUIRE_MESSAGE(ops_->disk_open(volume, disk.vm.c_str(), disk.name.c_str(), &disk.handle, &bytes, &error) == 0,
                    error.message);
    CHECK(bytes == disk.bytes);
  }
}

void Model::close() {
  drain();
  sm_error error{};
  for (ModelDisk& disk : state.disks) ops_->disk_close(volume, disk.handle);
  REQUIRE_MESSAGE(ops_->close(volume, &error) == 0, error.message);
  volume = nullptr;
  // A volume makes durable what it knows of, not what its devices still hold.
  world_.runUntil([this] { return world_.live() == 0; });
}

void Model::run(uint32_t steps) {
  for (uint32_t i = 0; i < steps; ++i) {
    if (chance(world_.random(), mix.control) || state.disks.empty()) {
      randomControl();
    } else if (inFlight_ < mix.depth) {
      randomRequest();
    }
    for (uint64_t j = below(world_.random(), 4); j > 0; --j) world_.step();
  }
}

void Model::randomRequest() {
  Random& random = world_.random();
  ModelDisk& disk = state.disks[below(random, state.disks.size())];
  const uint64_t dice = below(random, 100);
  uint8_t op = SM_OP_READ;
  if (dice < mix.write) op = SM_OP_WRITE;
  else if (dice < mix.write + mix.zeroes) op = SM_OP_WRITE_ZEROES;
  else if (dice < mix.write + mix.zeroes + mix.discard) op = SM_OP_DISCARD;
  else if (dice < mix.write + mix.zeroes + mix.discard + mix.flush) return submit(disk, SM_OP_FLUSH, 0, 0, 0);
  const uint64_t blocks = disk.bytes / blockSize_;
  const uint64_t first = below(random, blocks);
  uint64_t count = 1 + below(random, std::min(blocks - first, mix.largest / blockSize_));
  if (chance(random, 30)) count = std::min<uint64_t>(count, 4);
  const uint64_t per = blockSize_ / kBlock;
  if (!blocksFree(disk, op, first * per, count * per)) return;
  const bool fua = (op == SM_OP_WRITE || op == SM_OP_WRITE_ZEROES) && chance(random, mix.fua);
  submit(disk, op, fua ? SM_FLAG_FUA : 0, first * blockSize_, count * blockSize_);
}

void Model::randomControl() {
  Random& random = world_.random();
  const uint64_t bytes = blockSize_ * (1 + below(random, largestDisk / blockSize_));
  const uint64_t dice = below(random, 10);
  if (state.disks.size() < mostDisks && (state.disks.empty() || dice < 3)) {
    create(bytes);
  } else if (dice < 5) {
    remove(below(random, state.disks.size()));
  } else if (dice < 8) {
    resize(state.disks[below(random, state.disks.size())], bytes);
  } else if (dice < 9) {
    close();
    open();
  }
}

bool Model::create(uint64_t bytes) {
  ModelDisk disk;
  disk.uid = state.nextUid++;
  disk.vm = "vm-" + std::to_string(disk.uid % 3);
  disk.name = "disk-" + std::to_string(disk.uid);
  disk.bytes = disk.otherBytes = bytes;
  disk.blocks.resize(bytes / kBlock);
  disk.maybe = true;
  state.disks.push_back(disk);
  sm_error error{};
  const int32_t status = ops_->disk_create(volume, disk.vm.c_str(), disk.name.c_str(), bytes, &error);
  if (status) {
    CHECK(status == -ENOSPC);
    state.disks.pop_back();
    return false;
  }
  ModelDisk& made = state.disks.back();
  made.maybe = false;
  uint64_t found = 0;
  REQUIRE(ops_->disk_open(volume, disk.vm.c_str(), disk.name.c_str(), &made.handle, &found, &error) == 0);
  CHECK(found == bytes);
  return true;
}

void Model::remove(size_t index) {
  const uint64_t uid = state.disks[index].uid;
  world_.runUntil([&] { return find(uid)->inFlight == 0; });
  ModelDisk& disk = state.disks[index];
  ops_->disk_close(volume, disk.handle);
  disk.maybe = true;
  sm_error error{};
  REQUIRE_MESSAGE(ops_->disk_delete(volume, disk.vm.c_str(), disk.name.c_str(), &error) == 0, error.message);
  state.disks.erase(state.disks.begin() + static_cast<long>(index));
}

void Model::resize(ModelDisk& disk, uint64_t bytes) {
  world_.runUntil([&] { return disk.inFlight == 0; });
  disk.otherBytes = bytes;
  sm_error error{};
  const int32_t status = ops_->disk_resize(volume, disk.handle, bytes, &error);
  if (status) {
    CHECK(status == -ENOSPC);
    disk.otherBytes = disk.bytes;
    return;
  }
  disk.bytes = bytes;
  disk.blocks.resize(bytes / kBlock);
}

void Model::verify() {
  drain();
  for (ModelDisk& disk : state.disks)
    for (uint64_t at = 0; at < disk.bytes; at += mix.largest)
      submit(disk, SM_OP_READ, 0, at, std::min(mix.largest, disk.bytes - at));
  drain();
}

void Model::recover(ModelState before) {
  state = {};
  open();
  std::vector<sm_disk_info> found;
  sm_error error{};
  REQUIRE(ops_->disk_list(
              volume,
              [](void* context, const sm_disk_info* info) {
                static_cast<std::vector<sm_disk_info>*>(context)->push_back(*info);
              },
              &found, &error) == 0);
  std::erase_if(before.disks, [&](const ModelDisk& disk) {
    const bool there = std::any_of(found.begin(), found.end(), [&](const sm_disk_info& info) {
      return disk.vm == info.vm && disk.name == info.name &&
             (info.bytes == disk.bytes || info.bytes == disk.otherBytes);
    });
    CHECK_MESSAGE((there || disk.maybe), "disk " << disk.uid << " is lost, or of another size");
    return !there;
  });
  CHECK(found.size() == before.disks.size());
  state = std::move(before);
  for (ModelDisk& disk : state.disks) {
    for (const sm_disk_info& info : found)
      if (disk.vm == info.vm && disk.name == info.name) disk.bytes = disk.otherBytes = info.bytes;
    disk.maybe = false;
    disk.inFlight = 0;
    disk.blocks.resize(disk.bytes / kBlock);
    for (Block& block : disk.blocks) block.readers = block.writer = 0;
  }
  openDisks();
  for (ModelDisk& disk : state.disks) {
    recovering_ = disk.uid;
    for (uint64_t at = 0; at < disk.bytes; at += mix.largest)
      submit(disk, SM_OP_READ, 0, at, std::min(mix.largest, disk.bytes - at));
    drain();
  }
  recovering_ = 0;
}

}  // namespace sm::test
