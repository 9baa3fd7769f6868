// Hosts for JavaScript.
#include "host/host.h"

#include <memory>
#include <utility>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/environment.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/job.h"

namespace sm::binding {
namespace {

// openHost(threads, requests, bufferBytes, uring): promise of the host's handle.
Napi::Value openHost(const Napi::CallbackInfo& info) {
  const HostOptions options{.threads = uint32_t(numberOf(info[0])),
                            .requests = uint32_t(numberOf(info[1])),
                            .bufferBytes = numberOf(info[2]),
                            .uring = flagOf(info[3])};
  auto opened = std::make_shared<std::unique_ptr<Host>>();
  return startJob(
      info.Env(), nullptr, [options, opened] { return Host::open(options, opened.get()); },
      [opened](Napi::Env env) {
        return wrap(env, std::make_shared<HostBox>(Environment::of(env), std::move(*opened)));
      });
}

// hostNotices(host): strings. Empty when it is closed.
Napi::Value hostNotices(const Napi::CallbackInfo& info) {
  const auto& host = unwrap<HostBox>(info.Env(), info[0]);
  if (!host->open()) return toStrings(info.Env(), {});
  std::vector<std::string> notices = host->host->notices();
  for (std::string& note : host->notes()) notices.push_back(std::move(note));
  return toStrings(info.Env(), notices);
}

// closeHost(host): promise. Disks, volumes and devices that are still open are closed with it.
Napi::Value closeHost(const Napi::CallbackInfo& info) {
  const auto host = unwrap<HostBox>(info.Env(), info[0]);
  return startJob(info.Env(), host, [host] { return host->closeUnderLock(); });
}

Napi::Value volumeTypes(const Napi::CallbackInfo& info) { return toStrings(info.Env(), sm::volumeTypes()); }
Napi::Value deviceDrivers(const Napi::CallbackInfo& info) { return toStrings(info.Env(), sm::deviceDrivers()); }

}  // namespace

void addHost(Napi::Object exports) {
  addFunction<openHost>(exports, "openHost");
  addFunction<hostNotices>(exports, "hostNotices");
  addFunction<closeHost>(exports, "closeHost");
  addFunction<volumeTypes>(exports, "volumeTypes");
  addFunction<deviceDrivers>(exports, "deviceDrivers");
}

}  // namespace sm::binding
