// Physical devices for JavaScript.
#include <stratamap/device.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/job.h"

namespace sm::binding {
namespace {

Napi::Object describe(Napi::Env env, const DeviceInfo& device) {
  Napi::Object info = Napi::Object::New(env);
  info["path"] = device.path;
  info["driver"] = device.driver;
  info["size"] = double(device.bytes);
  info["blockSize"] = device.blockSize;
  info["direct"] = device.direct;
  info["shared"] = device.shared;
  info["readOnly"] = device.readOnly;
  info["discard"] = device.discard;
  info["journal"] = device.journal;
  return info;
}

// openDevice(host, name, path, driver, shared, readOnly, size, direct, journal): promise of { handle, info }.
Napi::Value openDevice(const Napi::CallbackInfo& info) {
  const auto host = unwrap<HostBox>(info.Env(), info[0]);
  const DeviceOptions options{.name = textOf(info[1]),
                              .path = textOf(info[2]),
                              .driver = textOf(info[3]),
                              .shared = flagOf(info[4]),
                              .readOnly = flagOf(info[5]),
                              .bytes = numberOf(info[6]),
                              .direct = flagOf(info[7]),
                              .journal = textOf(info[8])};
  auto box = std::make_shared<DeviceBox>(DeviceBox{.host = host, .name = options.name});
  auto details = std::make_shared<DeviceInfo>();
  return startJob(
      info.Env(), host,
      [host, options, box, details]() -> Failure {
        if (Failure failure = host->host->openDevice(options, &box->device)) return failure;
        *details = host->host->info(box->device);
        host->addDevice(box->device);
        return {};
      },
      [box, details](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result["handle"] = wrap(env, box);
        result["info"] = describe(env, *details);
        return result;
      });
}

// closeDevice(device): promise. ERR_STRATAMAP_BUSY while a volume uses it: then it stays as it is.
Napi::Value closeDevice(const Napi::CallbackInfo& info) {
  const auto box = unwrap<DeviceBox>(info.Env(), info[0]);
  const auto host = box->host;
  return startJob(info.Env(), host, [host, box]() -> Failure {
    if (box->closed) return {};
    const bool used = std::any_of(host->volumes.begin(), host->volumes.end(), [&](Volume* volume) {
      const auto& devices = volume->devices();
      return std::find(devices.begin(), devices.end(), box->device) != devices.end();
    });
    if (!used) host->removeDevice(box->device);
    if (Failure failure = host->host->closeDevice(box->device)) return failure;
    box->closed = true;
    return {};
  });
}

// deviceInterposers(device): names, top first. Not after the device is closed.
Napi::Value deviceInterposers(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto& box = unwrap<DeviceBox>(env, info[0]);
  Napi::Array names = Napi::Array::New(env);
  if (!box->host->open()) return names;
  for (const char* name : DispatchChain::of(box->device).names()) names.Set(names.Length(), name);
  return names;
}

// reorderDevice(device, handles, probes): promise. The handles of its interposers, top first; which are probes'.
Napi::Value reorderDevice(const Napi::CallbackInfo& info) {
  const auto box = unwrap<DeviceBox>(info.Env(), info[0]);
  const auto handles = info[1].As<Napi::Array>(), probes = info[2].As<Napi::Array>();
  using Member = std::function<Interposer*(sm_device*)>;
  std::vector<Member> members;
  for (uint32_t i = 0; i < handles.Length(); ++i) {
    const Napi::Value handle = handles.Get(i);
    if (flagOf(probes.Get(i))) {
      const HostBox* host;
      members.push_back([probe = probeOf(info.Env(), handle, &host)](sm_device* device) {
        return probe ? probe->on(device) : nullptr;
      });
    } else {
      members.push_back(
          [policy = unwrap<PolicyBox>(info.Env(), handle)](sm_device* device) { return policy->policy->on(device); });
    }
  }
  return startJob(info.Env(), box->host, [box, members = std::move(members)]() -> Failure {
    if (box->closed) return closedFailure("device", "device " + box->name);
    std::lock_guard lock(box->host->chains);
    std::vector<Interposer*> order;
    for (const Member& member : members) order.push_back(member(box->device));
    if (DispatchChain::of(box->device).order(box->host->host->stack(), order) == 0) return {};
    Failure failure = failed(EINVAL, "device",
                             "the order of device " + box->name + " names " + std::to_string(order.size()) +
                                 " interposers, and not each of those that are in it once: see device.interposers",
                             "ERR_STRATAMAP_ORDER");
    failure.device = box->name;
    return failure;
  });
}

}  // namespace

void addDevice(Napi::Object exports) {
  addFunction<openDevice>(exports, "openDevice");
  addFunction<closeDevice>(exports, "closeDevice");
  addFunction<deviceInterposers>(exports, "deviceInterposers");
  addFunction<reorderDevice>(exports, "reorderDevice");
}

}  // namespace sm::binding
