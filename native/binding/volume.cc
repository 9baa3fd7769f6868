// Volumes for JavaScript.
#include <algorithm>
#include <memory>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/job.h"

namespace sm::binding {
namespace {

using DeviceBoxes = std::vector<std::shared_ptr<DeviceBox>>;

DeviceBoxes devicesOf(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  DeviceBoxes boxes;
  for (uint32_t i = 0; i < array.Length(); ++i) boxes.push_back(unwrap<DeviceBox>(value.Env(), array.Get(i)));
  return boxes;
}

// [key, value, key, value, …]
Options optionsOf(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  Options options;
  for (uint32_t i = 0; i + 1 < array.Length(); i += 2) {
    options.emplace_back(textOf(array.Get(i)), textOf(array.Get(i + 1)));
  }
  return options;
}

// Under `busy`: a device may have been closed between the call and its turn.
Failure resolve(const DeviceBoxes& boxes, std::vector<sm_device*>* devices) {
  for (const auto& box : boxes) {
    if (box->closed) {
      Failure failure = closedFailure("device", "device " + box->name);
      failure.device = box->name;
      return failure;
    }
    devices->push_back(box->device);
  }
  return {};
}

// formatVolume(host, type, devices, options, force): promise.
Napi::Value formatVolume(const Napi::CallbackInfo& info) {
  const auto host = unwrap<HostBox>(info.Env(), info[0]);
  return startJob(info.Env(), host,
                  [host, type = textOf(info[1]), boxes = devicesOf(info[2]), options = optionsOf(info[3]),
                   force = flagOf(info[4])]() -> Failure {
                    std::vector<sm_device*> devices;
                    if (Failure failure = resolve(boxes, &devices)) return failure;
                    return host->host->formatVolume(type, devices, options, force);
                  });
}

// openVolume(host, name, type, devices, options): promise of the volume's handle.
Napi::Value openVolume(const Napi::CallbackInfo& info) {
  const auto host = unwrap<HostBox>(info.Env(), info[0]);
  auto box = std::make_shared<VolumeBox>(VolumeBox{.host = host, .name = textOf(info[1])});
  return startJob(
      info.Env(), host,
      [host, box, type = textOf(info[2]), boxes = devicesOf(info[3]), options = optionsOf(info[4])]() -> Failure {
        std::vector<sm_device*> devices;
        if (Failure failure = resolve(boxes, &devices)) return failure;
        if (Failure failure = host->host->openVolume(box->name, type, devices, options, &box->volume)) return failure;
        host->volumes.push_back(box->volume);
        return {};
      },
      [box](Napi::Env env) { return wrap(env, box); });
}

Failure closedVolume(const VolumeBox& box) { return closedFailure("volume", "volume " + box.name); }

// closeVolume(volume): promise. ERR_STRATAMAP_BUSY while a disk of it is open: then it stays as it is.
Napi::Value closeVolume(const Napi::CallbackInfo& info) {
  const auto box = unwrap<VolumeBox>(info.Env(), info[0]);
  return startJob(info.Env(), box->host, [box]() -> Failure {
    HostBox& host = *box->host;
    if (box->closed) return {};
    Volume* const volume = box->volume;
    Failure failure = host.host->closeVolume(volume);
    if (failure.code == "ERR_STRATAMAP_BUSY") return failure;
    box->closed = true;  // also where its metadata could not be written
    std::erase(host.volumes, volume);
    return failure;
  });
}

// listDisks(volume): promise of [{ vm, name, size }].
Napi::Value listDisks(const Napi::CallbackInfo& info) {
  const auto box = unwrap<VolumeBox>(info.Env(), info[0]);
  auto found = std::make_shared<std::vector<DiskInfo>>();
  return startJob(
      info.Env(), box->host,
      [box, found]() -> Failure { return box->closed ? closedVolume(*box) : box->volume->listDisks(found.get()); },
      [found](Napi::Env env) {
        Napi::Array disks = Napi::Array::New(env, found->size());
        for (uint32_t i = 0; i < found->size(); ++i) {
          Napi::Object disk = Napi::Object::New(env);
          disk["vm"] = (*found)[i].vm;
          disk["name"] = (*found)[i].name;
          disk["size"] = double((*found)[i].bytes);
          disks[i] = disk;
        }
        return disks;
      });
}

// deleteDisk(volume, vm, name): promise.
Napi::Value deleteDisk(const Napi::CallbackInfo& info) {
  const auto box = unwrap<VolumeBox>(info.Env(), info[0]);
  return startJob(info.Env(), box->host, [box, vm = textOf(info[1]), name = textOf(info[2])]() -> Failure {
    if (box->closed) return closedVolume(*box);
    if (Failure failure = box->volume->deleteDisk(vm, name)) return failure;
    for (Probe* probe : box->host->probes) probe->forget({vm, name}, 0);
    return {};
  });
}

}  // namespace

void addVolume(Napi::Object exports) {
  addFunction<formatVolume>(exports, "formatVolume");
  addFunction<openVolume>(exports, "openVolume");
  addFunction<closeVolume>(exports, "closeVolume");
  addFunction<listDisks>(exports, "listDisks");
  addFunction<deleteDisk>(exports, "deleteDisk");
}

}  // namespace sm::binding
