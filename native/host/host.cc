#include "host/host.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>

#include "devices/device.h"
#include "host/device_names.h"
#include "host/failures.h"
#include "host/signature.h"
#include "host/stack.h"
#include "host/volume_loader.h"
#include "host/volume_state.h"

namespace sm {
namespace {

constexpr uint32_t kMaxThreads = 64;
constexpr uint32_t kMinRequests = 64;
constexpr uint64_t kMinBufferBytes = 2 << 20;  // two requests of the longest kind
constexpr size_t kMaxMessages = 100;           // of volumes; what comes later is dropped

std::string lockedMemoryLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return "unknown";
  return limit.rlim_cur == RLIM_INFINITY ? "unlimited" : std::to_string(limit.rlim_cur) + " bytes";
}

}  // namespace

// Lock order: `mutex`, a volume's, that of the registry of disks; `devicesMutex`, `messagesMutex` and that of the names
// of devices are taken last and alone. To change `devices` takes both `mutex`, which is held as long as a device takes
// to open, and `devicesMutex`; to look at them, one.
struct Host::State {
  explicit State(const HostOptions& given) : options(given), stack(threads, clock, disks) {}

  Failure usable() const {
    if (!closed) return {};
    return failed(EBADF, "host", "the host is closed: open another one", "ERR_STRATAMAP_CLOSED");
  }

  // The open device, or none.
  auto find(const sm_device* device) const {
    return std::find_if(devices.begin(), devices.end(),
                        [&](const auto& candidate) { return candidate->contract() == device; });
  }

  // The open volume that uses a device, or null.
  const Volume* userOf(const sm_device* device) const {
    for (const auto& volume : volumes) {
      const auto& used = volume->devices();
      if (!volume->state->closed && std::find(used.begin(), used.end(), device) != used.end()) return volume.get();
    }
    return nullptr;
  }

  // Whether a volume may have the devices. `asked`: "cannot open volume v0".
  Failure checkDevices(const sm_volume_ops& ops, const std::vector<sm_device*>& wanted,
                       const std::string& asked) const {
    const bool none = volumeFlags(ops) & SM_VOLUME_NO_DEVICES;
    if (wanted.empty() && !none) return failed(EINVAL, "volume", asked + ": it has no device; give at least one");
    if (!wanted.empty() && none) {
      return failed(EINVAL, "volume",
                    asked + ": a volume of type " + ops.type + " takes no devices, but opens its own; give it none");
    }
    std::set<const sm_device*> seen;
    for (const sm_device* device : wanted) {
      if (find(device) == devices.end()) {
        return failed(EBADF, "device", asked + ": a device is not open in this host", "ERR_STRATAMAP_CLOSED");
      }
      Failure failure;
      if (!seen.insert(device).second) {
        failure = failed(EINVAL, "device", asked + ": device " + device->name + " is given twice");
      } else if (const Volume* user = userOf(device)) {
        failure = failed(
            EBUSY, "device",
            asked + ": device " + device->name + " belongs to the open volume " + user->name() + "; close that first",
            "ERR_STRATAMAP_BUSY");
      } else if (const auto claims = claimed.find(device); claims != claimed.end() && claims->second.exclusive) {
        failure = failed(EBUSY, "device",
                         asked + ": device " + device->name +
                             " is served as it is to others, who would write to it at the same time; end that first, "
                             "or serve it shared",
                         "ERR_STRATAMAP_BUSY");
      }
      if (!failure) continue;
      failure.device = device->name;
      return failure;
    }
    return {};
  }

  std::vector<IoThread*> allThreads() const {
    std::vector<IoThread*> all;
    for (const auto& thread : threads) all.push_back(thread.get());
    return all;
  }

  // The I/O thread that is home to the fewest open volumes.
  IoThread& nextHome() const {
    std::vector<size_t> homes(threads.size());
    for (const auto& volume : volumes) {
      if (!volume->state->closed) ++homes[volume->state->services.home().index()];
    }
    return *threads[static_cast<size_t>(std::min_element(homes.begin(), homes.end()) - homes.begin())];
  }

  VolumeServices::Log logOf(const std::string& volume) {
    return [this, volume](int, const std::string& message) {
      std::lock_guard<std::mutex> lock(messagesMutex);
      if (messages.size() < kMaxMessages) messages.push_back("volume " + volume + ": " + message);
    };
  }

  Failure checkSignatures(const std::vector<sm_device*>& wanted, IoThread& home) const {
    for (sm_device* device : wanted) {
      const auto read = [&](uint64_t offset, void* data, uint64_t length) {
        return deviceIo(home, device, SM_OP_READ, offset, data, length);
      };
      if (Failure failure = checkUnsigned(*device, read)) return failure;
    }
    return {};
  }

  const HostOptions options;
  HostClock clock;
  std::vector<std::unique_ptr<IoThread>> threads;
  DiskRegistry disks;
  DeviceNames deviceNames;
  Stack stack;

