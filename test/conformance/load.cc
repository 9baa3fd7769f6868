#include "load.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace conformance {

using oracle::kBlock;

namespace {
constexpr uint64_t kPage = 4096;
constexpr std::chrono::minutes kPatience(5);
}  // namespace

Load::Load(Stack& stack, uint32_t depth, uint64_t seed)
    : stack_(stack), random_(seed), memory_((depth + 1) * kLongest + kPage) {
  std::byte* aligned = memory_.data() + (kPage - reinterpret_cast<uintptr_t>(memory_.data()) % kPage);
  for (uint32_t i = 0; i < depth; ++i) {
    ios_.push_back({{}, this, aligned + i * kLongest});
    free_.push_back(&ios_.back());
  }
}

std::vector<Span> Load::tiles() {
  std::vector<Span> spans;
  constexpr uint64_t kWindow = 32 << 10;
  for (uint64_t window = 0; window < kDiskBytes; window += kWindow) {
    static constexpr uint64_t kSizes[] = {kWindow, 16 << 10, kPage};
    const uint64_t dice = random_() % 4;
    if (dice < 3) {
      for (uint64_t at = 0; at < kWindow; at += kSizes[dice]) spans.push_back({window + at, kSizes[dice]});
      continue;
    }
    for (uint64_t at = 0; at < kWindow; at += kPage) {
      const uint64_t blocks = kPage / stack_.blockSize(), first = random_() % blocks;
      const uint64_t count = 1 + random_() % (blocks - first);
      spans.push_back({window + at + first * stack_.blockSize(), count * stack_.blockSize()});
    }
  }
  std::shuffle(spans.begin(), spans.end(), random_);
  return spans;
}

void Load::fill(std::byte* data, uint32_t disk, Span span, bool plain) {
  for (uint64_t at = 0; at < span.length; at += kBlock) {
    const uint64_t dice = plain ? 99 : random_() % 100;
    if (dice < 5) {
      std::memset(data + at, 0, kBlock);
    } else if (dice < 12) {
      std::memset(data + at, static_cast<int>(1 + random_() % 4), kBlock);  // as others have
    } else {
      const oracle::Bytes bytes = oracle::signedPayload({disk, (span.offset + at) / kBlock}, ++generation_, random_());
      std::memcpy(data + at, bytes.data(), kBlock);
    }
  }
}

// A request that is lost is the end: its memory is the host's for good.
void Load::await(size_t wanted) {
  std::unique_lock lock(mutex_);
  while (true) {
    for (; !done_.empty(); done_.pop_front()) {
      failures_ += done_.front()->io.status != 0;
      free_.push_back(done_.front());
    }
    if (free_.size() >= wanted) return;
    if (changed_.wait_for(lock, kPatience, [this] { return !done_.empty(); })) continue;
    std::fprintf(stderr, "%zu requests do not come back\n", ios_.size() - free_.size());
    std::abort();
  }
}

Load::Io& Load::take() {
  await(1);
  Io* io = free_.back();
  free_.pop_back();
  return *io;
}

void Load::submit(Io& it, uint32_t disk, uint8_t op, Span span, uint32_t flags) {
  it.io.op = op;
  it.io.flags = flags;
  it.io.offset = span.offset;
  it.io.length = span.length;
  it.io.iovCount = 0;
  if (op == SM_OP_READ || op == SM_OP_WRITE) {
    // In two segments, sometimes.
    const uint64_t cut = span.length > kPage && random_() % 3 == 0 ? kPage : span.length;
    it.io.iov[it.io.iovCount++] = {it.data, cut};
    if (cut < span.length) it.io.iov[it.io.iovCount++] = {it.data + cut, span.length - cut};
  }
  it.io.done = [](sm::DiskIo* io) {
    Io* it = reinterpret_cast<Io*>(io);
    std::lock_guard lock(it->load->mutex_);
    it->load->done_.push_back(it);
    it->load->changed_.notify_one();
  };
  stack_.disks()[disk]->submit(&it.io);
}

void Load::each(uint32_t disk, const std::vector<Span>& spans, uint8_t op) {
  const uint64_t before = failures_;
  for (const Span& span : spans) {
    Io& it = take();
    if (op == SM_OP_WRITE) fill(it.data, disk, span, true);
    submit(it, disk, op, span, 0);
  }
  await(ios_.size());
  if (failures_ != before) stack_.complain("requests fail without a reason");
}

void Load::chaos(uint64_t operations) {
  const uint64_t block = stack_.blockSize();
  uint64_t hot = 0;
  for (uint64_t i = 0; i < operations; ++i) {
    Io& it = take();
    const auto disk = static_cast<uint32_t>(random_() % kDisks);
    const uint64_t dice = random_() % 100;
    if (dice < 2) {
      submit(it, disk, SM_OP_FLUSH, {0, 0}, 0);
      continue;
    }
    const uint64_t longest = random_() % 3 == 0 ? kLongest : 4 * block;
    const uint64_t length = block * (1 + random_() % (longest / block));
    if (random_() % 8 == 0) hot = random_() % (kDiskBytes / 2);
    // Half of all near one place, so that they overlap.
    const uint64_t reach = random_() % 2 ? std::min<uint64_t>(hot + 2 * kLongest, kDiskBytes) : kDiskBytes;
    const uint64_t lowest = reach == kDiskBytes ? 0 : hot;
    const uint64_t room = reach - lowest > length ? reach - lowest - length : 0;
    const uint64_t at = std::min((lowest + random_() % (room + 1)) / block * block, kDiskBytes - length);
    const uint8_t op = dice < 8 ? SM_OP_DISCARD : dice < 13 ? SM_OP_WRITE_ZEROES : dice < 45 ? SM_OP_READ : SM_OP_WRITE;
    if (op == SM_OP_WRITE) fill(it.data, disk, {at, length}, false);
    const bool fua = (op == SM_OP_WRITE || op == SM_OP_WRITE_ZEROES) && random_() % 20 == 0;
    submit(it, disk, op, {at, length}, fua ? uint32_t{SM_FLAG_FUA} : 0);
  }
  await(ios_.size());
}

}  // namespace conformance
