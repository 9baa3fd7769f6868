// Address maps for JavaScript. Answers go up as flat arrays of doubles (every quantity here is exact below 2^53), which
// lib/map.ts turns into objects: one allocation for each answer, not five for each extent.
#include <algorithm>
#include <chrono>
#include <memory>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/environment.h"
#include "binding/handles.h"
#include "binding/job.h"
#include "host/failures.h"
#include "map/address_map.h"

namespace sm::binding {
namespace {

constexpr uint32_t kMoving = 4, kShared = 8;  // beside a State in one word; lib/map.ts knows them

double flagsOf(State state, bool moving, bool shared) {
  return double(uint32_t(state) | (moving ? kMoving : 0) | (shared ? kShared : 0));
}

Napi::Value toArray(Napi::Env env, const std::vector<double>& words) {
  auto array = Napi::Float64Array::New(env, words.size());
  std::copy(words.begin(), words.end(), array.Data());
  return {env, array};
}

// diskOffset, length, flags, count of places, then device and offset for each.
Napi::Value toArray(Napi::Env env, const std::vector<VirtualExtent>& extents) {
  std::vector<double> words;
  words.reserve(extents.size() * 6);
  for (const VirtualExtent& extent : extents) {
    words.insert(words.end(), {double(extent.diskOffset), double(extent.length),
                               flagsOf(extent.state, extent.moving, extent.shared), double(extent.places.size())});
    for (const Place& place : extent.places) words.insert(words.end(), {double(place.device), double(place.offset)});
  }
  return toArray(env, words);
}

const std::shared_ptr<AddressMap>& mapOf(const Napi::CallbackInfo& info) {
  return unwrap<MapBox>(info.Env(), info[0])->map;
}

// openMap(): a map in memory alone.
Napi::Value openMap(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return wrap(env, std::make_shared<MapBox>(Environment::of(env), std::make_shared<AddressMap>(), nullptr));
}

Failure toFailure(const StoreFailure& failure) {
  return failure ? failed(failure.error, "map", failure.message, failure.code) : Failure{};
}

// openStoredMap(path, interval in ms): promise of the map's handle.
Napi::Value openStoredMap(const Napi::CallbackInfo& info) {
  const auto map = std::make_shared<AddressMap>();
  const auto store = std::make_shared<std::unique_ptr<MapStore>>();
  const MapStore::Options options{.path = textOf(info[0]), .interval = std::chrono::milliseconds(numberOf(info[1]))};
  return startJob(
      info.Env(), nullptr, [=] { return toFailure(MapStore::open(options, map, store.get())); },
      [=](Napi::Env env) {
        return wrap(env, std::make_shared<MapBox>(Environment::of(env), map, std::shared_ptr(std::move(*store))));
      });
}

// flushMap(map), closeMap(map): promises, in the order of the calls. Of a stored map. mapNotices(map): strings.
Napi::Value flushMap(const Napi::CallbackInfo& info) {
  const auto box = unwrap<MapBox>(info.Env(), info[0]);
  return startInOrder(info.Env(), box, [box] { return toFailure(box->store->flush()); });
}

Napi::Value closeMap(const Napi::CallbackInfo& info) {
  const auto box = unwrap<MapBox>(info.Env(), info[0]);
  return startInOrder(info.Env(), box, [box] { return toFailure(box->store->close()); });
}

Napi::Value mapNotices(const Napi::CallbackInfo& info) {
  return toStrings(info.Env(), unwrap<MapBox>(info.Env(), info[0])->store->notices());
}

DiskKey diskOf(const AddressMap& map, const Napi::CallbackInfo& info) {
  return map.findDisk({textOf(info[1]), textOf(info[2])});
}

// mapLocate(map, vm, disk, offset, length)
Napi::Value mapLocate(const Napi::CallbackInfo& info) {
  const auto& map = mapOf(info);
  const DiskKey disk = diskOf(*map, info);
  const uint64_t offset = numberOf(info[3]), length = numberOf(info[4]);
  if (disk == kNoKey) {
    return toArray(info.Env(), std::vector<VirtualExtent>{{.diskOffset = offset, .length = length}});
  }
  return toArray(info.Env(), map->locate(disk, offset, length));
}

// mapExtents(map, vm, disk, from, limit)
Napi::Value mapExtents(const Napi::CallbackInfo& info) {
  const auto& map = mapOf(info);
  const DiskKey disk = diskOf(*map, info);
  if (disk == kNoKey) return toArray(info.Env(), std::vector<double>());
  return toArray(info.Env(), map->extents(disk, numberOf(info[3]), size_t(numberOf(info[4]))));
}

// mapOwners(map, device, offset, length): offset, length, flags, disk, diskOffset for each.
Napi::Value mapOwners(const Napi::CallbackInfo& info) {
  const auto& map = mapOf(info);
  const DeviceKey device = map->findDevice(textOf(info[1]));
  std::vector<double> words;
  if (device != kNoKey) {
    for (const PhysicalExtent& extent : map->owners(device, numberOf(info[2]), numberOf(info[3]))) {
      words.insert(words.end(),
                   {double(extent.offset), double(extent.length), flagsOf(extent.state, extent.moving, extent.shared),
                    double(extent.disk), double(extent.diskOffset)});
    }
  }
  return toArray(info.Env(), words);
}

// mapDisks(map, from): { vm, name } of the keys from `from` on. mapDevices: names.
Napi::Value mapDisks(const Napi::CallbackInfo& info) {
  const auto& map = mapOf(info);
  Napi::Array names = Napi::Array::New(info.Env());
  uint32_t at = 0;
  for (uint64_t key = numberOf(info[1]); key < map->diskCount(); ++key) {
    const DiskName name = map->diskName(DiskKey(key));
    Napi::Object disk = Napi::Object::New(info.Env());
    disk["vm"] = name.vm;
    disk["name"] = name.disk;
    names[at++] = disk;
  }
  return names;
}

Napi::Value mapDevices(const Napi::CallbackInfo& info) {
  const auto& map = mapOf(info);
  Napi::Array names = Napi::Array::New(info.Env());
  uint32_t at = 0;
  for (uint64_t key = numberOf(info[1]); key < map->deviceCount(); ++key) names[at++] = map->deviceName(DeviceKey(key));
  return names;
}

Napi::Object toObject(Napi::Env env, const Tally& tally) {
  Napi::Object object = Napi::Object::New(env);
  object["operations"] = double(tally.operations);
  object["bytes"] = double(tally.bytes);
  return object;
}

// mapLedger(map): { devices: { name: { attributed, … } }, unmapped: { reason: … } }
Napi::Value mapLedger(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto& map = mapOf(info);
  Napi::Object devices = Napi::Object::New(env);
  for (DeviceKey key = 0; key < map->deviceCount(); ++key) {
    const DeviceLedger ledger = map->deviceLedger(key);
    Napi::Object device = Napi::Object::New(env);
    for (int i = 0; i < kFates; ++i) device[kFateNames[i]] = toObject(env, ledger.fates[i]);
    devices[map->deviceName(key)] = device;
  }
  const Ledger ledger = map->ledger();
  Napi::Object unmapped = Napi::Object::New(env);
  for (int i = 0; i < kUnmappedReasons; ++i) unmapped[kUnmappedNames[i]] = toObject(env, ledger.unmapped[i]);
  Napi::Object result = Napi::Object::New(env);
  result["devices"] = devices;
  result["unmapped"] = unmapped;
  return result;
}

}  // namespace

void addMap(Napi::Object exports) {
  addFunction<openMap>(exports, "openMap");
  addFunction<openStoredMap>(exports, "openStoredMap");
  addFunction<flushMap>(exports, "flushMap");
  addFunction<closeMap>(exports, "closeMap");
  addFunction<mapNotices>(exports, "mapNotices");
  addFunction<mapLocate>(exports, "mapLocate");
  addFunction<mapExtents>(exports, "mapExtents");
  addFunction<mapOwners>(exports, "mapOwners");
  addFunction<mapDisks>(exports, "mapDisks");
  addFunction<mapDevices>(exports, "mapDevices");
  addFunction<mapLedger>(exports, "mapLedger");
}

}  // namespace sm::binding
