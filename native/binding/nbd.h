// A host's NBD servers: what of them its disks' and devices' opening and closing, and its own end, have to do with.
//
// Thread contract: under the host's `busy`.
#pragma once

#include <memory>
#include <vector>

#include "binding/handles.h"
#include "nbd/server.h"

namespace sm::binding {

struct NbdBox {
  bool everyDisk = false, readOnly = false;
  bool shared = false;              // devices also beside volumes
  std::shared_ptr<AddressMap> map;  // null: nothing is told of physical places
  std::unique_ptr<nbd::Server> server;

  std::vector<sm_device*> devices;  // that are served, and claimed for that

  Failure add(VirtualDisk& disk);
  Failure add(Host& host, sm_device* device);
  // Before a disk or device is closed. Its clients' requests end first, for at most `timeout` ns.
  void remove(VirtualDisk& disk, uint64_t timeout);
  void remove(Host& host, sm_device* device, uint64_t timeout);
  void close(Host& host, uint64_t timeout);
};

// The server lives as long as its host, unless it is closed before: not as long as JavaScript's handle.
struct NbdHandle {
  std::shared_ptr<HostBox> host;
  std::shared_ptr<NbdBox> box;
};

}  // namespace sm::binding
