// Probes for JavaScript, and their completion events.
#include "intercept/probe.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <memory>
#include <optional>
#include <utility>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/environment.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/job.h"
#include "intercept/kernel/tryout.h"

namespace sm::binding {
namespace {

uint64_t monotonic() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return uint64_t(now.tv_sec) * 1'000'000'000 + uint64_t(now.tv_nsec);
}

// One attached probe, and whoever listens to its completions. The letter wakes the listener; it is posted by an I/O
// thread, once for each time that the ring is armed, and `posted` until it has been delivered.
struct ProbeBox : Letter {
  ProbeBox(Environment& environment, std::shared_ptr<HostBox> host) : environment(environment), host(std::move(host)) {
    deliver = [](Letter* letter) {
      auto* box = static_cast<ProbeBox*>(letter);
      box->posted = false;
      box->answer();
    };
  }
  // Garbage: the host's end, or its own, has detached it, or this does.
  ~ProbeBox() {
    std::lock_guard lock(host->busy);
    detachUnderLock(kDetachTimeout);
  }

  // Under the host's `busy`: 0 or -ETIMEDOUT. Where it throws, what is left attached goes with the host.
  int detachUnderLock(uint64_t timeout) {
    auto& attached = host->probes;
    if (std::find(attached.begin(), attached.end(), probe.get()) == attached.end()) return 0;
    const int status = probe->detach(timeout);
    std::erase(attached, probe.get());
    return status;
  }

  static void wake(void* context) {
    auto* box = static_cast<ProbeBox*>(context);
    if (!box->posted.exchange(true)) box->environment.mailbox.send(box);
  }

  // The listener has something to do, or is to end.
  void answer() {
    const auto held = posted ? nullptr : std::move(self);  // may be the last
    if (!listener) return;
    const Napi::Promise::Deferred deferred = *std::exchange(listener, std::nullopt);
    try {
      deferred.Resolve(environment.env.Undefined());
    } catch (const Napi::Error&) {
      // The environment is ending.
    }
  }

  // Nothing wakes us after this.
  void unlisten() {
    if (!ring) return;
    if (probe) probe->subscribe(nullptr, nullptr, nullptr);
    dropped += ring->dropped();
    ring.reset();
    answer();
  }

