// The metadata of a log volume: log_page.h says what is on the medium and why it survives. A commit writes what has
// changed since the last one as a batch, or the whole map: where the batch does not fit, after a failure, as the first
// one after opening (behind the last batch there may be pages that a crash left), and when blocks were given up without
// a record.
//
// A block is written down as it is when its turn comes, which may be newer than when the commit began. That does no
// harm: the last page follows a flush of the devices, so that all that the batch names is durable by then; a place that
// is given up meanwhile is not used again before the next commit.
//
// Thread contract: format and load on a control thread; everything else on the home I/O thread. Nothing allocates
// there.
#pragma once

#include <functional>

#include "commit.h"
#include "log_map.h"
#include "log_page.h"

namespace sm {

class LogJournal final : public CommitSource {
 public:
  LogJournal(LogMap& map, sm_device* device, const LogLayout& layout, const uint8_t uuid[16]);

  // Writes an empty one.
  static int32_t format(const sm_services* services, sm_device* device, const LogLayout& layout, const uint8_t uuid[16],
                        sm_error* error);
  // Calls `each` for every record that counts, in their order; it returns 0 or a negative errno. -EBADMSG: damaged.
  int32_t load(const sm_services* services, const std::function<int32_t(const LogRecord&)>& each, sm_error* error);

  // Whether there is something that is not durable.
  bool dirty() const { return map_.changed() || unsaved_; }
  // The next commit writes the whole map.
  void writeAll() { wholeNext_ = true; }

  void begin() override;
  Next next(uint32_t stage, uint32_t slot, uint64_t longest, Run* out) override;
  void end(bool durable) override;

 private:
  struct Scan;  // of an area
  enum class Fill { kFull, kExhausted, kPause };
  static constexpr uint32_t kSlotPages = 8;      // in one write
  static constexpr uint32_t kPiece = 64;         // pages that are read at once
  static constexpr uint32_t kBudget = 1u << 20;  // blocks that are passed over without a pause
  static constexpr uint32_t kSaltBits = 24;

  int32_t scan(const sm_services* services, uint32_t area, LogPage* pages, Scan* out, sm_error* error) const;
  bool whole(const LogPage& page, uint32_t area, uint32_t number, uint64_t generation) const;

  void beginWhole();
  Next nextPages(uint32_t slot, uint64_t longest, Run* out);
  Next nextErasure(uint32_t area, uint32_t slot, bool* done, Run* out);
  Fill fill();
  bool append(uint32_t disk, uint32_t block, uint32_t place);
  void finishPage(bool last, LogPage* to);
  LogPage* slotPages(uint32_t slot) { return reinterpret_cast<LogPage*>(buffers_.get()) + slot * kSlotPages; }

  LogMap& map_;
  sm_device* const device_;
  const uint64_t areaAt_[2];
  const uint32_t areaPages_;
  uint8_t uuid_[16];
  PageMemory buffers_;  // kSlotPages for each slot of a commit

  uint32_t area_ = 0;  // which holds the truth
  uint64_t generation_ = 0;
  const uint64_t salt_;    // in the lower bits of every generation that this one begins
  uint32_t nextPage_ = 0;  // where the next batch begins in it
  bool wholeNext_ = true;
  bool unsaved_ = false;  // the last commit failed
  bool stale_ = true;     // the other area may begin with a whole page: it is erased before a generation begins there

  // --- the running commit
  bool whole_ = false;
  bool exhausted_ = false, overflow_ = false, erased_ = false, sealed_ = false, retired_ = false;
  uint32_t number_ = 0;            // of the page that is being filled
  uint32_t slot_ = 0, block_ = 0;  // of the next block of the whole map; the slot also of the next change
  LogPage page_{};
};

}  // namespace sm
