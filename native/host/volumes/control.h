// What an entry on a control thread needs to reach the home I/O thread.
#pragma once

#include <stratamap/services.h>

#include "medium.h"

namespace sm {

// Runs `run` on the home I/O thread, and waits for it.
template <typename Run>
void callHome(const sm_services* services, Run run) {
  services->call(
      services, [](void* context) { (*static_cast<Run*>(context))(); }, &run);
}

// Waits until `done`, which runs on the home I/O thread, returns true. The contracts know no way to wait but an I/O: a
// read of the superblock changes nothing, takes about as long as what is waited for, and gives back a request, for
// which that may wait. Not a flush: its error would be lost here.
template <typename Done>
void waitHome(const sm_services* services, sm_device* device, Done done) {
  uint8_t memory[2 * kPage];  // holds one that is aligned
  uint8_t* page = memory + (kPage - reinterpret_cast<uintptr_t>(memory) % kPage);
  while (true) {
    bool now = false;
    callHome(services, [&] { now = done(); });
    if (now) return;
    services->io(services, device, SM_OP_READ, 0, page, kPage);
  }
}

}  // namespace sm
