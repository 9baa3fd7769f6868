#include "binding/handles.h"

#include <algorithm>
#include <utility>

#include "binding/environment.h"
#include "binding/job.h"

namespace sm::binding {

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

void HostBox::enqueue(Job* job) {
  if (std::exchange(running_, true)) {
    waiting_.push_back(job);
  } else {
    job->Queue();
  }
}

void HostBox::finished() {
  running_ = !waiting_.empty();
  if (!running_) return;
  Job* next = waiting_.front();
  waiting_.pop_front();
  next->Queue();
}

void HostBox::note(std::string sentence) {
  std::lock_guard lock(notesMutex_);
  notes_.push_back(std::move(sentence));
}

std::vector<std::string> HostBox::notes() const {
  std::lock_guard lock(notesMutex_);
  return notes_;
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
  std::unique_lock lock(interposing, std::try_to_lock);  // whoever has it is putting one in, or waits for one to leave
  return !lock || !policies.empty();
}

void HostBox::endPolicies() {
  std::lock_guard lock(interposing);
  ending = true;
  for (PolicyBox* box : std::exchange(policies, {})) box->policy->detach(kDetachTimeout);
}

Failure HostBox::closeUnderLock() {
  endPolicies();
  for (Probe* probe : probes) probe->detach(kDetachTimeout);
  probes.clear();
  Failure failure = host->close();
  host.reset();
  return failure;
}

PolicyBox::~PolicyBox() {
  std::lock_guard lock(host->interposing);
  detach(kDetachTimeout);
}

int PolicyBox::detach(uint64_t timeout) { return std::erase(host->policies, this) == 0 ? 0 : policy->detach(timeout); }

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
}

}  // namespace sm::binding
