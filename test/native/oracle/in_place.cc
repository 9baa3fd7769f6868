#include "in_place.h"

namespace truth {

std::vector<std::string> volumeNames() {
  return {"inplace", "mirror", "log", "dedup", "journal", "cache", "rmw", "crypt", "merge", "promote"};
}

std::unique_ptr<Volume> makeVolume(const std::string& name, World& world) {
  if (name == "mirror") return makeMirror(world);
  if (name == "log") return makeLog(world, false);
  if (name == "dedup") return makeLog(world, true);
  if (name == "journal") return makeJournal(world);
  if (name == "cache") return makeCache(world);
  if (name == "rmw") return makeRmw(world);
  if (name == "crypt") return makeCrypt(world);
  if (name == "merge") return makeMerge(world);
  if (name == "promote") return makePromote(world);
  return std::make_unique<InPlace>(world);
}

InPlace::InPlace(World& world) : w(world) {
  passDown = w.chance(.5);
  const double someClones[] = {0, .5, 1, 1}, someCopies[] = {0, 0, .5, 1};
  clones = someClones[w.below(4)];
  copies = someCopies[w.below(4)];
}

Co<void> InPlace::run(GuestPtr r) {
  bool ok;
  if (r->op == SM_OP_FLUSH) ok = co_await flush(r);
  else ok = co_await handle(r);
  w.complete(r, ok);
}

Co<bool> InPlace::flush(GuestPtr r) {
  std::vector<ChildPtr> children;
  for (uint64_t device = 0; device < 2; ++device)
    children.push_back(send(SM_OP_FLUSH, device * second(), {}, 0, r.get()));
  co_await w.wait(children);
  co_return children[0]->ok() && children[1]->ok();
}

Co<bool> InPlace::spread(GuestPtr r, Where where) {
  std::vector<Io> ios;
  const std::vector<Piece> all = pieces(*r);
  for (const Piece& piece : all) {
    if (r->op == SM_OP_DISCARD && !passDown) continue;
    ios.push_back(io(r->op, where(r->unit(piece.at)), r, piece.at, piece.blocks));
    co_await w.pause();
  }
  std::vector<ChildPtr> children;
  for (const Io& each : ios) children.push_back(each.child);
  co_await w.wait(children);
  bool ok = true;
  for (const Io& each : ios) {
    if (each.finish) each.finish();
    ok &= each.child->ok();
  }
  co_return ok;
}

Co<void> InPlace::grab(std::vector<Key> keys) {
  while (std::any_of(keys.begin(), keys.end(), [this](const Key& key) { return locked_.contains(key); }))
    co_await w.pause();
  locked_.insert(keys.begin(), keys.end());
}

void InPlace::drop(const std::vector<Key>& keys) {
  for (const Key& key : keys) locked_.erase(key);
}

std::vector<InPlace::Key> InPlace::keysOf(const Guest& r, int kind) const {
  std::vector<Key> keys;
  for (uint64_t i = 0; i < r.blocks; ++i) keys.push_back({kind, r.unit(i)});
  return keys;
}

ChildPtr InPlace::send(uint8_t op, uint64_t place, const Memory& memory, uint64_t blocks, const Guest* parent) {
  bool serial = parent && w.chance(clones), fields = serial;
  if (parent && w.chance(.1)) (w.chance(.5) ? serial : fields) = w.chance(.5);
  return w.issue(
      op, place, memory, blocks,
      [&](sm_request* child) {
        if (serial) parent->carriers.giveSerial(child);
        if (fields) parent->carriers.giveFields(child);
      },
      w.chance(w.options().loss));
}

InPlace::Io InPlace::io(uint8_t op, uint64_t place, const GuestPtr& r, uint64_t at, uint64_t blocks) {
  if (op != SM_OP_READ && op != SM_OP_WRITE) return {send(op, place, {}, blocks, r.get()), {}};
  Memory own = part(r->memory, at, blocks);
  if (op == SM_OP_READ && place % second() != 0 && w.chance(.05)) {
    // A block too many, which goes where the next overwrites it.
    Memory more{own[0]};
    more.insert(more.end(), own.begin(), own.end());
    return {send(op, place - 1, more, blocks + 1, r.get()), {}};
  }
  if (!w.chance(copies)) return {send(op, place, own, blocks, r.get()), {}};
  Copy bounce = op == SM_OP_WRITE ? copy(own) : blank(blocks);
  return {send(op, place, bounce.memory, blocks, r.get()), [this, op, own, bounce] {
            if (op == SM_OP_READ) {
              for (size_t i = 0; i < own.size(); ++i) std::memcpy(own[i], bounce.memory[i], kBlock);
            }
            release(bounce);
          }};
}

std::vector<InPlace::Piece> InPlace::pieces(const Guest& r) {
  std::vector<Piece> out{{0, 0}};
  for (uint64_t i = 0; i < r.blocks; ++i) {
    if (i > 0 && w.chance(.25)) out.push_back({i, 0});
    ++out.back().blocks;
  }
  std::shuffle(out.begin(), out.end(), w.random);
  return out;
}

InPlace::Copy InPlace::blank(uint64_t blocks) {
  Copy out;
  std::byte* base = w.allocate(&out.slot);
  for (uint64_t i = 0; i < blocks; ++i) out.memory.push_back(base + i * kBlock);
  return out;
}

InPlace::Copy InPlace::copy(const Memory& from) {
  Copy out = blank(from.size());
  for (size_t i = 0; i < from.size(); ++i) std::memcpy(out.memory[i], from[i], kBlock);
  return out;
}

}  // namespace truth
