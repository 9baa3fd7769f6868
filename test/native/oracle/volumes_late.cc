// Volumes that write late, otherwise, or for several at once: a journal, a write-back cache, read-modify-write,
// encryption, merging.
#include <map>

#include "in_place.h"

namespace truth {

namespace {

// Base of those that acknowledge first and write later; reads overlay what is pending.
class Pending : public InPlace {
 public:
  using InPlace::InPlace;
  bool idle() const override { return pending_.empty(); }

 protected:
  using Held = std::shared_ptr<Bytes>;  // its identity tells two writes of equal bytes apart

  Co<bool> read(GuestPtr r) {
    std::map<uint64_t, Held> over;
    for (uint64_t i = 0; i < r->blocks; ++i) {
      if (auto at = pending_.find(r->unit(i)); at != pending_.end()) over[i] = at->second;
    }
    bool ok = true;
    // Straight into the guest's buffer, then overlaid.
    if (over.size() < r->blocks) ok = co_await spread(r, [this](Unit v) { return home(v); });
    for (auto& [i, bytes] : over) std::memcpy(r->memory[i], bytes->data(), kBlock);
    co_return ok;
  }

  void hold(const Guest& r, uint64_t i) { pending_[r.unit(i)] = std::make_shared<Bytes>(oracle::copyOf(r.memory[i])); }

  // Writes adjacent pending blocks home until it works; a clone may carry what a parent long gone carried.
  Co<void> writeHome(std::vector<Unit> blocks, GuestPtr r, std::vector<Key> keys) {
    std::vector<Held> held;
    Copy buffer = blank(blocks.size());
    for (size_t i = 0; i < blocks.size(); ++i) {
      held.push_back(pending_.at(blocks[i]));
      std::memcpy(buffer.memory[i], held[i]->data(), kBlock);
    }
    bool ok = false;
    while (!ok) {
      std::vector<ChildPtr> child{send(SM_OP_WRITE, home(blocks[0]), buffer.memory, blocks.size(), r.get())};
      co_await w.wait(child);
      ok = child[0]->ok();
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      auto at = pending_.find(blocks[i]);
      if (at != pending_.end() && at->second == held[i]) pending_.erase(at);
    }
    release(buffer);
    drop(keys);
  }

  std::map<Unit, Held> pending_;
};

// Payload to the journal, then home, before or after the acknowledgement; both as clones of the parent.
class Journal : public Pending {
 public:
  using Pending::Pending;

 private:
  Co<bool> handle(GuestPtr r) override {
    if (r->op == SM_OP_READ) co_return co_await read(r);
    std::vector<Key> keys = keysOf(*r);
    co_await grab(keys);
    bool ok;
    if (r->op != SM_OP_WRITE) {
      ok = co_await spread(r, [this](Unit v) { return home(v); });
      drop(keys);
      co_return ok;
    }
    const uint64_t slot = w.below(5);
    std::vector<Key> slotKey{{1, {0, slot}}};
    co_await grab(slotKey);
    Io journal = io(SM_OP_WRITE, second() + slot * w.options().largest, r, 0, r->blocks);
    std::vector<ChildPtr> child{journal.child};
    co_await w.wait(child);
    if (journal.finish) journal.finish();
    ok = journal.child->ok();
    if (ok && w.chance(.5)) {
      ok = co_await spread(r, [this](Unit v) { return home(v); });
    } else if (ok) {
      std::vector<Unit> blocks;
      for (uint64_t i = 0; i < r->blocks; ++i) hold(*r, i), blocks.push_back(r->unit(i));
      w.spawn(writeHome(blocks, r, keys));
      keys.clear();
    }
    drop(slotKey);
    drop(keys);
    co_return ok;
  }
};

// Absorbs or passes writes; answers reads from memory or by overlay; reads ahead; a flush writes back, by its clones.
class Cache : public Pending {
 public:
  using Pending::Pending;
  void background() override {
    for (auto& [v, _] : pending_) {
      if (locked_.contains({0, v}) || !w.chance(.5)) continue;
      locked_.insert({0, v});
      w.spawn(writeHome({v}, last_, {{0, v}}));
      return;
    }
  }
  bool idle() const override {
    if (!pending_.empty()) const_cast<Cache*>(this)->background();
    return pending_.empty();
  }