  std::mutex mutex;
  bool closed = false;
  std::mutex devicesMutex;
  std::vector<std::unique_ptr<Device>> devices;
  struct Claims {
    size_t exclusive = 0, shared = 0;
  };
  std::map<const sm_device*, Claims> claimed;    // those that are, by others than volumes
  std::vector<std::unique_ptr<Volume>> volumes;  // also those that are closed: a call to one of them then says so

  std::mutex messagesMutex;
  std::vector<std::string> messages;
};

Host::Host() = default;

Host::~Host() {
  if (state_ && !state_->closed) close();
}

Failure Host::open(const HostOptions& options, std::unique_ptr<Host>* out) {
  const auto wrong = [](const std::string& what, uint64_t given, uint64_t least, uint64_t most) {
    return failed(EINVAL, "host",
                  "cannot open a host with " + std::to_string(given) + " " + what + ": use " + std::to_string(least) +
                      " to " + std::to_string(most),
                  "ERR_OUT_OF_RANGE");
  };
  if (options.threads < 1 || options.threads > kMaxThreads) return wrong("threads", options.threads, 1, kMaxThreads);
  if (options.requests < kMinRequests || options.requests > 1 << 20) {
    return wrong("requests for each thread", options.requests, kMinRequests, 1 << 20);
  }
  if (options.bufferBytes < kMinBufferBytes || options.bufferBytes > uint64_t{1} << 40) {
    return wrong("bytes of buffers for each thread", options.bufferBytes, kMinBufferBytes, uint64_t{1} << 40);
  }
  std::unique_ptr<Host> host(new Host);
  host->state_ = std::make_unique<State>(options);
  State& state = *host->state_;
  state.clock.threads.store(options.threads);
  try {
    for (uint32_t i = 0; i < options.threads; ++i) {
      IoThreadOptions thread;
      thread.index = i;
      thread.requests = options.requests;
      thread.bufferBytes = options.bufferBytes;
      thread.uring = options.uring;
      state.threads.push_back(std::make_unique<IoThread>(thread, state.clock));
    }
  } catch (const std::bad_alloc&) {
    return failed(ENOMEM, "host", "no memory for the requests and buffers of an I/O thread: ask for fewer of them");
  } catch (const std::system_error& error) {
    return failed(error.code().value(), "host", std::string("cannot start an I/O thread: ") + error.what());
  }
  *out = std::move(host);
  return {};
}

Failure Host::openDevice(const DeviceOptions& options, sm_device** out) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (Failure failure = state_->usable()) return failure;
  Failure failure = checkName(options.name, "device", "device");
  std::unique_ptr<Device> device;
  if (!failure && !state_->deviceNames.reserve(options.name)) {
    failure = failed(EEXIST, "device",
                     "cannot open " + options.path + " as device " + options.name +
                         ": a device of that name is open; use another name");
  } else if (!failure) {
    failure = sm::openDevice(options, state_->allThreads(), &device);
    if (failure) state_->deviceNames.release(options.name);
  }
  if (failure) {
    failure.device = options.name;
    return failure;
  }
  *out = device->contract();
  std::lock_guard<std::mutex> change(state_->devicesMutex);
  state_->devices.push_back(std::move(device));
  return {};
}

Failure Host::closeDevice(sm_device* device) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (Failure failure = state_->usable()) return failure;
  const auto found = state_->find(device);
  if (found == state_->devices.end()) {
    return failed(EBADF, "device", "the device to close is not open in this host", "ERR_STRATAMAP_CLOSED");
  }
  if (const Volume* user = state_->userOf(device)) {
    Failure failure = failed(EBUSY, "device",
                             std::string("cannot close device ") + device->name + ": it belongs to the open volume " +
                                 user->name() + "; close that first",
                             "ERR_STRATAMAP_BUSY");
    failure.device = device->name;
    return failure;
  }
  if (state_->claimed.contains(device)) {
    Failure failure =
        failed(EBUSY, "device",
               std::string("cannot close device ") + device->name + ": it is served to others; end that first",
               "ERR_STRATAMAP_BUSY");
    failure.device = device->name;
    return failure;
  }
  state_->deviceNames.release(device->name);
  std::unique_ptr<Device> closing;  // which may take a while, outside of the lock
  std::lock_guard<std::mutex> change(state_->devicesMutex);
  closing = std::move(state_->devices[static_cast<size_t>(found - state_->devices.begin())]);
  state_->devices.erase(found);
  return {};
}

Failure Host::claimDevice(sm_device* device, bool shared) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (Failure failure = state_->usable()) return failure;
  if (state_->find(device) == state_->devices.end()) {
    return failed(EBADF, "device", "the device is not open in this host", "ERR_STRATAMAP_CLOSED");
  }
  const Volume* user = state_->userOf(device);
  if (user && !shared) {
    Failure failure = failed(EBUSY, "device",
                             std::string("device ") + device->name + " belongs to the open volume " + user->name() +
                                 ", whose data others could destroy; close that first, or ask for it shared",
                             "ERR_STRATAMAP_BUSY");
    failure.device = device->name;
    return failure;
  }
  State::Claims& claims = state_->claimed[device];
  ++(shared ? claims.shared : claims.exclusive);
  return {};
}

