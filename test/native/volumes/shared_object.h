// A volume from a shared object, as a host loads it.
#pragma once

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <stratamap/volume.h>

#include <string>

namespace sm::test {

class SharedObject {
 public:
  explicit SharedObject(const std::string& path) : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    REQUIRE_MESSAGE(handle_, dlerror());
    entry_ = reinterpret_cast<sm_volume_entry_fn>(dlsym(handle_, SM_VOLUME_ENTRY));
  }
  ~SharedObject() { dlclose(handle_); }
  SharedObject(const SharedObject&) = delete;
  SharedObject& operator=(const SharedObject&) = delete;

  const sm_volume_ops* ops() const { return entry_ ? entry_() : nullptr; }

 private:
  void* handle_;
  sm_volume_entry_fn entry_;
};

}  // namespace sm::test
