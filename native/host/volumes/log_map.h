// Where the blocks of all disks of a log volume are, in memory, and which of that no commit knows yet.
//
// Memory: 4 bytes for each block of a disk and 8 for each physical block, touched when used.
//
// Thread contract: a disk is made and resized on a control thread; everything else on the home I/O thread, or before
// the first request. Invariants: a place is in at most one cell of all disks. A word of `changed` that is not 0 is in
// exactly one of its disk's two lists.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "directory.h"
#include "log_segments.h"

namespace sm {

class LogIo;
struct LogDisk;

// What a request's state points to: the disk, or the write that is on its way there.
struct LogTarget {
  LogDisk* disk;
};

struct LogDisk : LogTarget {
  struct List {  // of words, first in, first out
    uint32_t head = UINT32_MAX, tail = UINT32_MAX;
  };
  struct Cells {
    std::unique_ptr<uint32_t, FreeMemory> place;    // of each block: 0: it holds zeroes; else 1 + place
    std::unique_ptr<uint64_t, FreeMemory> changed;  // a bit for each block
    std::unique_ptr<uint32_t, FreeMemory> next;     // of each word of `changed`: the next one in its list
    uint32_t count = 0;                             // blocks that there is room for
    bool allocate(uint32_t blocks);
  };
  LogIo* io = nullptr;
  uint32_t id = 0, slot = 0;
  uint32_t blocks = 0;
  Cells cells;
  List list, committing;  // changed since the last commit began; the running commit's
  uint32_t listed = 0;    // words in `list`

  uint32_t place(uint32_t block) const { return cells.place.get()[block]; }
};

class LogMap {
 public:
  // False: no memory.
  bool init(sm_device* const* devices, const LogLayout& layout);

  Segments& segments() { return segments_; }
  uint64_t live() const { return live_; }

  // --- disks, by slot
  uint32_t slots() const { return static_cast<uint32_t>(disks_.size()); }
  LogDisk* at(uint32_t slot) { return slot < disks_.size() ? disks_[slot] : nullptr; }
  void add(LogDisk& disk);  // at most kMaxDisks at once
  void remove(LogDisk& disk);
  // Gives up what blocks `from` to before `to` hold, and tells no commit: the next must be of the whole map.
  void clear(LogDisk& disk, uint32_t from, uint32_t to);
  // Takes over larger memory that what it holds has been copied to.
  void grow(LogDisk& disk, LogDisk::Cells& cells);

  // --- `place` is 0 or 1 + place.
  void set(LogDisk& disk, uint32_t block, uint32_t place);
  // Before the first request: false where the place has an owner already.
  bool load(LogDisk& disk, uint32_t block);
  // Whose a place is; false: nobody's.
  bool ownerOf(uint32_t place, uint32_t* slot, uint32_t* block);

  // --- runs of places that are being written. Each is described where its first place's owner will be.
  struct Note {  // about a place
    union {
      uint32_t owner;  // 1 + slot of the disk; 0: none
      uint32_t count;  // of the run that begins here
    };
    union {
      uint32_t block;
      uint32_t next;  // 0: none; else 1 + the first place of the write's next run
    };
  };
  Note& run(uint32_t place) { return notes_.get()[place]; }

  // --- commit
  bool changed() const { return changed_ > 0; }
  void takeChanged();  // for the running commit
  void dropChanged();  // of the running commit and since
  // The next changed block of the disk for the running commit; false: none. Taken by `accept`.
  bool nextChanged(LogDisk& disk, uint32_t* block) const;
  void accept(LogDisk& disk, uint32_t block);

 private:
  void mark(LogDisk& disk, uint32_t block);
  static void drop(LogDisk& disk, LogDisk::List& list);

  Segments segments_;
  std::vector<LogDisk*> disks_;
  std::unique_ptr<Note, FreeMemory> notes_;  // of each place. What is there is true only if the owner says so, too
  uint64_t live_ = 0;
  uint64_t changed_ = 0;  // words in the disks' lists
};

}  // namespace sm
