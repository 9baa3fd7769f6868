// `pointer`: the context lives apart, and the request's private field points to it (US 8,886,867: context behind an
// embedded pointer).
//
// Cells are used in turn, and the bits of a pointer that say nothing about its cell count the turns: a child that
// outlived its parent points to a turn that is over.
#include <atomic>
#include <bit>
#include <memory>
#include <random>

#include "correlate/associations.h"

namespace sm {

namespace {

class Pointer : public Association {
 public:
  explicit Pointer(uint32_t capacity)
      : count_(std::bit_ceil(2ull * capacity)), cells_(new Cell[count_]), cellOf_(new uint32_t[capacity]) {
    // A random start: a probe whose cells lie where another's lay must not use its pointers again.
    std::random_device random;
    turn_ = (static_cast<uint64_t>(random()) << 32) | random();
  }

  bool mark(uint32_t context, const Context&, sm_request* above) override {
    // The field may be in use already: by the issuer, or by another probe. It is not ours to overwrite.
    if (above->private_data) return false;
    uint32_t at;
    uint64_t turn;
    do {  // at least half of the cells are free
      turn = turn_++;
      at = static_cast<uint32_t>(turn & (count_ - 1));
    } while (cells_[at].pointer.load(std::memory_order_relaxed) != kFree);
    const uint64_t pointer = pointerTo(at, turn / count_);
    cells_[at].context = context;
    cells_[at].pointer.store(pointer, std::memory_order_release);
    cellOf_[context] = at;
    above->private_data = reinterpret_cast<void*>(pointer);
    return true;
  }
  void unmark(uint32_t context, sm_request* above) override {
    above->private_data = nullptr;
    cells_[cellOf_[context]].pointer.store(kFree, std::memory_order_release);
  }
  bool record(uint32_t, const sm_request*) override { return true; }
  void forget(uint32_t, const sm_request*) override {}
  uint32_t find(const sm_request* below) const override {
    const uint64_t pointer = reinterpret_cast<uint64_t>(below->private_data);
    const uint64_t address = pointer & kAddress, base = reinterpret_cast<uint64_t>(cells_.get());
    if (address < base || address - base >= count_ * sizeof(Cell)) return kNone;
    const Cell& cell = cells_[(address - base) / sizeof(Cell)];
    if (cell.pointer.load(std::memory_order_acquire) != pointer) return kNone;
    const uint32_t context = cell.context.load(std::memory_order_acquire);
    return cell.pointer.load(std::memory_order_relaxed) == pointer ? context : kNone;
  }
  uint64_t key(const sm_request* request) const override { return reinterpret_cast<uint64_t>(request->private_data); }

 private:
  struct alignas(16) Cell {
    std::atomic<uint64_t> pointer{kFree};  // as it stands in the request
    std::atomic<uint32_t> context{kNone};
  };
  static constexpr uint64_t kFree = 0;
  // User addresses have 47 bits on x86-64 and 48 on arm64 unless a process asks for more.
  static constexpr int kHigh = 48, kLow = std::countr_zero(sizeof(Cell));
  static constexpr uint64_t kAddress = ((1ull << kHigh) - 1) & ~(sizeof(Cell) - 1);

  uint64_t pointerTo(uint32_t at, uint64_t turn) const {
    const uint64_t low = turn & ((1u << kLow) - 1), high = (turn >> kLow) & ((1u << (64 - kHigh)) - 1);
    return reinterpret_cast<uint64_t>(&cells_[at]) | low | (high << kHigh);
  }

  const uint64_t count_;
  std::unique_ptr<Cell[]> cells_;
  std::unique_ptr<uint32_t[]> cellOf_;  // by context
  uint64_t turn_ = 0;
};

}  // namespace

std::unique_ptr<Association> makePointerAssociation(uint32_t capacity, const LiveBuffers&) {
  return std::make_unique<Pointer>(capacity);
}

}  // namespace sm
