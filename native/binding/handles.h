// What JavaScript's handles point to. A handle is a Napi::External that owns one shared_ptr; the TypeScript classes
// keep it private, and hold their parents, so that a host goes away only when nothing of it can be reached.
//
// Thread contract: the JavaScript thread, but for what jobs do to `host` under `busy`. Invariant: `host` is destroyed
// under `busy`, and on the JavaScript thread nobody follows a device, volume or disk without asking HostBox::open().
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

#include "binding/node_api.h"
#include "host/host.h"
#include "intercept/probe.h"
#include "map/address_map.h"
#include "map/store/map_store.h"
#include "policies/policy.h"

namespace sm::binding {

class Environment;
class Job;
struct DiskBox;
struct NbdBox;
struct PolicyBox;

// A workload that runs: it must end before its host does.
class Guest {
 public:
  explicit Guest(const DiskBox* disk) : disk(disk) {}
  virtual ~Guest() = default;
  virtual void stop() = 0;  // soon
  virtual void end() = 0;   // blocks until the host is free of it
  const DiskBox* const disk;
};

// Runs jobs one at a time, in the order of the calls, and never has more than one of libuv's threads.
class JobQueue {
 public:
  void enqueue(Job* job);
  void finished();  // the running job has settled

 private:
  std::deque<Job*> waiting_;
  bool running_ = false;
};

class HostBox : public JobQueue, public std::enable_shared_from_this<HostBox> {
 public:
  HostBox(Environment& environment, std::unique_ptr<Host> host);
  ~HostBox();

  bool open() const { return host != nullptr; }
  // Takes out policies, ends guests, detaches probes, closes the host, waits for what is in flight. Idempotent.
  void shutDown();
  Failure closeUnderLock();  // of these, what a job may do: `busy` is held, guests have ended
  // Takes all policies out, and lets no more in: what they hold back goes on, and is waited for.
  void endPolicies();
  bool hasPolicies();
  // The environment ends: nothing is left of it to tell.
  void orphan() { environment_ = nullptr; }

  // Under `busy`, of a device that has been opened: every probe gets it, and every policy that is on all devices.
  void addDevice(sm_device* device);
  // Before it is closed: out of policies, servers and probes, what is in flight there being waited for.
  void removeDevice(sm_device* device);

  // Sentences for the user beside the host's own: from any thread.
  void note(std::string sentence);
  std::vector<std::string> notes() const;

  std::unordered_set<Guest*> guests;
  uint64_t interposing = 0;  // calls that have neither put a policy in yet nor failed

  // --- under `busy`, which is held while a job runs. `host` may be asked for null on the JavaScript thread.
  std::mutex busy;
  std::unique_ptr<Host> host;
  std::vector<sm_device*> devices;  // also those that volumes have opened themselves
  std::vector<Volume*> volumes;
  std::vector<VirtualDisk*> disks;
  std::vector<Probe*> probes;  // attached, or about to be
  std::vector<std::shared_ptr<NbdBox>> servers;

  // --- under `chains`, which is taken after `busy` where both are. A policy may hold back what a job waits for: it is
  // taken out without waiting for `busy`. Nobody waits for I/O under `chains`: that may be held back by another policy,
  // which is taken out under it as well.
  std::mutex chains;
  std::vector<PolicyBox*> policies;  // in, or about to be
  bool ending = false;

 private:
  Environment* environment_;
  mutable std::mutex notesMutex_;
  std::vector<std::string> notes_;
};

constexpr uint64_t kDetachTimeout = 10'000'000'000;  // ns: how long a close waits for a probe to let go

// A policy, on all devices that there are and come, or on some.
struct PolicyBox {
  enum class Type : uint8_t { kDelay, kFault, kLimit, kCount };

  ~PolicyBox();  // garbage: the host's end, or its own, has taken it out, or this does
  // Under the host's `chains`: out of everything, where it is in. Whoever waits for `leaving` does so without it.
  void takeOut();

  std::shared_ptr<HostBox> host;
  Type type;
  bool everyDevice = false;
  size_t position = 0;
  std::unique_ptr<Policy> policy;
  bool wasIn = false;                      // or about to be
  std::shared_ptr<const Leaving> leaving;  // under the host's `chains`: once it was taken out
};

// The probe behind a handle, null once it is detached, and its host.
std::shared_ptr<Probe> probeOf(napi_env env, napi_value value, const HostBox** host);

// A map, and where it is kept, if it is. Jobs: those that ask the store for something.
struct MapBox : JobQueue {
  MapBox(Environment& environment, std::shared_ptr<AddressMap> map, std::shared_ptr<MapStore> store);
  ~MapBox();

  const std::shared_ptr<AddressMap> map;
  const std::shared_ptr<MapStore> store;  // or null
  Environment* environment;               // null: it has ended, and the store is closed
};

struct DeviceBox {
  std::shared_ptr<HostBox> host;
  sm_device* device = nullptr;
  std::string name;
  bool closed = false;
};

struct VolumeBox {
  std::shared_ptr<HostBox> host;
  Volume* volume = nullptr;
  std::string name;
  bool closed = false;
};

struct DiskBox {
  std::shared_ptr<VolumeBox> volume;
  VirtualDisk* disk = nullptr;
  std::string vm, name;
  bool closed = false;
  uint64_t pending = 0;            // operations and workloads that have not settled
  std::function<void()> whenIdle;  // what close waits to do

  bool usable() const { return !closed && volume->host->open(); }
  void begin() { ++pending; }
  void end();
};

// A handle for JavaScript, and back. The finalizer drops the shared_ptr.
template <typename T>
Napi::Value wrap(Napi::Env env, std::shared_ptr<T> box) {
  auto* held = new std::shared_ptr<T>(std::move(box));
  return Napi::External<std::shared_ptr<T>>::New(env, held, [](Napi::Env, std::shared_ptr<T>* gone) { delete gone; });
}

template <typename T>
const std::shared_ptr<T>& unwrap(napi_env env, napi_value value) {
  void* data = nullptr;
  if (napi_get_value_external(env, value, &data) != napi_ok) throw Napi::TypeError::New(env, "not a stratamap handle");
  return *static_cast<std::shared_ptr<T>*>(data);
}

}  // namespace sm::binding
