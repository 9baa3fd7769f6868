// Interposers for JavaScript: policies that are put into the dispatch tables of devices.
#include <algorithm>
#include <cerrno>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/environment.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/job.h"
#include "policies/counters.h"
#include "policies/delay.h"
#include "policies/fault.h"
#include "policies/limit.h"

namespace sm::binding {
namespace {

// What lib/interposer.ts packs of its options: numbers in this order, by type.
class Words {
 public:
  explicit Words(const Napi::Value& value) {
    const auto array = value.As<Napi::Float64Array>();
    words_.assign(array.Data(), array.Data() + array.ElementLength());
  }
  bool more() const { return at_ < words_.size(); }
  double number() { return words_.at(at_++); }
  uint64_t integer() { return static_cast<uint64_t>(number()); }
  Match match() {
    Match match;
    match.ops = static_cast<uint32_t>(integer());
    match.begin = integer();
    match.end = integer();
    return match;
  }
  DelayOptions delay() {
    DelayOptions options;
    options.match = match();
    options.distribution = static_cast<DelayOptions::Distribution>(integer());
    options.least = integer();
    options.most = integer();
    options.mean = integer();
    options.seed = integer();
    return options;
  }
  FaultRule rule() {
    FaultRule rule;
    rule.match = match();
    rule.probability = number();
    rule.every = integer();
    rule.kind = static_cast<FaultKind>(integer());
    rule.error = static_cast<int32_t>(integer());
    return rule;
  }
  LimitOptions limit() {
    LimitOptions options;
    options.iops = number();
    options.bytesPerSecond = number();
    options.burst = integer();
    return options;
  }