 private:
  Co<bool> handle(GuestPtr r) override {
    if (r->op == SM_OP_READ) {
      bool clean = true;
      for (uint64_t i = 0; i < r->blocks; ++i) clean &= !pending_.contains(r->unit(i));
      if (!clean || r->first == 0 || !w.chance(.3)) co_return co_await read(r);
      Copy ahead = blank(r->blocks + 1);
      std::vector<ChildPtr> child{send(SM_OP_READ, home(r->unit(0)) - 1, ahead.memory, r->blocks + 1, r.get())};
      co_await w.wait(child);
      for (uint64_t i = 0; i < r->blocks; ++i) std::memcpy(r->memory[i], ahead.memory[i + 1], kBlock);
      release(ahead);
      co_return child[0]->ok();
    }
    if (r->op == SM_OP_WRITE && w.chance(.5)) {
      for (uint64_t i = 0; i < r->blocks; ++i) hold(*r, i);
      last_ = r;
      co_return true;
    }
    std::vector<Key> keys = keysOf(*r);
    co_await grab(keys);
    while (true) {
      bool clean = true;
      for (uint64_t i = 0; i < r->blocks; ++i) clean &= !pending_.contains(r->unit(i));
      if (clean) break;
      drop(keys);
      background();
      co_await w.pause();
      co_await grab(keys);
    }
    const bool ok = co_await spread(r, [this](Unit v) { return home(v); });
    drop(keys);
    co_return ok;
  }

 public:
  void submit(const GuestPtr& guest) override {
    if (guest->op == SM_OP_FLUSH && w.chance(.7)) w.spawn(writeBack(guest));
    else InPlace::submit(guest);
  }

 private:
  Co<void> writeBack(GuestPtr r) {
    std::vector<Unit> blocks;
    for (auto& [v, _] : pending_) blocks.push_back(v);
    for (Unit v : blocks) {
      std::vector<Key> key{{0, v}};
      co_await grab(key);
      const std::vector<Unit> one{v};
      if (pending_.contains(v)) co_await writeHome(one, r, key);
      else drop(key);
    }
    w.complete(r, true);
  }

  GuestPtr last_;
};

// Blocks of two: a partial write reads the pair and writes it whole, now or after the acknowledgement.
class Rmw : public Pending {
 public:
  using Pending::Pending;

 private:
  std::vector<Key> pairKeys(const Guest& r) const {
    std::set<Key> keys;
    for (uint64_t i = 0; i < r.blocks; ++i) {
      keys.insert({0, r.unit(i)});
      keys.insert({0, {r.disk, (r.first + i) ^ 1}});
    }
    return {keys.begin(), keys.end()};
  }

  Co<bool> handle(GuestPtr r) override {
    if (r->op == SM_OP_READ) co_return co_await read(r);
    bool ok = true;
    if (r->op != SM_OP_WRITE) {
      const std::vector<Key> keys = pairKeys(*r);
      co_await grab(keys);
      ok = co_await spread(r, [this](Unit v) { return home(v); });
      drop(keys);
      co_return ok;
    }
    std::vector<uint64_t> pairs;
    for (uint64_t b = r->first / 2; b <= (r->first + r->blocks - 1) / 2; ++b) pairs.push_back(b);
    std::shuffle(pairs.begin(), pairs.end(), w.random);
    for (uint64_t b : pairs) {
      const std::vector<Key> keys{{0, {r->disk, 2 * b}}, {0, {r->disk, 2 * b + 1}}};
      co_await grab(keys);
      std::vector<Unit> mine;
      for (const Key& key : keys) {
        if (key.second.block >= r->first && key.second.block < r->first + r->blocks) mine.push_back(key.second);
      }
      if (w.chance(.2)) {
        for (Unit v : mine) hold(*r, v.block - r->first);
        w.spawn(writeHome(mine, r, keys));
        continue;
      }
      Copy buffer = blank(2);
      bool have = true;
      if (mine.size() < 2) {
        std::vector<ChildPtr> child{send(SM_OP_READ, home(keys[0].second), buffer.memory, 2, r.get())};
        co_await w.wait(child);
        have = child[0]->ok();
      }
      Memory memory = buffer.memory;
      const bool copied = w.chance(.5);
      for (Unit v : mine) {
        std::byte* from = r->memory[v.block - r->first];
        if (copied) std::memcpy(memory[v.block % 2], from, kBlock);
        else memory[v.block % 2] = from;
      }
      if (have) {
        std::vector<ChildPtr> child{send(SM_OP_WRITE, home(keys[0].second), memory, 2, r.get())};
        co_await w.wait(child);
        have = child[0]->ok();
      }
      ok &= have;
      release(buffer);
      drop(keys);
    }
    co_return ok;
  }
};

// Transforms: writes from a transformed copy, reads into the guest's own buffer and decodes there.
class Crypt : public InPlace {
 public:
  using InPlace::InPlace;

