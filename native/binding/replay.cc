// Journals of recording devices for JavaScript.
#include "devices/replay.h"

#include <memory>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/job.h"

namespace sm::binding {
namespace {

// readJournal(path): promise of { size, blockSize, from, to, changes, flushes, tornBytes }.
Napi::Value readJournal(const Napi::CallbackInfo& info) {
  const std::string path = textOf(info[0]);
  auto facts = std::make_shared<JournalFacts>();
  return startJob(
      info.Env(), nullptr,
      [path, facts]() -> Failure {
        std::unique_ptr<Journal> journal;
        if (Failure failure = Journal::open(path, &journal)) return failure;
        *facts = journal->facts();
        return {};
      },
      [facts](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result["size"] = double(facts->bytes);
        result["blockSize"] = facts->blockSize;
        result["from"] = double(facts->from);
        result["to"] = double(facts->to);
        result["changes"] = double(facts->changes);
        result["flushes"] = double(facts->flushes);
        result["tornBytes"] = double(facts->tornBytes);
        return result;
      });
}

// replayCrash(path, at, seed, into): promise.
Napi::Value replayCrash(const Napi::CallbackInfo& info) {
  const std::string path = textOf(info[0]), into = textOf(info[3]);
  const uint64_t at = numberOf(info[1]), seed = numberOf(info[2]);
  return startJob(info.Env(), nullptr, [path, at, seed, into]() -> Failure {
    std::unique_ptr<Journal> journal;
    if (Failure failure = Journal::open(path, &journal)) return failure;
    return journal->crash(at, seed, into);
  });
}

}  // namespace

void addReplay(Napi::Object exports) {
  addFunction<readJournal>(exports, "readJournal");
  addFunction<replayCrash>(exports, "replayCrash");
}

}  // namespace sm::binding
