// Volumes that choose where bytes go: a mirror, a log with a cleaner and with deduplication, promotion by reads.
#include <map>
#include <optional>

#include "in_place.h"

namespace truth {

namespace {

// Two legs; reads go to either while they agree; may acknowledge before the second leg is written.
class Mirror : public InPlace {
 public:
  using InPlace::InPlace;

 private:
  uint64_t leg(Unit v) const { return second() + home(v); }

  Co<bool> handle(GuestPtr r) override {
    if (r->op == SM_OP_READ) {
      bool other = w.chance(.5);
      for (uint64_t i = 0; i < r->blocks && other; ++i) {
        other = deviceBytes(home(r->unit(i))) == deviceBytes(leg(r->unit(i))) && !w.content().modifying(r->unit(i));
      }
      co_return co_await spread(r, [this, other](Unit v) { return other ? leg(v) : home(v); });
    }
    if (r->op == SM_OP_DISCARD && !passDown) co_return true;
    const std::vector<Key> keys = keysOf(*r);
    co_await grab(keys);
    bool early = w.chance(.3) && r->op == SM_OP_WRITE;
    // Whoever overlaps would be acknowledged in one order and written in another.
    if (early) early = overlapsNothing(*r);
    if (!early) drop(keys);
    Copy late;
    if (early) late = copy(r->memory);
    std::vector<ChildPtr> rest;
    rest.push_back(send(r->op, leg(r->unit(0)), early ? late.memory : r->memory, r->blocks, r.get()));
    co_await w.pause();
    Io first = io(r->op, home(r->unit(0)), r, 0, r->blocks);
    std::vector<ChildPtr> waits{first.child};
    if (!early) waits.push_back(rest[0]);
    co_await w.wait(waits);
    if (first.finish) first.finish();
    if (early) w.spawn(end(rest, late, keys));
    co_return first.child->ok();
  }

  Co<void> end(std::vector<ChildPtr> rest, Copy late, std::vector<Key> keys) {
    co_await w.wait(rest);
    release(late);
    drop(keys);
  }

  bool overlapsNothing(const Guest& r) const {
    for (uint64_t i = 0; i < r.blocks; ++i) {
      if (w.content().modifying(r.unit(i)) > 1) return false;
    }
    return true;
  }
};

// Log-structured, one pool for all disks; a cleaner moves live data while guests write. With deduplication a payload
// already stored, or zeroes, issues no child, and there is no cleaner.
class Log : public InPlace {
 public:
  Log(World& world, bool dedup) : InPlace(world), dedup_(dedup), zeroes_(dedup && w.chance(.7)) {
    users_.resize(2 * second());
    refs_.resize(users_.size());
  }
  void background() override {
    if (dedup_) return;
    std::vector<Unit> candidates;
    for (auto& [v, p] : map_) {
      if (users_[p] == 1) candidates.push_back(v);
    }
    if (!candidates.empty()) w.spawn(clean(candidates[w.below(candidates.size())]));
  }

 private:
  uint64_t grow(uint64_t n) {
    std::vector<uint64_t> free;
    for (uint64_t p = 0; p + n <= users_.size() && free.size() < 12; ++p) {
      bool ok = p / second() == (p + n - 1) / second();
      for (uint64_t i = 0; i < n && ok; ++i) ok = users_[p + i] == 0 && refs_[p + i] == 0;
      if (ok) free.push_back(p);
    }
    const uint64_t p = free[w.below(free.size())];
    for (uint64_t i = 0; i < n; ++i) users_[p + i] = 1;
    return p;
  }
  void unuse(uint64_t p) {
    if (--users_[p] == 0) std::erase_if(index_, [p](auto& each) { return each.second == p; });
  }
  std::optional<uint64_t> commit(Unit v, std::optional<uint64_t> p) {
    std::optional<uint64_t> old;
    if (auto at = map_.find(v); at != map_.end()) old = at->second;
    if (p) map_[v] = *p;
    else map_.erase(v);
    if (old) unuse(*old);
    return old;
  }

