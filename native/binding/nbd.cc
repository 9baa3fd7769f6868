// NBD servers for JavaScript: the virtual disks of a host, for any client.
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

namespace {

struct Asked {
  std::string socket, address;
  uint16_t port = 0;
  bool secured = false;
  nbd::TlsFiles tls;
  std::vector<std::shared_ptr<DiskBox>> disks;
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
  if (!asked.socket.empty()) return box.server->listenUnix(asked.socket);
  return box.server->listenTcp(asked.address, asked.port, &asked.port);
}

// serveNbd(host, socket, address, port, disks | null, readOnly, map | null, [ca, cert, key, verifyPeer] | null):
// promise of { handle, port }. An empty socket is none, and so is an empty ca.
Napi::Value serveNbd(const Napi::CallbackInfo& info) {
  const auto host = unwrap<HostBox>(info.Env(), info[0]);
  auto asked = std::make_shared<Asked>();
  auto box = std::make_shared<NbdBox>();
  asked->socket = textOf(info[1]);
  asked->address = textOf(info[2]);
  asked->port = static_cast<uint16_t>(numberOf(info[3]));
  box->everyDisk = info[4].IsNull();
  if (!box->everyDisk) {
    const auto disks = info[4].As<Napi::Array>();
    for (uint32_t i = 0; i < disks.Length(); ++i) {
      asked->disks.push_back(unwrap<DiskBox>(info.Env(), disks.Get(i)));
      if (asked->disks.back()->volume->host != host) {
        return rejected(info.Env(), failed(EINVAL, "nbd", "cannot serve a disk of another host"));
      }
    }
  }
  box->readOnly = flagOf(info[5]);
  if (!info[6].IsNull()) box->map = unwrap<MapBox>(info.Env(), info[6])->map;
  if ((asked->secured = !info[7].IsNull())) {
    const auto tls = info[7].As<Napi::Array>();
    asked->tls = {textOf(tls.Get(0u)), textOf(tls.Get(1u)), textOf(tls.Get(2u)), flagOf(tls.Get(3u))};
  }
  return startJob(
      info.Env(), host,
      [host, box, asked]() -> Failure {
        Failure failure = open(*host, *box, *asked);
        if (failure) {
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
    if (std::erase(handle->host->servers, handle->box) != 0) handle->box->server->close(timeout);
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