 private:
  std::vector<double> words_;
  size_t at_ = 0;
};

// A call that is to put a policy in: the vigil begins with it.
struct Pending {
  explicit Pending(std::shared_ptr<HostBox> of) : host(std::move(of)) { ++host->interposing; }
  ~Pending() { --host->interposing; }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  const std::shared_ptr<HostBox> host;
};

// What an interposer is made of, and on what. It goes with the job, on the JavaScript thread.
struct Asked {
  Words words;
  std::vector<std::shared_ptr<DeviceBox>> devices;
  std::shared_ptr<Probe> probe;
  const HostBox* probeHost = nullptr;
  DiskName disk;
  std::unique_ptr<Pending> pending;
};

Failure make(PolicyBox& box, Asked& asked) {
  const sm_stack* stack = box.host->host->stack();
  switch (box.type) {
    case PolicyBox::Type::kDelay:
      box.policy = std::make_unique<Delay>(stack, asked.words.delay());
      return {};
    case PolicyBox::Type::kFault: {
      const uint64_t seed = asked.words.integer();
      std::vector<FaultRule> rules;
      while (asked.words.more()) rules.push_back(asked.words.rule());
      box.policy = std::make_unique<Fault>(stack, seed, std::move(rules));
      return {};
    }
    case PolicyBox::Type::kCount:
      box.policy = std::make_unique<Counters>(stack);
      return {};
    case PolicyBox::Type::kLimit:
      break;
  }
  const auto& attached = box.host->probes;
  if (std::find(attached.begin(), attached.end(), asked.probe.get()) == attached.end()) {
    if (asked.probeHost == box.host.get()) return closedFailure("probe", "the probe of the limit");
    return failed(EINVAL, "interposer", "the probe of a limit must be attached to the same host as the limit");
  }
  std::unique_ptr<Limit> limit;
  std::string why;
  const int status = Limit::create(stack, *asked.probe, asked.disk, asked.words.limit(), &limit, &why);
  if (status != 0) return failed(-status, "interposer", std::move(why), "ERR_STRATAMAP_UNSUPPORTED");
  box.policy = std::move(limit);
  return {};
}

Failure putIn(PolicyBox& box, Asked& asked) {
  HostBox& host = *box.host;
  std::vector<sm_device*> devices = box.everyDevice ? host.devices : std::vector<sm_device*>{};
  for (const auto& device : asked.devices) {
    if (device->closed) return closedFailure("device", "device " + device->name);
    devices.push_back(device->device);
  }
  std::unique_lock lock(host.chains);
  if (host.ending) return closedFailure("host", "the host");
  if (Failure failure = make(box, asked)) return failure;
  host.policies.push_back(&box);  // before it is put in anywhere: no exception may leave it behind
  box.wasIn = true;
  for (sm_device* device : devices) {
    const int status = box.policy->addDevice(device, box.position);
    if (status == 0) continue;
    box.takeOut();
    lock.unlock();
    box.leaving->wait(Deadline(kDetachTimeout));
    const std::string why = status == -ENOSPC ? "it has " + std::to_string(DispatchChain::kMost) +
                                                    " interposers already: detach one of them, or a probe"
                                              : errnoName(-status);
    Failure failure =
        failed(-status, "interposer", std::string("cannot be put into device ") + device->name + ": " + why);
    failure.device = device->name;
    return failure;
  }
  return {};
}

// interpose(host, type, words, devices or null, position, probe or null, vm, disk): promise of the handle.
Napi::Value interpose(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto host = unwrap<HostBox>(env, info[0]);
  auto box = std::make_shared<PolicyBox>();
  box->host = host;
  box->type = static_cast<PolicyBox::Type>(numberOf(info[1]));
  box->everyDevice = info[3].IsNull();
  box->position = numberOf(info[4]);
  auto asked = std::make_shared<Asked>(Asked{.words = Words(info[2])});
  if (!box->everyDevice) {
    const auto devices = info[3].As<Napi::Array>();
    for (uint32_t i = 0; i < devices.Length(); ++i) {
      asked->devices.push_back(unwrap<DeviceBox>(env, devices.Get(i)));
      if (asked->devices.back()->host != host) throw Napi::TypeError::New(env, "a device of another host");
    }
  }
  if (!info[5].IsNull()) {
    asked->probe = probeOf(env, info[5], &asked->probeHost);
    asked->disk = {textOf(info[6]), textOf(info[7])};
  }
  asked->pending = std::make_unique<Pending>(host);
  Environment::of(env).vigil.begin();
  return startJob(
      env, host, [box, asked] { return putIn(*box, *asked); }, [box](Napi::Env env) { return wrap(env, box); });
}

// Neither of these waits for the host's jobs: they may be waiting for what it holds back.

// detachInterposer(interposer, timeout in ns): promise of whether nothing is inside it any more. As often as one likes:
// what it waits for may be held back by a policy whose own end waits for one of libuv's threads.
Napi::Value detachInterposer(const Napi::CallbackInfo& info) {
  const auto box = unwrap<PolicyBox>(info.Env(), info[0]);
  const auto status = std::make_shared<int>(0);
  return startJob(
      info.Env(), nullptr,
      [box, status, timeout = numberOf(info[1])]() -> Failure {
        const Deadline deadline(timeout);
        std::shared_ptr<const Leaving> leaving;
        {
          std::lock_guard lock(box->host->chains);
          box->takeOut();
          leaving = box->leaving;
        }
        *status = leaving ? leaving->wait(deadline) : 0;
        return {};
      },
      [status](Napi::Env env) { return Napi::Boolean::New(env, *status == 0); });
}

// updateLimit(interposer, words): promise.
Napi::Value updateLimit(const Napi::CallbackInfo& info) {
  const auto box = unwrap<PolicyBox>(info.Env(), info[0]);
  return startJob(info.Env(), nullptr, [box, options = Words(info[1]).limit()]() -> Failure {
    std::lock_guard lock(box->host->chains);
    const auto& in = box->host->policies;
    if (std::find(in.begin(), in.end(), box.get()) == in.end()) return closedFailure("interposer", "the limit");
    if (static_cast<Limit&>(*box->policy).update(options, kDetachTimeout) == 0) return {};
    return failed(ETIMEDOUT, "interposer",
                  "the new rates are in force, but an I/O thread has not answered: what it holds back goes on as was "
                  "granted before");
  });
}

// interposerCounters(interposer): numbers, by type as lib/interposer.ts reads them.
Napi::Value interposerCounters(const Napi::CallbackInfo& info) {
  const auto& box = unwrap<PolicyBox>(info.Env(), info[0]);
  std::vector<uint64_t> words;
  const Policy& policy = *box->policy;
  if (box->type == PolicyBox::Type::kDelay) {
    const HolderCounters counters = static_cast<const Delay&>(policy).counters();
    words = {counters.held, counters.waiting, counters.passed};
  } else if (box->type == PolicyBox::Type::kLimit) {
    const LimitCounters counters = static_cast<const Limit&>(policy).counters();
    words = {counters.held, counters.waiting, counters.passed, counters.foreign, counters.foreignHeld};
  } else if (box->type == PolicyBox::Type::kFault) {
    for (const FaultCounters& each : static_cast<const Fault&>(policy).counters()) {
      words.insert(words.end(), {each.matched, each.operations, each.bytes});
    }
  } else {
    for (const OpCounters& each : static_cast<const Counters&>(policy).counters()) {
      words.insert(words.end(), {each.operations, each.bytes, each.succeeded, each.succeededBytes, each.failed,
                                 each.failedBytes, each.unseen});
    }
  }
  Napi::Float64Array out = Napi::Float64Array::New(info.Env(), words.size());
  for (size_t i = 0; i < words.size(); ++i) out[i] = static_cast<double>(words[i]);
  return out;
}

}  // namespace

void addPolicy(Napi::Object exports) {
  addFunction<interpose>(exports, "interpose");
  addFunction<detachInterposer>(exports, "detachInterposer");
  addFunction<updateLimit>(exports, "updateLimit");
  addFunction<interposerCounters>(exports, "interposerCounters");
}

}  // namespace sm::binding
