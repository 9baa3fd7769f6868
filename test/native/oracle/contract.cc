#include "contract.h"

#include <dlfcn.h>
#include <doctest/doctest.h>

#include <cstdio>
#include <map>

namespace truth {

namespace {

std::vector<sm_option> optionsOf(const VolumeOptions& options) {
  std::vector<sm_option> out;
  for (const auto& [key, value] : options) out.push_back({key.c_str(), value.c_str()});
  return out;
}

class ContractVolume : public Volume {
 public:
  ContractVolume(World& world, const sm_volume_ops* ops, const VolumeOptions& format, const VolumeOptions& open)
      : world_(world), ops_(ops) {
    sm_error error{};
    const std::vector<sm_device*> devices = world.devices();
    const auto count = static_cast<uint32_t>(devices.size());
    auto options = optionsOf(format);
    int32_t status = ops->format(world.services(), devices.data(), count, options.data(),
                                 static_cast<uint32_t>(options.size()), &error);
    REQUIRE_MESSAGE(status == 0, error.message);
    options = optionsOf(open);
    status = ops->open(world.services(), devices.data(), count, options.data(), static_cast<uint32_t>(options.size()),
                       &volume_, &error);
    REQUIRE_MESSAGE(status == 0, error.message);
    for (uint32_t i = 0; i < world.options().disks; ++i) {
      const std::string vm = "vm-" + std::to_string(i);
      const uint64_t bytes = world.options().diskBlocks * kBlock;
      status = ops->disk_create(volume_, vm.c_str(), "vda", bytes, &error);
      REQUIRE_MESSAGE(status == 0, error.message);
      void* disk = nullptr;
      uint64_t opened = 0;
      status = ops->disk_open(volume_, vm.c_str(), "vda", &disk, &opened, &error);
      REQUIRE_MESSAGE(status == 0, error.message);
      REQUIRE(opened == bytes);
      disks_.push_back(disk);
    }
  }
  ~ContractVolume() override {
    if (world_.endedInFlight()) return;  // what is in flight still needs it
    for (void* disk : disks_) ops_->disk_close(volume_, disk);
    sm_error error{};
    ops_->close(volume_, &error);
  }
  void submit(const GuestPtr& guest) override { ops_->submit(volume_, disks_[guest->disk], guest->request); }

 private:
  World& world_;
  const sm_volume_ops* const ops_;
  void* volume_ = nullptr;
  std::vector<void*> disks_;
};

}  // namespace

std::unique_ptr<Volume> makeContractVolume(World& world, const sm_volume_ops* ops, const VolumeOptions& format,
                                           const VolumeOptions& open) {
  return std::make_unique<ContractVolume>(world, ops, format, open);
}

const sm_volume_ops* fixtureVolume(const std::string& name) {
  static std::map<std::string, const sm_volume_ops*> loaded;
  const auto [found, isNew] = loaded.try_emplace(name);
  if (isNew) {
    void* library = dlopen((SM_FIXTURES "/" + name + ".so").c_str(), RTLD_NOW | RTLD_LOCAL);
    auto entry = library ? reinterpret_cast<sm_volume_entry_fn>(dlsym(library, SM_VOLUME_ENTRY)) : nullptr;
    REQUIRE_MESSAGE(static_cast<bool>(entry), dlerror());
    found->second = entry();
  }
  return found->second;
}

}  // namespace truth
