// Listening unix sockets for Node's own servers: made by the same rules as those of the NBD server.
#include <memory>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/handles.h"
#include "binding/job.h"
#include "nbd/address.h"

namespace sm::binding {
namespace {

// listenUnix(path, layer of a failure): promise of { fd, handle }. The descriptor is the caller's.
Napi::Value listenUnix(const Napi::CallbackInfo& info) {
  const auto file = std::make_shared<nbd::SocketFile>();
  const auto fd = std::make_shared<int>(-1);
  return startJob(
      info.Env(), nullptr,
      [path = textOf(info[0]), layer = textOf(info[1]), file, fd] {
        Failure failure = nbd::listenUnix(path, fd.get(), file.get());
        if (failure) failure.layer = layer;
        return failure;
      },
      [file, fd](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result["fd"] = *fd;
        result["handle"] = wrap(env, file);
        return result;
      });
}

// unlinkUnix(handle): removes the name, if it still names that socket.
void unlinkUnix(const Napi::CallbackInfo& info) { nbd::unlinkUnix(*unwrap<nbd::SocketFile>(info.Env(), info[0])); }

}  // namespace

void addUnixSocket(Napi::Object exports) {
  addFunction<listenUnix>(exports, "listenUnix");
  addFunction<unlinkUnix>(exports, "unlinkUnix");
}

}  // namespace sm::binding
