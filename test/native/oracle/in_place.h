// The base of the test volumes: in place; splits and permutes; children by clone, fresh, or with one of the carriers
// alone; from the guest's buffer or a copy; discards passed down or not.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <set>

#include "volumes.h"

namespace truth {

class InPlace : public Volume {
 public:
  explicit InPlace(World& world);
  void submit(const GuestPtr& guest) override { w.spawn(run(guest)); }
  bool idle() const override { return true; }

 protected:
  using Memory = std::vector<std::byte*>;
  using Where = std::function<uint64_t(Unit)>;
  struct Piece {
    uint64_t at, blocks;
  };
  struct Io {
    ChildPtr child;
    std::function<void()> finish;  // may be empty
  };
  struct Copy {
    Memory memory;
    uint64_t slot = 0;
  };
  using Key = std::pair<int, Unit>;

  virtual Co<bool> handle(GuestPtr r) {
    return spread(r, [this](Unit v) { return home(v); });
  }
  Co<void> run(GuestPtr r);
  Co<bool> flush(GuestPtr r);
  Co<bool> spread(GuestPtr r, Where where);
  // Takes the keys when all are free.
  Co<void> grab(std::vector<Key> keys);
  void drop(const std::vector<Key>& keys);
  std::vector<Key> keysOf(const Guest& r, int kind = 0) const;

  uint64_t home(Unit v) const { return v.space * w.options().diskBlocks + v.block; }
  uint64_t second() const { return w.options().deviceBlocks; }  // where the second device begins
  ChildPtr send(uint8_t op, uint64_t place, const Memory& memory, uint64_t blocks, const Guest* parent);
  Io io(uint8_t op, uint64_t place, const GuestPtr& r, uint64_t at, uint64_t blocks);
  std::vector<Piece> pieces(const Guest& r);
  Copy blank(uint64_t blocks);
  Copy copy(const Memory& from);
  void release(const Copy& copy) { w.free(copy.slot); }
  Bytes deviceBytes(uint64_t place) const { return oracle::copyOf(w.deviceBlock(place)); }
  static Memory part(const Memory& memory, uint64_t at, uint64_t blocks) {
    return Memory(memory.begin() + static_cast<ptrdiff_t>(at), memory.begin() + static_cast<ptrdiff_t>(at + blocks));
  }

  World& w;
  bool passDown;
  double clones, copies;
  std::set<Key> locked_;
};

// Makes a volume of each kind; volumes_*.cc.
std::unique_ptr<Volume> makeMirror(World& world);
std::unique_ptr<Volume> makeLog(World& world, bool dedup);
std::unique_ptr<Volume> makeJournal(World& world);
std::unique_ptr<Volume> makeCache(World& world);
std::unique_ptr<Volume> makeRmw(World& world);
std::unique_ptr<Volume> makeCrypt(World& world);
std::unique_ptr<Volume> makeMerge(World& world);
std::unique_ptr<Volume> makePromote(World& world);

}  // namespace truth
