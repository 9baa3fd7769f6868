#include "disks/workload_verify.h"

#include <stratamap/disk.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

namespace sm {
namespace {

constexpr char kMagic[8] = {'S', 'M', 'V', 'E', 'R', 'I', 'F', 'Y'};

// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

struct VerifyPattern::Block {
  char magic[8];
  uint64_t offset, generation, run;
  char vm[SM_NAME_MAX + 1], disk[SM_NAME_MAX + 1];
  uint64_t random[44];
};

VerifyPattern::VerifyPattern(const std::string& vm, const std::string& disk, uint64_t run)
    : vm_(vm.substr(0, SM_NAME_MAX)), disk_(disk.substr(0, SM_NAME_MAX)), run_(run) {
  static_assert(sizeof(Block) == kBlock);
}

void VerifyPattern::make(Block* block, uint64_t offset, uint64_t generation) const {
  std::memcpy(block->magic, kMagic, sizeof kMagic);
  block->offset = offset;
  block->generation = generation;
  block->run = run_;
  std::memset(block->vm, 0, sizeof block->vm);
  std::memset(block->disk, 0, sizeof block->disk);
  std::memcpy(block->vm, vm_.data(), vm_.size());
  std::memcpy(block->disk, disk_.data(), disk_.size());
  uint64_t state = mix(run_ ^ mix(offset ^ mix(generation)));
  for (uint64_t& word : block->random) word = mix(state += 0x9e3779b97f4a7c15);
}

void VerifyPattern::fill(uint8_t* data, uint64_t offset, uint64_t length, uint64_t generation) const {
  for (uint64_t at = 0; at < length; at += kBlock) {
    Block block;
    make(&block, offset + at, generation);
    std::memcpy(data + at, &block, kBlock);
  }
}

uint64_t VerifyPattern::compare(const uint8_t* data, uint64_t offset, uint64_t length, uint64_t generation,
                                uint64_t* first) const {
  uint64_t differing = 0;
  Block block{};
  for (uint64_t at = 0; at < length; at += kBlock) {
    if (generation) make(&block, offset + at, generation);
    if (std::memcmp(data + at, &block, kBlock) == 0) continue;
    if (differing++ == 0) *first = offset + at;
  }
  return differing;
}

std::string VerifyPattern::describe(const uint8_t* data) {
  Block block;
  std::memcpy(&block, data, kBlock);
  if (std::memcmp(block.magic, kMagic, sizeof kMagic) == 0) {
    block.vm[SM_NAME_MAX] = block.disk[SM_NAME_MAX] = 0;
    return std::string("a block of ") + block.vm + "/" + block.disk + ", offset " + std::to_string(block.offset) +
           ", generation " + std::to_string(block.generation) + ", run " + std::to_string(block.run);
  }
  if (std::all_of(data, data + kBlock, [](uint8_t byte) { return byte == 0; })) return "zeroes";
  std::string text = "bytes of no verifying workload, beginning";
  for (int i = 0; i < 16; ++i) {
    char hex[4];
    std::snprintf(hex, sizeof hex, " %02x", data[i]);
    text += hex;
  }
  return text;
}

std::string VerifyPattern::expected(uint64_t offset, uint64_t generation) const {
  if (generation == 0) return "zeroes";
  Block block;
  make(&block, offset, generation);
  return describe(reinterpret_cast<const uint8_t*>(&block));
}

bool VerifyTable::claim(uint64_t wanted, uint64_t* unit) {
  const uint64_t words = busy_.size();
  uint64_t word = wanted / 64;
  uint64_t free = ~busy_[word] & (~uint64_t{0} << (wanted % 64));
  for (uint64_t tried = 0; tried <= words; ++tried) {
    if (free) {
      const uint64_t found = word * 64 + static_cast<uint64_t>(std::countr_zero(free));
      if (found < size()) {
        busy_[word] |= uint64_t{1} << (found % 64);
        *unit = found;
        return true;
      }
    }
    word = word + 1 == words ? 0 : word + 1;
    free = ~busy_[word];
  }
  return false;
}

}  // namespace sm
