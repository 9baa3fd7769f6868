#include "native/intercept/kernel_model.h"

#include <iterator>

namespace sm::test {

void KernelModel::step() {
  time_ += kTick;
  const uint64_t what = pick(10);
  const int level = static_cast<int>(pick(kLevels));
  if (what < 5) {
    progress();
  } else if (what < 7) {
    send(level);
  } else if (what < 8) {
    serveLoop();
  } else {
    perform();
  }
}

void KernelModel::disturb() {
  const int level = static_cast<int>(pick(kLevels));
  Level& on = levels_[level];
  const size_t own = on.files.size() - 1;
  const uint64_t what = pick(12);
  if (what < 3 && may_.others) {
    stranger(SM_OP_WRITE, level, own, pick(6), 1 + pick(2));
  } else if (what < 6 && may_.others) {
    stranger(SM_OP_READ, level, kRaw, pick(on.blocks - 4), 1 + pick(4));
  } else if (what < 8 && may_.moves) {
    move(level, level == 0 ? pick(2) : 0, pick(kImage - 2), 1 + pick(2));
  } else if (what < 9 && may_.discards) {
    discardFree(level);
  } else if (what < 10 && may_.others) {
    punch(level, own, pick(6), 2);
  }
}

bool KernelModel::punch(int level, size_t file, uint64_t first, uint64_t blocks) {
  if (!free(level, file, first, blocks)) return false;
  for (uint64_t i = first; i < first + blocks; ++i) drop(level, &levels_[level].files[file].places[i]);
  return true;
}

void KernelModel::tell(BlockIo::Kind kind, const Bio& bio, int level, uint64_t begin, uint64_t end) {
  BlockIo io;
  io.kind = kind;
  io.op = bio.op;
  io.ioprio = bio.priority;
  io.phys = {begin * kBlock, end * kBlock};
  io.time = time_;
  if (kind == BlockIo::kIssue && level == kLevels - 1) return;  // nobody asks for them
  // What the program in the kernel does (block_events.bpf.c).
  if (bio.priority == knownPriority) {
    if (kind == BlockIo::kIssue || bio.op == SM_OP_READ) return;
    const sm_expected_word word =
        sm_expected(devices[level], io.phys.begin / kSector, (io.phys.end - io.phys.begin) / kSector);
    for (const unsigned slot : {sm_expected_slot(word), sm_expected_slot(word) ^ 1}) {
      if (bio.op != SM_OP_WRITE || words[slot] != word) continue;
      words[slot] |= SM_EXPECTED_BEGUN;
      return;
    }
  }
  told.push_back({level, io});
}

uint64_t KernelModel::allocate(int level) {
  Level& on = levels_[level];
  const uint64_t start = pick(on.blocks);
  for (uint64_t i = 0; i < on.blocks; ++i) {
    const uint64_t place = (start + i) % on.blocks;
    if (on.used[place] != 0) continue;
    on.used[place] = 1;
    return place;
  }
  return kHole;
}

void KernelModel::stranger(uint8_t op, int level, size_t file, uint64_t first, uint64_t blocks,
                           std::function<void()> then) {
  auto dio = std::make_unique<Dio>();
  dio->op = op;
  dio->level = level;
  dio->raw = file == kRaw;
  dio->file = file;
  dio->first = first;
  dio->tokens.resize(blocks);
  if (op == SM_OP_WRITE)
    for (uint64_t& token : dio->tokens) token = newToken();
  dio->finished = std::move(then);
  begin(std::move(dio));
}

void KernelModel::move(int level, size_t file, uint64_t first, uint64_t blocks) {
  if (!free(level, file, first, blocks)) return;
  File& of = levels_[level].files[file];
  for (uint64_t i = first; i < first + blocks; ++i)
    if (of.places[i] == kHole) return;
  auto dio = std::make_unique<Dio>();
  dio->op = SM_OP_WRITE;
  dio->level = level;
  dio->file = file;
  dio->first = first;
  dio->exclusive = dio->begun = true;
  for (uint64_t i = first; i < first + blocks; ++i) {
    of.busy[i] = -1;
    dio->tokens.push_back(at(level, of.places[i]));
    dio->places.push_back(allocate(level));
  }
  if (std::find(dio->places.begin(), dio->places.end(), kHole) != dio->places.end()) {
    for (uint64_t& place : dio->places) drop(level, &place);
    for (uint64_t i = first; i < first + blocks; ++i) of.busy[i] = 0;
    return;
  }
  if (chance(70)) {  // else it is in a cache
    for (uint64_t i = first; i < first + blocks; ++i) stranger(SM_OP_READ, level, kRaw, of.places[i], 1);
  }
  begin(std::move(dio));
}

void KernelModel::discardFree(int level) {
  Level& on = levels_[level];
  const uint64_t place = pick(on.blocks);
  if (on.used[place] != 0) return;
  on.used[place] = 1;  // nobody gets it until it is done
  stranger(SM_OP_DISCARD, level, kRaw, place, 1, [this, level, place] { --levels_[level].used[place]; });
}

bool KernelModel::plan(Dio* dio) {
  const uint64_t blocks = dio->tokens.size();
  if (dio->raw) {
    for (uint64_t i = 0; i < blocks; ++i) dio->places.push_back(dio->first + i);
    return true;
  }
  Level& on = levels_[dio->level];
  File& of = on.files[dio->file];
  std::vector<uint64_t> places(of.places.begin() + static_cast<ptrdiff_t>(dio->first),
                               of.places.begin() + static_cast<ptrdiff_t>(dio->first + blocks));
  bool exclusive = false;
  if (dio->op == SM_OP_WRITE) {
    for (const uint64_t place : places) exclusive |= place == kHole || on.used[place] > 1;
  }
  for (uint64_t i = dio->first; i < dio->first + blocks; ++i)
    if (of.busy[i] < 0 || (exclusive && of.busy[i] > 0)) return false;
  if (exclusive) {
    std::vector<uint64_t> fresh;
    for (uint64_t& place : places) {
      if (place != kHole && on.used[place] == 1) continue;
      place = allocate(dio->level);
      if (place != kHole) {
        fresh.push_back(place);
        continue;
      }
      for (uint64_t& each : fresh) drop(dio->level, &each);
      return false;
    }
  }
  for (uint64_t i = dio->first; i < dio->first + blocks; ++i) of.busy[i] = exclusive ? -1 : of.busy[i] + 1;
  dio->exclusive = exclusive;
  dio->places = std::move(places);
  return true;
}

void KernelModel::progress() {
  if (dios_.empty()) return;
  auto each = dios_.begin();
  std::advance(each, static_cast<ptrdiff_t>(pick(dios_.size())));
  Dio& dio = **each;
  if (!dio.begun) {
    if (!plan(&dio)) return;
    dio.begun = true;
  }
  while (dio.cursor < dio.places.size() && dio.places[dio.cursor] == kHole) dio.tokens[dio.cursor++] = 0;
  if (dio.cursor < dio.places.size()) {
    if (dio.mayRetry && dio.cursor > 0) {
      if (dio.outstanding > 0) return;
      dio.mayRetry = false;
      dio.cursor = 0;
      return;
    }
    return startNext(&dio);
  }
  if (dio.outstanding > 0) return;
  if (dio.mayRetry && chance(50)) {
    dio.mayRetry = false;
    dio.cursor = 0;
    return;
  }
  finish(each);
}

void KernelModel::startNext(Dio* dio) {
  uint64_t blocks = 1;
  while (dio->cursor + blocks < dio->places.size() && blocks < 4 &&
         dio->places[dio->cursor + blocks] == dio->places[dio->cursor] + blocks && !chance(30))
    ++blocks;
  const Bio bio{dio->op, dio->places[dio->cursor], blocks, dio->priority, dio, dio->cursor};
  dio->cursor += blocks;
  ++dio->outstanding;
  const uint64_t end = bio.at + blocks;
  Level& on = levels_[dio->level];
  for (Request& request : on.queued) {
    if (!may_.merges || request.bios[0].op != bio.op || request.bios[0].priority != bio.priority || chance(30))
      continue;
    const bool back = request.end == bio.at, front = request.begin == end;
    if (!back && !front) continue;
    (back ? request.end : request.begin) = back ? end : bio.at;
    request.bios.push_back(bio);
    return tell(back ? BlockIo::kBackMerge : BlockIo::kFrontMerge, bio, dio->level, bio.at, end);
  }
  on.queued.push_back({{bio}, time_, bio.at, end});
  tell(BlockIo::kStart, bio, dio->level, bio.at, end);
}

void KernelModel::finish(std::list<std::unique_ptr<Dio>>::iterator which) {
  const std::unique_ptr<Dio> dio = std::move(*which);
  dios_.erase(which);
  if (!dio->raw) {
    File& of = levels_[dio->level].files[dio->file];
    for (uint64_t i = 0; i < dio->places.size(); ++i) {
      uint64_t& place = of.places[dio->first + i];
      if (dio->exclusive && place != dio->places[i]) {
        drop(dio->level, &place);
        place = dio->places[i];
      }
      int& busy = of.busy[dio->first + i];
      busy = dio->exclusive ? 0 : busy - 1;
    }
  }
  if (dio->finished) dio->finished();
}

void KernelModel::send(int level) {
  Level& on = levels_[level];
  if (on.queued.empty()) return;
  auto which = on.queued.begin();
  std::advance(which, static_cast<ptrdiff_t>(pick(on.queued.size())));
  tell(BlockIo::kIssue, which->bios[0], level, which->begin, which->end);
  on.sent.splice(on.sent.end(), on.queued, which);
  if (level < kLevels - 1) loop_.push_back(&on.sent.back());
}

void KernelModel::serveLoop() {
  if (loop_.empty()) return;
  Request* request = loop_.front();
  loop_.pop_front();
  const Bio& first = request->bios[0];
  if (first.op == SM_OP_DISCARD) {
    punch(1, 0, request->begin, request->end - request->begin);
    return landed(0, request);
  }
  auto dio = std::make_unique<Dio>();
  dio->op = first.op;
  dio->level = 1;
  dio->first = request->begin;
  dio->priority = first.priority;
  dio->tokens.resize(request->end - request->begin);
  if (first.op == SM_OP_WRITE) {
    for (const Bio& bio : request->bios)
      for (uint64_t i = 0; i < bio.blocks; ++i)
        dio->tokens[bio.at + i - request->begin] = bio.dio->tokens[bio.from + i];
  }
  Dio* const raw = dio.get();
  raw->finished = [this, request, raw] {
    for (const Bio& bio : request->bios) {
      for (uint64_t i = 0; bio.op == SM_OP_READ && i < bio.blocks; ++i)
        bio.dio->tokens[bio.from + i] = raw->tokens[bio.at + i - request->begin];
    }
    landed(0, request);
  };
  // All of its pieces have started before the next one's do.
  dio->mayRetry = false;
  if (!plan(raw)) return loop_.push_front(request);
  raw->begun = true;
  while (true) {
    while (raw->cursor < raw->places.size() && raw->places[raw->cursor] == kHole) raw->tokens[raw->cursor++] = 0;
    if (raw->cursor == raw->places.size()) break;
    time_ += kTick;
    startNext(raw);
  }
  dios_.push_back(std::move(dio));
}

void KernelModel::perform() {
  Level& on = levels_[kLevels - 1];
  if (on.sent.empty()) return;
  auto which = on.sent.begin();
  std::advance(which, static_cast<ptrdiff_t>(pick(on.sent.size())));
  for (const Bio& bio : which->bios) {
    for (uint64_t i = 0; i < bio.blocks; ++i) {
      if (bio.op == SM_OP_READ) bio.dio->tokens[bio.from + i] = tokens_[bio.at + i];
      if (bio.op == SM_OP_WRITE) tokens_[bio.at + i] = bio.dio->tokens[bio.from + i];
      if (bio.op == SM_OP_DISCARD) tokens_[bio.at + i] = 0;
    }
  }
  landed(kLevels - 1, &*which);
}

void KernelModel::landed(int level, Request* request) {
  for (const Bio& bio : request->bios) --bio.dio->outstanding;
  levels_[level].sent.remove_if([request](const Request& each) { return &each == request; });
}

}  // namespace sm::test
