// Virtual disks for JavaScript: everything but their I/O, which is in io.cc.
#include <algorithm>
#include <memory>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/job.h"
#include "binding/nbd.h"

namespace sm::binding {
namespace {

Napi::Promise open(Napi::Env env, const std::shared_ptr<VolumeBox>& volume, const std::string& vm,
                   const std::string& name, std::function<Failure(Volume*, VirtualDisk**)> how) {
  auto box = std::make_shared<DiskBox>(DiskBox{.volume = volume, .vm = vm, .name = name});
  auto devices = std::make_shared<std::vector<std::string>>();
  return startJob(
      env, volume->host,
      [volume, box, devices, how = std::move(how)]() -> Failure {
        if (volume->closed) return closedFailure("volume", "volume " + volume->name);
        if (Failure failure = how(volume->volume, &box->disk)) return failure;
        volume->host->disks.push_back(box->disk);
        for (sm_device* device : volume->volume->ownDevices(box->disk)) {
          devices->emplace_back(device->name);
          volume->host->addDevice(device);
        }
        for (Probe* probe : volume->host->probes) {
          if (int status = probe->addDisk(box->disk->contract()); status < 0) {
            volume->host->note("disk " + box->vm + "/" + box->name +
                               " is not watched by the probe: " + errnoName(-status));
          }
        }
        for (const auto& server : volume->host->servers) {
          if (!server->everyDisk) continue;
          if (Failure failure = server->add(*box->disk)) volume->host->note(failure.message);
        }
        return {};
      },
      [box, devices](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result["handle"] = wrap(env, box);
        result["size"] = double(box->disk->bytes());
        result["blockSize"] = box->disk->contract()->block_size;
        result["devices"] = toStrings(env, *devices);
        return result;
      });
}

// createDisk(volume, vm, name, size): promise of { handle, size, blockSize, devices }.
Napi::Value createDisk(const Napi::CallbackInfo& info) {
  const std::string vm = textOf(info[1]), name = textOf(info[2]);
  return open(info.Env(), unwrap<VolumeBox>(info.Env(), info[0]), vm, name,
              [vm, name, bytes = numberOf(info[3])](Volume* volume, VirtualDisk** disk) {
                return volume->createDisk(vm, name, bytes, disk);
              });
}

// openDisk(volume, vm, name): as createDisk.
Napi::Value openDisk(const Napi::CallbackInfo& info) {
  const std::string vm = textOf(info[1]), name = textOf(info[2]);
  return open(info.Env(), unwrap<VolumeBox>(info.Env(), info[0]), vm, name,
              [vm, name](Volume* volume, VirtualDisk** disk) { return volume->openDisk(vm, name, disk); });
}

// resizeDisk(disk, size): promise of the new size.
Napi::Value resizeDisk(const Napi::CallbackInfo& info) {
  const auto box = unwrap<DiskBox>(info.Env(), info[0]);
  const auto size = std::make_shared<uint64_t>(numberOf(info[1]));
  return startJob(
      info.Env(), box->volume->host,
      [box, size]() -> Failure {
        if (box->closed) return closedFailure("disk", "disk " + box->vm + "/" + box->name);
        HostBox& host = *box->volume->host;
        Volume& volume = *box->volume->volume;
        for (sm_device* device : volume.ownDevices(box->disk)) host.removeDevice(device);
        const Failure failure = volume.resizeDisk(box->disk, *size);
        for (sm_device* device : volume.ownDevices(box->disk)) host.addDevice(device);
        if (failure) return failure;
        *size = box->disk->bytes();
        for (Probe* probe : host.probes) probe->forget({box->vm, box->name}, *size);
        return {};
      },
      [size](Napi::Env env) { return Napi::Number::New(env, double(*size)); });
}

// closeDisk(disk): promise. New I/O is refused from now on; what was accepted before ends first, workloads are stopped.
Napi::Value closeDisk(const Napi::CallbackInfo& info) {
  const auto box = unwrap<DiskBox>(info.Env(), info[0]);
  const auto host = box->volume->host;
  box->closed = true;
  for (Guest* guest : host->guests) {
    if (guest->disk == box.get()) guest->stop();
  }
  auto* job = new Job(info.Env(), host, [box, host]() -> Failure {
    if (!box->disk) return {};
    for (sm_device* device : box->volume->volume->ownDevices(box->disk)) host->removeDevice(device);
    for (const auto& server : host->servers) server->remove(*box->disk, kDetachTimeout);
    for (Probe* probe : host->probes) probe->removeDisk(box->disk->contract(), kDetachTimeout);
    VirtualDisk* const disk = box->disk;
    if (Failure failure = box->volume->volume->closeDisk(disk)) return failure;
    std::erase(host->disks, disk);
    box->disk = nullptr;
    return {};
  });
  const Napi::Promise promise = job->promise();
  if (box->pending) {
    box->whenIdle = [host, job] { host->enqueue(job); };
  } else {
    host->enqueue(job);
  }
  return promise;
}

}  // namespace

void addDisk(Napi::Object exports) {
  addFunction<createDisk>(exports, "createDisk");
  addFunction<openDisk>(exports, "openDisk");
  addFunction<resizeDisk>(exports, "resizeDisk");
  addFunction<closeDisk>(exports, "closeDisk");
}

}  // namespace sm::binding
