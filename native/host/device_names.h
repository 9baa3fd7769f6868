// The names of the devices that are open in a host, the volumes' own among them: each once.
//
// Thread contract: any thread.
#pragma once

#include <mutex>
#include <set>
#include <string>

namespace sm {

class DeviceNames {
 public:
  // Takes the name for a device that is about to be opened; false: it is taken.
  bool reserve(const std::string& name) {
    std::lock_guard<std::mutex> lock(mutex_);
    return names_.insert(name).second;
  }
  void release(const std::string& name) {
    std::lock_guard<std::mutex> lock(mutex_);
    names_.erase(name);
  }

 private:
  std::mutex mutex_;
  std::set<std::string> names_;
};

}  // namespace sm
