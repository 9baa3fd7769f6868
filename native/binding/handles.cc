#include "binding/handles.h"

#include <algorithm>
#include <utility>

#include "binding/environment.h"
#include "binding/job.h"
#include "binding/nbd.h"

namespace sm::binding {

void JobQueue::enqueue(Job* job) {
  if (std::exchange(running_, true)) {
    waiting_.push_back(job);
  } else {
    job->Queue();
  }
}

void JobQueue::finished() {
  running_ = !waiting_.empty();
  if (!running_) return;
  Job* next = waiting_.front();
  waiting_.pop_front();
  next->Queue();
}

HostBox::HostBox(Environment& environment, std::unique_ptr<Host> opened)
    : host(std::move(opened)), environment_(&environment) {
  environment.hosts.insert(this);
}

HostBox::~HostBox() {
  if (!environment_) return;
  environment_->hosts.erase(this);
  if (!host) return;
  // Every handle was garbage-collected: close it off the JavaScript thread.
  startDetached(environment_->env, [host = std::shared_ptr<Host>(std::move(host))]() mutable { host.reset(); });
}

void HostBox::note(std::string sentence) {
  std::lock_guard lock(notesMutex_);
  notes_.push_back(std::move(sentence));
}

std::vector<std::string> HostBox::notes() const {
  std::lock_guard lock(notesMutex_);
  return notes_;
}

void HostBox::addDevice(sm_device* device) {
  devices.push_back(device);
  const auto noteOf = [&](const char* what, int status) {
    note(std::string("device ") + device->name + " " + what + ": " + errnoName(-status));
  };
  for (Probe* probe : probes) {
    if (int status = probe->addDevice(device); status < 0) noteOf("is not watched by the probe", status);
  }
  std::lock_guard lock(chains);
  for (PolicyBox* policy : policies) {
    if (!policy->everyDevice) continue;
    if (int status = policy->policy->addDevice(device, policy->position); status < 0) {
      noteOf("has not got every interposer", status);
    }
  }
}

void HostBox::removeDevice(sm_device* device) {
  const Deadline deadline(kDetachTimeout);
  std::vector<std::shared_ptr<const Leaving>> leaving;
  {
    std::lock_guard lock(chains);
    for (PolicyBox* policy : policies) leaving.push_back(policy->policy->takeOut(device));
  }
  for (const auto& each : leaving) each->wait(deadline);
  for (const auto& server : servers) server->remove(*host, device, kDetachTimeout);
  for (Probe* probe : probes) probe->removeDevice(device, kDetachTimeout);
  std::erase(devices, device);
}

void HostBox::shutDown() {
  endPolicies();
  while (!guests.empty()) {
    Guest* guest = *guests.begin();
    guests.erase(guests.begin());
    guest->end();
  }
  std::lock_guard lock(busy);
  if (host) closeUnderLock();
}

bool HostBox::hasPolicies() {
  if (interposing > 0) return true;
  std::unique_lock lock(chains, std::try_to_lock);  // whoever has it is putting one in, or taking one out
  return !lock || !policies.empty();
}

void HostBox::endPolicies() {
  const Deadline deadline(kDetachTimeout);
  std::vector<std::shared_ptr<const Leaving>> leaving;
  {
    std::lock_guard lock(chains);
    ending = true;
    leaving.reserve(policies.size());
    while (!policies.empty()) {
      PolicyBox* box = policies.back();
      box->takeOut();
      leaving.push_back(box->leaving);
    }
  }
  for (const auto& each : leaving) each->wait(deadline);
}

Failure HostBox::closeUnderLock() {
  endPolicies();
  for (const auto& each : servers) each->close(*host, 0);
  servers.clear();
  for (Probe* probe : probes) probe->detach(kDetachTimeout);
  probes.clear();
  Failure failure = host->close();
  host.reset();
  return failure;
}

MapBox::MapBox(Environment& owner, std::shared_ptr<AddressMap> opened, std::shared_ptr<MapStore> kept)
    : map(std::move(opened)), store(std::move(kept)), environment(&owner) {
  if (store) owner.maps.insert(this);
}

MapBox::~MapBox() {
  if (!store || !environment) return;
  environment->maps.erase(this);
  // Garbage: what it knows is written off the JavaScript thread.
  startDetached(environment->env, [store = store] { store->close(); });
}

PolicyBox::~PolicyBox() {
  if (!wasIn) return;
  std::lock_guard lock(host->chains);
  takeOut();
}

void PolicyBox::takeOut() {
  if (std::erase(host->policies, this) != 0) leaving = policy->takeOut();
}

void DiskBox::end() {
  if (--pending > 0 || !whenIdle) return;
  std::exchange(whenIdle, nullptr)();
}

bool Environment::hasPolicies() const {
  return std::any_of(hosts.begin(), hosts.end(), [](HostBox* host) { return host->hasPolicies(); });
}

void Environment::endPolicies() {
  for (HostBox* host : hosts) host->endPolicies();
}

void Environment::shutDown() {
  vigil.stop();
  for (HostBox* host : hosts) {
    host->shutDown();
    host->orphan();
  }
  hosts.clear();
  for (MapBox* map : maps) {
    map->store->close();
    map->environment = nullptr;
  }
  maps.clear();
}

}  // namespace sm::binding