 private:
  static void transform(std::byte* block) {
    for (uint64_t i = 0; i < kBlock; ++i) block[i] ^= static_cast<std::byte>(0x5a);
  }

  Co<bool> handle(GuestPtr r) override {
    if (r->op == SM_OP_DISCARD) co_return co_await spread(r, [this](Unit v) { return home(v); });
    if (r->op == SM_OP_READ) {
      std::vector<ChildPtr> child{send(SM_OP_READ, home(r->unit(0)), r->memory, r->blocks, r.get())};
      co_await w.wait(child);
      for (std::byte* block : r->memory) transform(block);
      co_return child[0]->ok();
    }
    Copy buffer = blank(r->blocks);
    for (uint64_t i = 0; i < r->blocks; ++i) {
      if (r->op == SM_OP_WRITE) std::memcpy(buffer.memory[i], r->memory[i], kBlock);
      else std::memset(buffer.memory[i], 0, kBlock);
      transform(buffer.memory[i]);
    }
    std::vector<ChildPtr> child{send(SM_OP_WRITE, home(r->unit(0)), buffer.memory, r->blocks, r.get())};
    co_await w.wait(child);
    release(buffer);
    co_return child[0]->ok();
  }
};

// Lets writes wait for each other, and sends those that adjoin as one child, by the name of one of them.
class Merge : public InPlace {
 public:
  using InPlace::InPlace;

 private:
  struct Entry {
    GuestPtr guest;
    bool taken = false, done = false, ok = false;
  };
  using EntryPtr = std::shared_ptr<Entry>;

  Co<bool> handle(GuestPtr r) override {
    if (r->op != SM_OP_WRITE) co_return co_await spread(r, [this](Unit v) { return home(v); });
    EntryPtr mine = std::make_shared<Entry>();
    mine->guest = r;
    queue_.push_back(mine);
    for (uint64_t waits = w.below(8); waits > 0; --waits) co_await w.pause();
    if (mine->taken) {
      while (!mine->done) co_await w.pause();
      co_return mine->ok;
    }
    std::vector<EntryPtr> all{mine};
    mine->taken = true;
    for (bool more = true; more && all.size() < 3;) {
      more = false;
      for (const EntryPtr& other : queue_) {
        const uint64_t end = home(all.back()->guest->unit(0)) + all.back()->guest->blocks;
        if (other->taken || home(other->guest->unit(0)) != end) continue;
        other->taken = more = true;
        all.push_back(other);
        break;
      }
    }
    std::erase_if(queue_, [](const EntryPtr& each) { return each->taken; });
    Memory memory;
    for (const EntryPtr& each : all)
      memory.insert(memory.end(), each->guest->memory.begin(), each->guest->memory.end());
    if (w.chance(copies / 2)) {
      Copy buffer = copy(memory);
      mine->ok = co_await sendAll(all, buffer.memory);
      release(buffer);
    } else {
      mine->ok = co_await sendAll(all, memory);
    }
    for (const EntryPtr& each : all) each->ok = mine->ok, each->done = true;
    co_return mine->ok;
  }

  Co<bool> sendAll(std::vector<EntryPtr> all, Memory memory) {
    const Guest* parent = all[w.below(all.size())]->guest.get();
    std::vector<ChildPtr> child{send(SM_OP_WRITE, home(all[0]->guest->unit(0)), memory, memory.size(), parent)};
    co_await w.wait(child);
    co_return child[0]->ok();
  }

  std::vector<EntryPtr> queue_;
};

}  // namespace

std::unique_ptr<Volume> makeJournal(World& world) { return std::make_unique<Journal>(world); }
std::unique_ptr<Volume> makeCache(World& world) { return std::make_unique<Cache>(world); }
std::unique_ptr<Volume> makeRmw(World& world) { return std::make_unique<Rmw>(world); }
std::unique_ptr<Volume> makeCrypt(World& world) { return std::make_unique<Crypt>(world); }
std::unique_ptr<Volume> makeMerge(World& world) { return std::make_unique<Merge>(world); }

}  // namespace truth