  Environment& environment;
  std::shared_ptr<HostBox> host;
  std::unique_ptr<EventRing> ring;       // while somebody listens
  std::shared_ptr<Probe> probe;          // null once it is detached and nothing is inside it any more: it is large
  ProbeCounters last;                    // what it had counted then
  std::vector<std::string> lastNotices;  // and said
  std::optional<Napi::Promise::Deferred> listener;  // waits for events
  std::shared_ptr<ProbeBox> self;                   // while the letter may be posted
  std::atomic<bool> posted{false};
  uint64_t attachedAt = 0;  // ns of CLOCK_MONOTONIC: time 0 of the events
  uint64_t dropped = 0;     // events, by rings that are gone
  bool detached = false;
};

Failure probeFailure(int status, std::string message) {
  return failed(-status, "probe", std::move(message), status == -ENOTSUP ? "ERR_STRATAMAP_UNSUPPORTED" : nullptr);
}

// The image file of a disk whose requests reach it one by one, whole and in order: by a volume of type `kernel`.
std::string imageOf(const HostBox& host, const sm_disk* wanted) {
  for (VirtualDisk* disk : host.disks) {
    if (disk->contract() != wanted) continue;
    for (const Volume* volume : host.volumes) {
      if (volume->type() != "kernel") continue;
      const std::vector<std::string> paths = volume->ownPaths(disk);
      if (paths.size() == 1) return paths[0];
    }
  }
  return "";
}

// Attaches to everything that is open; what is opened later is added then.
Failure attach(ProbeBox& box, std::shared_ptr<AddressMap> map, ProbeOptions options) {
  HostBox& host = *box.host;
  options.fileOf = [&host](const sm_disk* disk) { return imageOf(host, disk); };
  std::string why;
  std::unique_ptr<Probe> probe;
  if (int status = Probe::create(host.host->stack(), std::move(map), options, &probe, &why); status < 0) {
    return probeFailure(status, std::move(why));
  }
  box.probe = std::move(probe);
  host.probes.push_back(box.probe.get());  // before it is attached to anything: no exception may leave it behind
  box.attachedAt = monotonic();
  int status = 0;
  for (sm_device* device : host.devices) {
    if (status == 0) status = box.probe->addDevice(device);
  }
  for (VirtualDisk* disk : host.disks) {
    if (status == 0) status = box.probe->addDisk(disk->contract());
  }
  if (status < 0) {
    box.detachUnderLock(kDetachTimeout);
    return probeFailure(status, std::string("the probe cannot attach to every disk and device: ") + errnoName(-status) +
                                    ". Detach other probes and interposers first");
  }
  box.probe->begin();
  return {};
}

// attachProbe(host, map, association, correlation, capacity, levels, maxAge in ns): promise of the probe's handle.
Napi::Value attachProbe(const Napi::CallbackInfo& info) {
  const auto host = unwrap<HostBox>(info.Env(), info[0]);
  const auto map = unwrap<MapBox>(info.Env(), info[1])->map;
  ProbeOptions options{.association = textOf(info[2]),
                       .correlation = textOf(info[3]),
                       .capacity = uint32_t(numberOf(info[4])),
                       .maxAge = numberOf(info[6])};
  const auto levels = info[5].As<Napi::Array>();
  options.levels.clear();
  for (uint32_t i = 0; i < levels.Length(); ++i) options.levels.push_back(uint16_t(numberOf(levels.Get(i))));
  auto box = std::make_shared<ProbeBox>(Environment::of(info.Env()), host);
  return startJob(
      info.Env(), host, [box, map, options] { return attach(*box, map, options); },
      [box](Napi::Env env) { return wrap(env, box); });
}

// detachProbe(probe, timeout in ns): promise of whether nothing is inside it any more.
Napi::Value detachProbe(const Napi::CallbackInfo& info) {
  const auto box = unwrap<ProbeBox>(info.Env(), info[0]);
  const auto status = std::make_shared<int>(0);
  return startJob(
      info.Env(), box->host,
      [box, status, timeout = numberOf(info[1])]() -> Failure {
        *status = box->detachUnderLock(timeout);
        return {};
      },
      [box, status](Napi::Env env) {
        box->detached = true;
        if (*status == 0 && box->probe) {
          box->last = box->probe->counters();
          box->lastNotices = box->probe->notices();
          box->probe.reset();
        }
        box->answer();
        return Napi::Boolean::New(env, *status == 0);
      });
}

// probeListen(probe, words): completions are kept from now on, in a ring of so many words, a power of two.
void probeListen(const Napi::CallbackInfo& info) {
  auto& box = *unwrap<ProbeBox>(info.Env(), info[0]);
  box.ring = std::make_unique<EventRing>(size_t(numberOf(info[1])), box.attachedAt);
  if (!box.detached) box.probe->subscribe(box.ring.get(), ProbeBox::wake, &box);
}

void probeUnlisten(const Napi::CallbackInfo& info) { unwrap<ProbeBox>(info.Env(), info[0])->unlisten(); }

// probeDrain(probe, Float64Array): how many words were copied: whole records.
Napi::Value probeDrain(const Napi::CallbackInfo& info) {
  auto& box = *unwrap<ProbeBox>(info.Env(), info[0]);
  auto to = info[1].As<Napi::Float64Array>();
  return Napi::Number::New(info.Env(), box.ring ? double(box.ring->drain(to.Data(), to.ElementLength())) : 0);
}

// probeWait(probe): promise, when there may be something to drain, or the probe is detached, or nobody listens.
Napi::Value probeWait(const Napi::CallbackInfo& info) {
  const auto& box = unwrap<ProbeBox>(info.Env(), info[0]);
  const Napi::Promise promise = box->listener.emplace(Napi::Promise::Deferred::New(info.Env())).Promise();
  box->self = box;
  if (box->detached || !box->ring || (!box->posted && !box->ring->arm())) box->answer();
  return promise;
}

// probeState(probe): { learning, detached, recorded, unrecorded, evidenceLost, taintOverflow, losses, kernel,
// eventsDropped }.
Napi::Value probeState(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto& box = *unwrap<ProbeBox>(env, info[0]);
  const ProbeCounters counters = box.probe ? box.probe->counters() : box.last;
  Napi::Object state = Napi::Object::New(env);
  state["learning"] = !box.detached && box.host->open() && box.probe->learning();
  state["recorded"] = double(counters.recorded);
  state["unrecorded"] = double(counters.unrecorded);
  state["evidenceLost"] = double(counters.evidenceLost);
  state["taintOverflow"] = double(counters.taintOverflow);
  state["losses"] = double(counters.losses);
  Napi::Object kernel = Napi::Object::New(env);
  kernel["composed"] = double(counters.observed.composed);
  kernel["missing"] = double(counters.observed.missing);
  kernel["excess"] = double(counters.observed.excess);
  kernel["crossing"] = double(counters.observed.crossing);
  kernel["unordered"] = double(counters.observed.unordered);
  kernel["foreign"] = double(counters.observed.foreign);
  kernel["predicted"] = double(counters.observed.predicted);
  kernel["astray"] = double(counters.observed.astray);
  state["kernel"] = kernel;
  state["eventsDropped"] = double(box.dropped + (box.ring ? box.ring->dropped() : 0));
  return state;
}

// probeNotices(probe): what the user should know, one sentence each.
Napi::Value probeNotices(const Napi::CallbackInfo& info) {
  const auto& box = unwrap<ProbeBox>(info.Env(), info[0]);
  const std::vector<std::string> notices = box->probe ? box->probe->notices() : box->lastNotices;
  Napi::Array all = Napi::Array::New(info.Env(), notices.size());
  for (uint32_t i = 0; i < notices.size(); ++i) all[i] = notices[i];
  return all;
}

// tryKernel(): { status: 0 or a negative errno, why }. Blocks for a moment.
Napi::Value tryKernel(const Napi::CallbackInfo& info) {
  std::string why;
  Napi::Object result = Napi::Object::New(info.Env());
  result["status"] = double(sm::tryKernel(&why));
  result["why"] = why;
  return result;
}

// associations(): { name: { carrier, correlations, kernel } }.
Napi::Value associations(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object all = Napi::Object::New(env);
  for (const AssociationInfo& association : sm::associations()) {
    Napi::Array correlations = Napi::Array::New(env, association.correlations.size());
    for (uint32_t i = 0; i < association.correlations.size(); ++i) correlations[i] = association.correlations[i];
    Napi::Object object = Napi::Object::New(env);
    object["carrier"] = association.carrier;
    object["correlations"] = correlations;
    object["kernel"] = association.kernel;
    all[association.name] = object;
  }
  return all;
}

}  // namespace

std::shared_ptr<Probe> probeOf(napi_env env, napi_value value, const HostBox** host) {
  const auto& box = unwrap<ProbeBox>(env, value);
  *host = box->host.get();
  return box->probe;
}

void addProbe(Napi::Object exports) {
  addFunction<attachProbe>(exports, "attachProbe");
  addFunction<detachProbe>(exports, "detachProbe");
  addFunction<probeListen>(exports, "probeListen");
  addFunction<probeUnlisten>(exports, "probeUnlisten");
  addFunction<probeDrain>(exports, "probeDrain");
  addFunction<probeWait>(exports, "probeWait");
  addFunction<probeNotices>(exports, "probeNotices");
  addFunction<probeState>(exports, "probeState");
  addFunction<tryKernel>(exports, "tryKernel");
  addFunction<associations>(exports, "associations");
}

}  // namespace sm::binding
