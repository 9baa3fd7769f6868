// Physical devices for JavaScript.
#include <stratamap/device.h>

#include <algorithm>
#include <memory>

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
        host->devices.push_back(box->device);
        for (Probe* probe : host->probes) {
          if (int status = probe->addDevice(box->device); status < 0) {
            host->note("device " + options.name + " is not watched by the probe: " + errnoName(-status));
          }
        }
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
    if (!used) {
      for (Probe* probe : host->probes) probe->removeDevice(box->device, kDetachTimeout);
    }
    if (Failure failure = host->host->closeDevice(box->device)) return failure;
    box->closed = true;
    std::erase(host->devices, box->device);
    return {};
  });
}

}  // namespace

void addDevice(Napi::Object exports) {
  addFunction<openDevice>(exports, "openDevice");
  addFunction<closeDevice>(exports, "closeDevice");
}

}  // namespace sm::binding
