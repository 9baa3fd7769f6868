// Loop devices for JavaScript.
#include "sys/loop.h"

#include <cerrno>
#include <memory>
#include <utility>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/job.h"

namespace sm::binding {
namespace {

Failure loopFailure(int status, std::string what, const std::string& device) {
  Failure failure = failed(-status, "loop", std::move(what), status == -EBUSY ? "ERR_STRATAMAP_BUSY" : nullptr);
  failure.device = device;
  return failure;
}

// attachLoop(file, directIo, readOnly, autoclear, blockSize): promise of { handle, path, directIo }.
Napi::Value attachLoop(const Napi::CallbackInfo& info) {
  const LoopOptions options{.file = textOf(info[0]),
                            .directIo = flagOf(info[1]),
                            .readOnly = flagOf(info[2]),
                            .autoclear = flagOf(info[3]),
                            .blockSize = uint32_t(numberOf(info[4]))};
  auto loop = std::make_shared<LoopDevice>();
  return startJob(
      info.Env(), nullptr,
      [options, loop]() -> Failure {
        std::string what;
        const int status = sm::loopAttach(options, loop.get(), &what);
        return status < 0 ? loopFailure(status, std::move(what), options.file) : Failure{};
      },
      [loop](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result["handle"] = wrap(env, loop);
        result["path"] = loop->path;
        result["directIo"] = loop->directIo;
        return result;
      });
}

Napi::Value detachLoop(const Napi::CallbackInfo& info) {
  auto loop = unwrap<LoopDevice>(info.Env(), info[0]);
  return startJob(info.Env(), nullptr, [loop]() -> Failure {
    std::string what;
    const int status = sm::loopDetach(loop.get(), &what);
    return status < 0 ? loopFailure(status, std::move(what), loop->path) : Failure{};
  });
}

}  // namespace

void addLoop(Napi::Object exports) {
  addFunction<attachLoop>(exports, "attachLoop");
  addFunction<detachLoop>(exports, "detachLoop");
}

}  // namespace sm::binding
