#include "cell.h"

#include "load.h"
#include "stack.h"
#include "truth.h"

namespace conformance {

namespace {

constexpr uint64_t kRounds = 4;

void add(Share* sum, const Share& share) {
  sum->of += share.of;
  sum->mapped += share.mapped;
  sum->moving += share.moving;
  sum->small += share.small;
  sum->smallMapped += share.smallMapped;
  sum->fewPlaces += share.fewPlaces;
}

void judge(Stack& stack, const char* what, const Share& share, Recall recall, const VolumeKind& volume) {
  uint64_t foretold = 0;
  switch (recall) {
    case Recall::kSome: {
      const double ratio = static_cast<double>(share.mapped) / static_cast<double>(share.of);
      if (ratio >= volume.least && ratio <= volume.most) return;
      return stack.complain(std::string("of what was ") + what + " a share of " + std::to_string(ratio) +
                            " is mapped; foretold were " + std::to_string(volume.least) + " to " +
                            std::to_string(volume.most));
    }
    case Recall::kNone:
      break;
    case Recall::kAll:
      foretold = share.of;
      break;
    case Recall::kWhole:
      foretold = share.of - share.small;
      if (share.smallMapped > 0) stack.complain(std::string("small requests are mapped that were ") + what);
  }
  if (share.mapped == foretold) return;
  stack.complain(std::string("of ") + std::to_string(share.of) + " bytes that were " + what + " " +
                 std::to_string(share.mapped) + " are mapped; foretold were " + std::to_string(foretold));
}

}  // namespace

Outcome run(const Cell& cell) {
  Outcome outcome;
  Stack stack(cell, &outcome);
  if (!stack.open()) return outcome;
  Load load(stack, cell.depth, cell.seed);

  // What writes teach.
  std::vector<std::vector<Span>> tiles;
  if (!stack.attach()) return outcome;
  for (uint32_t disk = 0; disk < kDisks; ++disk) {
    tiles.push_back(load.tiles());
    load.each(disk, tiles[disk], SM_OP_WRITE);
  }
  load.each(0, {{0, 0}}, SM_OP_FLUSH);
  for (uint32_t disk = 0; disk < kDisks; ++disk) add(&outcome.writes, shareOf(stack, disk, tiles[disk]));
  judge(stack, "written", outcome.writes, cell.volume.writes.of(cell.association), cell.volume);
  if (outcome.writes.fewPlaces > 0 && cell.volume.writes.of(cell.association) == Recall::kAll) {
    stack.complain(std::to_string(outcome.writes.fewPlaces) + " bytes have fewer places than the volume gives them");
  }
  const sm::Ledger ledger = stack.map().ledger();
  for (int i = 0; i < sm::kUnmappedReasons; ++i) {
    if (ledger.unmapped[i].bytes > 0) outcome.unmapped.push_back({sm::kUnmappedNames[i], ledger.unmapped[i].bytes});
  }
  compareMap(stack);
  stack.checkLedger();
  stack.detach();

  // What reads teach, with nothing known before.
  if (!stack.attach()) return outcome;
  for (uint32_t disk = 0; disk < kDisks; ++disk) {
    load.each(disk, tiles[disk], SM_OP_READ);
    add(&outcome.reads, shareOf(stack, disk, tiles[disk]));
  }
  judge(stack, "read", outcome.reads, cell.volume.reads.of(cell.association), cell.volume);
  compareMap(stack);

  // Whatever comes; in the last rounds devices fail, too.
  for (uint64_t round = 0; round < kRounds; ++round) {
    const bool failing = round >= kRounds / 2;
    const uint64_t before = load.failures();
    if (failing) stack.beginFaults(cell.seed + round);
    load.chaos(100 + 2 * cell.depth);
    stack.endFaults();
    if (!failing && load.failures() != before) stack.complain("requests fail without a reason");
    outcome.failures += load.failures() - before;
    compareMap(stack);
    // What overlapped is certain again when it has been read.
    Share again;
    for (uint32_t disk = 0; disk < kDisks; ++disk) {
      load.each(disk, tiles[disk], SM_OP_READ);
      add(&again, shareOf(stack, disk, tiles[disk]));
    }
    if (cell.volume.placesAll && cell.association != "content") {
      judge(stack, "read again", again, cell.volume.reads.of(cell.association), cell.volume);
    }
    compareMap(stack);
  }
  stack.checkLedger();
  return outcome;
}

}  // namespace conformance