void Host::unclaimDevice(sm_device* device, bool shared) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  const auto found = state_->claimed.find(device);
  if (found == state_->claimed.end()) return;
  --(shared ? found->second.shared : found->second.exclusive);
  if (found->second.shared + found->second.exclusive == 0) state_->claimed.erase(found);
}

DeviceInfo Host::info(const sm_device* device) const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  const auto found = state_->find(device);
  if (found == state_->devices.end()) return {};
  return (*found)->facts();
}

Failure Host::formatVolume(const std::string& type, const std::vector<sm_device*>& devices, const Options& options,
                           bool force) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (Failure failure = state_->usable()) return failure;
  const sm_volume_ops* ops = nullptr;
  if (Failure failure = loadVolume(type, &ops)) return failure;
  const std::string asked = "cannot format a volume (" + type + ")";
  if (Failure failure = state_->checkDevices(*ops, devices, asked)) return failure;
  for (const sm_device* device : devices) {
    if (!(device->flags & SM_DEVICE_READ_ONLY)) continue;
    Failure failure = failed(EROFS, "device", asked + ": device " + device->name + " is open for reading only");
    failure.device = device->name;
    return failure;
  }
  IoThread& home = state_->nextHome();
  if (!force) {
    if (Failure failure = state_->checkSignatures(devices, home)) return failure;
  }
  if (!ops->format) return {};
  const VolumeServices services(home, state_->logOf("being formatted"));
  const std::vector<sm_option> list = contractOptions(options);
  sm_error error{};
  const int32_t status = ops->format(services.table(), devices.data(), static_cast<uint32_t>(devices.size()),
                                     list.data(), static_cast<uint32_t>(list.size()), &error);
  if (status == 0) return {};
  return failedVolume(status, error, asked + " on " + namesOf(devices));
}

Failure Host::openVolume(const std::string& name, const std::string& type, const std::vector<sm_device*>& devices,
                         const Options& options, Volume** out) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (Failure failure = state_->usable()) return failure;
  if (Failure failure = checkName(name, "volume", "volume")) return failure;
  for (const auto& volume : state_->volumes) {
    if (volume->state->closed || volume->name() != name) continue;
    return failed(EEXIST, "volume", "cannot open volume " + name + ": one of that name is open; use another name");
  }
  const sm_volume_ops* ops = nullptr;
  if (Failure failure = loadVolume(type, &ops)) return failure;
  if (Failure failure = state_->checkDevices(*ops, devices, "cannot open volume " + name)) return failure;
  Volume::State::Surroundings host{state_->nextHome(), state_->allThreads(), state_->logOf(name), state_->disks,
                                   state_->deviceNames};
  auto inside = std::make_unique<Volume::State>(name, type, devices, std::move(host));
  if (Failure failure = inside->open(ops, options)) return failure;
  state_->volumes.push_back(std::make_unique<Volume>(std::move(inside)));
  *out = state_->volumes.back().get();
  return {};
}

Failure Host::closeVolume(Volume* volume) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (Failure failure = state_->usable()) return failure;
  return volume->state->close(false);
}

Failure Host::close() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (Failure failure = state_->usable()) return failure;
  state_->closed = true;
  Failure first;
  for (const auto& volume : state_->volumes) {
    if (volume->state->closed) continue;
    Failure failure = volume->state->close(true);
    if (failure && !first) first = std::move(failure);
  }
  std::vector<std::unique_ptr<Device>> closing;
  std::lock_guard<std::mutex> change(state_->devicesMutex);
  closing.swap(state_->devices);
  return first;
}

const sm_stack* Host::stack() const { return state_->stack.table(); }

const std::vector<std::unique_ptr<IoThread>>& Host::threads() const { return state_->threads; }

std::vector<std::string> Host::notices() const {
  std::lock_guard<std::mutex> lock(state_->devicesMutex);
  std::vector<std::string> notices;
  const IoThread& thread = *state_->threads[0];
  const bool ring = state_->threads[0]->ring() != nullptr;
  if (!ring) {
    notices.push_back("io_uring does not serve, the posix driver takes its place: " + thread.whyNoRing());
  }
  for (const auto& each : state_->threads) {
    if (!ring || each->buffersRegistered()) continue;
    notices.push_back("the buffers of I/O thread " + std::to_string(each->index()) +
                      " are not registered with its ring, which costs some speed: " + each->whyBuffersUnregistered() +
                      "; RLIMIT_MEMLOCK is " + lockedMemoryLimit() + ", allow at least " +
                      std::to_string(state_->options.bufferBytes * state_->threads.size()) +
                      " bytes (ulimit -l, LimitMEMLOCK=) or ask for less");
    break;
  }
  for (const auto& device : state_->devices) {
    for (const std::string& notice : device->facts().notices) {
      notices.push_back("device " + device->facts().name + ": " + notice);
    }
  }
  std::lock_guard<std::mutex> messagesLock(state_->messagesMutex);
  notices.insert(notices.end(), state_->messages.begin(), state_->messages.end());
  return notices;
}

std::vector<std::string> deviceDrivers() { return deviceDriverNames(); }

}  // namespace sm
