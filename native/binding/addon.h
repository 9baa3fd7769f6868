// Registration: each file of the binding adds its functions to the addon's exports.
#pragma once

#include "binding/node_api.h"

namespace sm::binding {

template <auto kFunction>
void addFunction(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<kFunction>(exports.Env(), name));
}

void addLoop(Napi::Object exports);
void addHost(Napi::Object exports);
void addDevice(Napi::Object exports);
void addVolume(Napi::Object exports);
void addDisk(Napi::Object exports);
void addIo(Napi::Object exports);
void addWorkload(Napi::Object exports);
void addMap(Napi::Object exports);
void addProbe(Napi::Object exports);
void addPolicy(Napi::Object exports);
void addNbd(Napi::Object exports);
void addReplay(Napi::Object exports);
void addUnixSocket(Napi::Object exports);
void addFiemap(Napi::Object exports);

}  // namespace sm::binding
