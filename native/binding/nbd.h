// A host's NBD servers: what of them its disks' opening and closing, and its own end, have to do with.
//
// Thread contract: under the host's `busy`.
#pragma once

#include <memory>

#include "binding/handles.h"
#include "nbd/server.h"

namespace sm::binding {

struct NbdBox {
  bool everyDisk = false, readOnly = false;
  std::shared_ptr<AddressMap> map;  // null: nothing is told of physical places
  std::unique_ptr<nbd::Server> server;

  Failure add(VirtualDisk& disk);
  // Before a disk is closed. Its clients' requests end first, for at most `timeout` ns.
  void remove(VirtualDisk& disk, uint64_t timeout);
};

// The server lives as long as its host, unless it is closed before: not as long as JavaScript's handle.
struct NbdHandle {
  std::shared_ptr<HostBox> host;
  std::shared_ptr<NbdBox> box;
};

}  // namespace sm::binding