  Co<bool> handle(GuestPtr r) override {
    if (r->op == SM_OP_READ) co_return co_await read(r);
    if (r->op == SM_OP_WRITE) co_return co_await write(r);
    for (uint64_t i = 0; i < r->blocks; ++i) {
      const std::optional<uint64_t> old = commit(r->unit(i), std::nullopt);
      if (!old || !passDown || users_[*old] != 0) continue;
      ++refs_[*old];
      while (refs_[*old] > 1) co_await w.pause();
      std::vector<ChildPtr> child{send(SM_OP_DISCARD, *old, {}, 1, w.chance(.5) ? r.get() : nullptr)};
      co_await w.wait(child);
      --refs_[*old];
    }
    co_return true;
  }

  Co<bool> read(GuestPtr r) {
    std::vector<std::optional<uint64_t>> at;
    for (uint64_t i = 0; i < r->blocks; ++i) {
      auto found = map_.find(r->unit(i));
      at.push_back(found == map_.end() ? std::nullopt : std::optional(found->second));
      if (at.back()) ++refs_[*at.back()];
    }
    struct Part {
      Io io;
      uint64_t place, blocks;
    };
    std::vector<Part> parts;
    for (uint64_t i = 0; i < at.size();) {
      uint64_t n = 1;
      while (at[i] && i + n < at.size() && at[i + n] == *at[i] + n && (*at[i] + n) % second() != 0) ++n;
      co_await w.pause();
      if (at[i]) parts.push_back({io(SM_OP_READ, *at[i], r, i, n), *at[i], n});
      else std::memset(r->memory[i], 0, kBlock);
      i += n;
    }
    std::vector<ChildPtr> children;
    for (const Part& part : parts) children.push_back(part.io.child);
    co_await w.wait(children);
    bool ok = true;
    for (const Part& part : parts) {
      if (part.io.finish) part.io.finish();
      for (uint64_t i = 0; i < part.blocks; ++i) --refs_[part.place + i];
      ok &= part.io.child->ok();
    }
    co_return ok;
  }

  Co<bool> write(GuestPtr r) {
    bool ok = true;
    const std::vector<Piece> all = pieces(*r);
    for (const Piece& piece : all) {
      std::vector<Bytes> content;
      for (uint64_t i = 0; i < piece.blocks; ++i) content.push_back(oracle::copyOf(r->memory[piece.at + i]));
      if (dedup_ && known(content)) {
        std::vector<std::optional<uint64_t>> places;
        for (const Bytes& bytes : content) {
          if (zeroes_ && bytes == Bytes{}) places.push_back(std::nullopt);
          else places.push_back(index_.at(bytes));
          if (places.back()) ++users_[*places.back()];
        }
        for (uint64_t i = 0; i < piece.blocks; ++i) commit(r->unit(piece.at + i), places[i]);
        continue;
      }
      const uint64_t p = grow(piece.blocks);
      Io write = io(SM_OP_WRITE, p, r, piece.at, piece.blocks);
      std::vector<ChildPtr> child{write.child};
      co_await w.wait(child);
      if (write.finish) write.finish();
      co_await w.pause();
      for (uint64_t i = 0; i < piece.blocks; ++i) {
        if (write.child->ok()) {
          commit(r->unit(piece.at + i), p + i);
          if (dedup_) index_.emplace(content[i], p + i);
        } else {
          unuse(p + i);
        }
      }
      ok &= write.child->ok();
    }
    co_return ok;
  }
  bool known(const std::vector<Bytes>& content) const {
    return std::all_of(content.begin(), content.end(),
                       [this](const Bytes& bytes) { return (zeroes_ && bytes == Bytes{}) || index_.contains(bytes); });
  }

