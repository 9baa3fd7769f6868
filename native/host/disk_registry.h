// The disks that are open in a host: (vm, name) is unique among them, and a tool's sm_disk is one of them or none.
//
// Thread contract: any thread but an I/O thread. A disk that someone has found lives until they let go of it, even
// where it is closed meanwhile: it then only refuses.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "disks/virtual_disk.h"

namespace sm {

class DiskRegistry {
 public:
  using Name = std::pair<std::string, std::string>;  // vm, disk

  // Takes the name for a disk that is about to be opened; false: it is taken.
  bool reserve(const Name& name) {
    std::lock_guard<std::mutex> lock(mutex_);
    return disks_.emplace(name, nullptr).second;
  }
  void publish(const Name& name, std::shared_ptr<VirtualDisk> disk) {
    std::lock_guard<std::mutex> lock(mutex_);
    disks_[name] = std::move(disk);
  }
  void remove(const Name& name) {
    std::lock_guard<std::mutex> lock(mutex_);
    disks_.erase(name);
  }
  // Null where there is no such disk.
  std::shared_ptr<VirtualDisk> find(const sm_disk* disk) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [name, candidate] : disks_) {
      if (candidate && candidate->contract() == disk) return candidate;
    }
    return nullptr;
  }

 private:
  std::mutex mutex_;
  std::map<Name, std::shared_ptr<VirtualDisk>> disks_;  // null: reserved
};

}  // namespace sm
