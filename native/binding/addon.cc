// The addon's entry: one Environment for each JavaScript environment, and the table of functions that lib/native.ts
// declares.
#include "binding/addon.h"

#include "binding/environment.h"

namespace sm::binding {
namespace {

void setErrorFactory(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).makeError = Napi::Persistent(info[0].As<Napi::Function>());
}

void shutDown(const Napi::CallbackInfo& info) { Environment::of(info.Env()).shutDown(); }

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  auto* environment = new Environment(env);
  env.SetInstanceData(environment);
  // Hooks run last added first: this one comes before the mailbox's own end, and leaves no thread that could call it.
  env.AddCleanupHook([environment] { environment->shutDown(); });
  addFunction<setErrorFactory>(exports, "setErrorFactory");
  addFunction<shutDown>(exports, "shutDown");
  addLoop(exports);
  addHost(exports);
  addDevice(exports);
  addVolume(exports);
  addDisk(exports);
  addIo(exports);
  addWorkload(exports);
  addMap(exports);
  addProbe(exports);
  addPolicy(exports);
  addNbd(exports);
  addReplay(exports);
  addUnixSocket(exports);
  addFiemap(exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(NODE_GYP_MODULE_NAME, initialise)

}  // namespace sm::binding
