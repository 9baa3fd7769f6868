// What a verifying workload knows of its blocks, and the bytes that it writes so that no two blocks are equal by
// accident.
//
// Thread contract: one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sm {

// The content of a block of 512 bytes: vm, disk, offset, generation and run, then bytes that follow from them.
class VerifyPattern {
 public:
  static constexpr uint64_t kBlock = 512;

  // `run` tells runs apart; two runs never write the same block, whatever their seeds.
  VerifyPattern(const std::string& vm, const std::string& disk, uint64_t run);

  // `offset` on the disk and `length` are multiples of kBlock.
  void fill(uint8_t* data, uint64_t offset, uint64_t length, uint64_t generation) const;
  // How many blocks differ from what fill wrote; generation 0: from zeroes. `*first` is the offset of the first.
  uint64_t compare(const uint8_t* data, uint64_t offset, uint64_t length, uint64_t generation, uint64_t* first) const;
  // In words: what a block holds, and what it should hold.
  static std::string describe(const uint8_t* block);
  std::string expected(uint64_t offset, uint64_t generation) const;

 private:
  struct Block;
  void make(Block* block, uint64_t offset, uint64_t generation) const;

  std::string vm_, disk_;
  uint64_t run_;
};

// The units (of one I/O's size) of a verifying workload: what each holds, and which are in flight.
class VerifyTable {
 public:
  static constexpr uint32_t kUnknown = 0, kZeroes = 1, kFirstGeneration = 2;

  explicit VerifyTable(uint64_t units) : generations_(units, kUnknown), busy_((units + 63) / 64, 0) {}

  // Claims `wanted`, or the next that is not in flight, in a circle. False: all are.
  bool claim(uint64_t wanted, uint64_t* unit);
  void release(uint64_t unit) { busy_[unit / 64] &= ~(uint64_t{1} << (unit % 64)); }
  uint32_t& operator[](uint64_t unit) { return generations_[unit]; }
  uint64_t size() const { return generations_.size(); }

 private:
  std::vector<uint32_t> generations_;
  std::vector<uint64_t> busy_;  // one bit for each
};

}  // namespace sm