  Co<void> clean(Unit v) {
    if (!map_.contains(v)) co_return;
    const uint64_t p = map_.at(v);
    ++refs_[p];
    Copy buffer = blank(1);
    std::vector<ChildPtr> read{send(SM_OP_READ, p, buffer.memory, 1, nullptr)};
    co_await w.wait(read);
    const uint64_t q = grow(1);
    std::vector<ChildPtr> write{send(SM_OP_WRITE, q, buffer.memory, 1, nullptr)};
    co_await w.wait(write);
    if (read[0]->ok() && write[0]->ok() && map_.contains(v) && map_.at(v) == p) {
      commit(v, q);
      while (passDown && refs_[p] > 1) co_await w.pause();  // a reader still needs the old place
      if (passDown) {
        std::vector<ChildPtr> discard{send(SM_OP_DISCARD, p, {}, 1, nullptr)};
        co_await w.wait(discard);
      }
    } else {
      unuse(q);
    }
    --refs_[p];
    release(buffer);
  }

  const bool dedup_, zeroes_;
  std::map<Unit, uint64_t> map_;
  std::vector<uint32_t> users_, refs_;  // of a place: blocks that are there, I/Os that need it
  std::map<Bytes, uint64_t> index_;
};

// Reads copy what they read to a small fast area, by a clone of the read that writes; later reads come from there.
class Promote : public InPlace {
 public:
  using InPlace::InPlace;

 private:
  static constexpr uint64_t kFast = 8;

  Co<bool> handle(GuestPtr r) override {
    std::vector<Key> keys = keysOf(*r);
    co_await grab(keys);
    bool ok = true;
    if (r->op == SM_OP_READ) {
      ok = co_await spread(
          r, [this](Unit v) { return home(v); }, true);
      const Unit v = r->unit(w.below(r->blocks));
      if (ok && w.chance(.5)) {
        const uint64_t slot = w.below(kFast);
        const std::vector<Key> key{{1, {0, slot}}};
        co_await grab(key);
        std::erase_if(fast_, [slot](auto& each) { return each.second == slot; });
        Memory memory{r->memory[v.block - r->first]};
        std::vector<ChildPtr> child{send(SM_OP_WRITE, second() + slot, memory, 1, r.get())};
        co_await w.wait(child);
        if (child[0]->ok()) fast_[v] = slot;
        drop(key);
      }
    } else {
      for (uint64_t i = 0; i < r->blocks; ++i) fast_.erase(r->unit(i));
      ok = co_await InPlace::spread(r, [this](Unit v) { return home(v); });
    }
    drop(keys);
    co_return ok;
  }

  // As the base, but block by block, each from where it is fastest. The slots that it reads stay as they are meanwhile.
  Co<bool> spread(GuestPtr r, Where where, bool) {
    std::vector<Key> slots;
    std::vector<Io> ios;
    for (uint64_t i = 0; i < r->blocks; ++i) {
      const auto at = fast_.find(r->unit(i));
      const Key key{1, {0, at == fast_.end() ? 0 : at->second}};
      if (at == fast_.end() || locked_.contains(key)) {
        ios.push_back(io(SM_OP_READ, where(r->unit(i)), r, i, 1));
      } else {
        locked_.insert(key);
        slots.push_back(key);
        ios.push_back(io(SM_OP_READ, second() + at->second, r, i, 1));
      }
    }
    std::vector<ChildPtr> children;
    for (const Io& each : ios) children.push_back(each.child);
    co_await w.wait(children);
    bool ok = true;
    for (const Io& each : ios) {
      if (each.finish) each.finish();
      ok &= each.child->ok();
    }
    drop(slots);
    co_return ok;
  }

  std::map<Unit, uint64_t> fast_;
};

}  // namespace

std::unique_ptr<Volume> makeMirror(World& world) { return std::make_unique<Mirror>(world); }
std::unique_ptr<Volume> makeLog(World& world, bool dedup) { return std::make_unique<Log>(world, dedup); }
std::unique_ptr<Volume> makePromote(World& world) { return std::make_unique<Promote>(world); }

}  // namespace truth
