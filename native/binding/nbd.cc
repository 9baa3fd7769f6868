// NBD servers for JavaScript: the virtual disks and devices of a host, for any client.
#include "binding/nbd.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/job.h"
#include "binding/physical_context.h"
#include "nbd/device_export.h"
#include "nbd/disk_export.h"
#include "nbd/server.h"

namespace sm::binding {

Failure NbdBox::add(VirtualDisk& disk) {
  nbd::DiskExportOptions options;
  options.readOnly = readOnly;
  auto target = std::make_unique<nbd::DiskExport>(disk, options);
  if (map) target->addContext(std::make_unique<PhysicalContext>(map, *disk.contract()));
  return server->addExport(std::move(target));
}

void NbdBox::remove(VirtualDisk& disk, uint64_t timeout) {
  server->removeExport(nbd::DiskExport::nameOf(disk), timeout);  // where it is served
}

Failure NbdBox::add(Host& host, sm_device* device) {
  if (Failure failure = host.claimDevice(device, shared)) return failure;
  IoThread& home = *host.threads()[device->id % host.threads().size()];
  nbd::DeviceExportOptions options;
  options.readOnly = readOnly;
  Failure failure = server->addExport(std::make_unique<nbd::DeviceExport>(*device, home, options));
  if (failure) {
    host.unclaimDevice(device, shared);
  } else {
    devices.push_back(device);
  }
  return failure;
}

void NbdBox::remove(Host& host, sm_device* device, uint64_t timeout) {
  if (std::erase(devices, device) == 0) return;
  server->removeExport(device->name, timeout);
  host.unclaimDevice(device, shared);
}

void NbdBox::close(Host& host, uint64_t timeout) {
  server->close(timeout);
  for (sm_device* device : devices) host.unclaimDevice(device, shared);
  devices.clear();
}

namespace {

struct Asked {
  std::string socket, address;
  uint16_t port = 0;
  bool secured = false;
  nbd::TlsFiles tls;
  std::vector<std::shared_ptr<DiskBox>> disks;
  std::vector<std::shared_ptr<DeviceBox>> devices;
};

Failure open(HostBox& host, NbdBox& box, Asked& asked) {
  std::unique_ptr<nbd::TlsServer> tls;
  if (asked.secured) {
    if (Failure failure = nbd::TlsServer::open(asked.tls, &tls)) return failure;
  }
  if (Failure failure = nbd::Server::open(host.host->threads(), {}, &box.server, std::move(tls))) return failure;
  // What is to be served first: a client may come at once.
  std::vector<VirtualDisk*> disks = box.everyDisk ? host.disks : std::vector<VirtualDisk*>{};
  for (const auto& disk : asked.disks) {
    if (!disk->disk) return closedFailure("disk", "disk " + disk->vm + "/" + disk->name);
    disks.push_back(disk->disk);
  }
  for (VirtualDisk* disk : disks) {
    if (Failure failure = box.add(*disk)) return failure;
  }
  for (const auto& device : asked.devices) {
    if (device->closed) return closedFailure("device", "device " + device->name);
    if (Failure failure = box.add(*host.host, device->device)) return failure;
  }
  if (!asked.socket.empty()) return box.server->listenUnix(asked.socket);
  return box.server->listenTcp(asked.address, asked.port, &asked.port);
}

// serveNbd(host, asked): promise of { handle, port }; what is asked is what lib/native.ts says.
Napi::Value serveNbd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto host = unwrap<HostBox>(env, info[0]);
  const auto given = info[1].As<Napi::Object>();
  auto asked = std::make_shared<Asked>();
  auto box = std::make_shared<NbdBox>();
  asked->socket = textOf(given.Get("socket"));
  asked->address = textOf(given.Get("address"));
  asked->port = static_cast<uint16_t>(numberOf(given.Get("port")));
  const Napi::Value disks = given.Get("disks"), map = given.Get("map"), tls = given.Get("tls");
  box->everyDisk = disks.IsNull();
  for (uint32_t i = 0; !box->everyDisk && i < disks.As<Napi::Array>().Length(); ++i) {
    asked->disks.push_back(unwrap<DiskBox>(env, disks.As<Napi::Array>().Get(i)));
    if (asked->disks.back()->volume->host != host) {
      return rejected(env, failed(EINVAL, "nbd", "cannot serve a disk of another host"));
    }
  }
  const auto devices = given.Get("devices").As<Napi::Array>();
  for (uint32_t i = 0; i < devices.Length(); ++i) {
    asked->devices.push_back(unwrap<DeviceBox>(env, devices.Get(i)));
    if (asked->devices.back()->host != host) {
      return rejected(env, failed(EINVAL, "nbd", "cannot serve a device of another host"));
    }
  }
  box->readOnly = flagOf(given.Get("readOnly"));
  box->shared = flagOf(given.Get("shared"));
  if (!map.IsNull()) box->map = unwrap<MapBox>(env, map)->map;
  if ((asked->secured = !tls.IsNull())) {
    const auto files = tls.As<Napi::Object>();
    asked->tls = {textOf(files.Get("ca")), textOf(files.Get("cert")), textOf(files.Get("key")),
                  flagOf(files.Get("verifyPeer"))};
  }
  return startJob(
      info.Env(), host,
      [host, box, asked]() -> Failure {
        Failure failure = open(*host, *box, *asked);
        if (failure) {
          if (box->server) box->close(*host->host, 0);
          box->server.reset();
        } else {
          host->servers.push_back(box);
        }
        return failure;
      },
      [host, box, asked](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result["handle"] = wrap(env, std::make_shared<NbdHandle>(NbdHandle{host, box}));
        result["port"] = asked->port;
        return result;
      });
}

// closeNbd(server, timeout): promise. Clients' requests that were taken are answered first, for at most `timeout` ns.
Napi::Value closeNbd(const Napi::CallbackInfo& info) {
  const auto handle = unwrap<NbdHandle>(info.Env(), info[0]);
  return startJob(info.Env(), handle->host, [handle, timeout = numberOf(info[1])]() -> Failure {
    if (std::erase(handle->host->servers, handle->box) != 0) handle->box->close(*handle->host->host, timeout);
    return {};
  });
}

Napi::Object toObject(Napi::Env env, const nbd::Counts& counts) {
  static constexpr const char* kNames[nbd::kCounts] = {"reads",       "writes",      "flushes",       "trims",
                                                       "writeZeroes", "caches",      "blockStatuses", "errors",
                                                       "bytesRead",   "bytesWritten"};
  Napi::Object out = Napi::Object::New(env);
  for (size_t i = 0; i < nbd::kCounts; ++i) out[kNames[i]] = double(counts.values[i]);
  return out;
}

// nbdCounters(server): promise of what lib/nbd.ts calls NbdCounters.
Napi::Value nbdCounters(const Napi::CallbackInfo& info) {
  const auto handle = unwrap<NbdHandle>(info.Env(), info[0]);
  struct Found {
    nbd::ServerCounts server;
    std::vector<nbd::ConnectionInfo> connections;
    std::vector<nbd::ExportCounts> exports;
  };
  auto found = std::make_shared<Found>();
  return startJob(
      info.Env(), handle->host,
      [handle, found]() -> Failure {
        const auto& servers = handle->host->servers;
        if (std::find(servers.begin(), servers.end(), handle->box) == servers.end()) {
          return closedFailure("nbd", "the NBD server");
        }
        const nbd::Server& server = *handle->box->server;
        *found = {server.counts(), server.connections(), server.exports()};
        return {};
      },
      [found](Napi::Env env) {
        Napi::Object out = Napi::Object::New(env);
        const nbd::ServerCounts& counts = found->server;
        out["accepted"] = double(counts.accepted);
        out["refused"] = double(counts.refused);
        out["violations"] = double(counts.violations);
        out["stalled"] = double(counts.stalled);
        out["tlsFailed"] = double(counts.tlsFailed);
        out["connected"] = double(counts.connected);
        Napi::Array connections = Napi::Array::New(env, found->connections.size());
        for (uint32_t i = 0; i < found->connections.size(); ++i) {
          Napi::Object each = toObject(env, found->connections[i].counts);
          each["peer"] = found->connections[i].peer;
          each["export"] = found->connections[i].exportName;
          connections[i] = each;
        }
        out["connections"] = connections;
        Napi::Object exports = Napi::Object::New(env);
        for (const nbd::ExportCounts& each : found->exports) {
          Napi::Object of = toObject(env, each.counts);
          of["connected"] = double(each.connected);
          exports[each.name] = of;
        }
        out["exports"] = exports;
        return out;
      });
}

// tlsMissing(): why there is no TLS, or "".
Napi::Value tlsMissing(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), nbd::TlsServer::missing());
}

}  // namespace

void addNbd(Napi::Object exports) {
  addFunction<serveNbd>(exports, "serveNbd");
  addFunction<closeNbd>(exports, "closeNbd");
  addFunction<nbdCounters>(exports, "nbdCounters");
  addFunction<tlsMissing>(exports, "tlsMissing");
}

}  // namespace sm::binding
