#include "correlate/issue_order.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace sm {

namespace {

using Step = Observed::Step;

constexpr size_t kMostStates = 1 << 14;
constexpr size_t kMostThreads = 4;

// Whether the order of telling is the only one: whatever another thread issued before an issue, it was seen to do
// something else before that as well.
bool isCertain(const std::vector<Step>& issues) {
  std::array<const Step*, kMostThreads> lasts{};  // the last issue of each thread
  for (const Step& issue : issues) {
    const Step** own = nullptr;
    for (const Step*& last : lasts) {
      if (!last || last->thread == issue.thread) {
        if (!own) own = &last;
      } else if (last->passed >= issue.time) {
        return false;
      }
    }
    if (!own) return false;
    *own = &issue;
  }
  return true;
}

// All orders of the threads' issues that can have been, each thread's own order kept. A state is how many of each
// thread's have been taken, in one number.
class Orders {
 public:
  Orders(const std::vector<Step>& issues, const std::vector<Step>& starts) {
    for (const Step& issue : issues) {
      auto lane = std::find_if(lanes_.begin(), lanes_.end(),
                               [&](const Lane& each) { return each.issues[0].thread == issue.thread; });
      if (lane == lanes_.end()) lane = lanes_.insert(lane, Lane());
      lane->issues.push_back(issue);
      lane->ends.push_back((lane->ends.empty() ? 0 : lane->ends.back()) + issue.phys.length());
    }
    uint64_t states = 1;  // at most 2^45: a request has no more than 2^11 issues, and threads are at most 4
    for (Lane& lane : lanes_) {
      lane.weight = states;
      states *= lane.issues.size() + 1;
    }
    last_ = states - 1;
    uint64_t at = 0;
    for (const Step& start : starts) {
      startedAt_[at] = start.time;
      at += start.phys.length();
    }
    startedAt_[at] = 0;  // where all ends, nothing begins
  }

  // The issues in order; see orderIssues.
  std::vector<Step> order() {
    std::vector<Step> out;
    if (!leads(0) || leads_.size() > kMostStates) return out;
    std::vector<uint64_t> states = {0};
    std::unordered_set<uint64_t> met;
    for (size_t i = 0; i < states.size(); ++i) {
      for (Lane& lane : lanes_) {
        const uint64_t next = step(states[i], lane);
        if (next == kNone || !leads(next)) continue;
        lane.places[takenOf(states[i], lane)].insert(bytesOf(states[i]));
        if (met.insert(next).second) states.push_back(next);
      }
    }
    std::map<uint64_t, const Step*> certain;
    for (const Lane& lane : lanes_) {
      for (size_t i = 0; i < lane.issues.size(); ++i) {
        if (lane.places.at(i).size() == 1) certain[*lane.places.at(i).begin()] = &lane.issues[i];
      }
    }
    const uint64_t all = bytesOf(last_);
    uint64_t at = 0;
    auto unknownUntil = [&](uint64_t end) {
      if (at < end) out.push_back({0, {Observed::kNowhere, Observed::kNowhere + (end - at)}, kNoKey, kNoSlot, 0});
    };
    for (const auto& [place, issue] : certain) {
      unknownUntil(place);
      out.push_back(*issue);
      at = place + issue->phys.length();
    }
    unknownUntil(all);
    return out;
  }

 private:
  struct Lane {
    std::vector<Step> issues;
    std::vector<uint64_t> ends;                   // bytes of all up to each
    uint64_t weight = 1;                          // of one more in a state
    std::map<size_t, std::set<uint64_t>> places;  // by the issue: bytes before it, in some order that can have been
  };
  static constexpr uint64_t kNone = UINT64_MAX;

  static size_t takenOf(uint64_t state, const Lane& lane) { return state / lane.weight % (lane.issues.size() + 1); }
  uint64_t bytesOf(uint64_t state) const {
    uint64_t bytes = 0;
    for (const Lane& lane : lanes_) {
      if (const size_t taken = takenOf(state, lane)) bytes += lane.ends[taken - 1];
    }
    return bytes;
  }

  // Whether all can be taken from here on.
  bool leads(uint64_t state) {
    if (state == last_) return true;
    const auto known = leads_.find(state);
    if (known != leads_.end()) return known->second;
    if (leads_.size() > kMostStates) return false;
    bool any = false;
    for (const Lane& lane : lanes_) {
      const uint64_t next = step(state, lane);
      if (next != kNone) any |= leads(next);
    }
    leads_[state] = any;
    return any;
  }

  // Where the next of a lane leads, or kNone.
  uint64_t step(uint64_t state, const Lane& lane) const {
    const size_t taken = takenOf(state, lane);
    if (taken == lane.issues.size()) return kNone;
    const Step& issue = lane.issues[taken];
    // What another thread had handed over by then comes before.
    for (const Lane& other : lanes_) {
      const size_t before = takenOf(state, other);
      if (&other != &lane && before < other.issues.size() && other.issues[before].passed < issue.time) return kNone;
    }
    // Beneath, it began with a piece after it was issued, and ended with one.
    const uint64_t at = bytesOf(state);
    const auto start = startedAt_.find(at);
    if (start == startedAt_.end() || start->second < issue.time || !startedAt_.contains(at + issue.phys.length())) {
      return kNone;
    }
    return state + lane.weight;
  }

  std::vector<Lane> lanes_;
  std::unordered_map<uint64_t, uint64_t> startedAt_;  // when what has so many bytes before it was started
  std::unordered_map<uint64_t, bool> leads_;          // by state, of those that were looked at
  uint64_t last_ = 0;                                 // the state in which all have been taken
};

}  // namespace

bool orderIssues(std::vector<Step>* issues, const std::vector<Step>& starts) {
  if (isCertain(*issues)) return true;
  std::set<uint32_t> threads;
  for (const Step& issue : *issues) threads.insert(issue.thread);
  if (threads.size() > kMostThreads) return false;
  std::vector<Step> order = Orders(*issues, starts).order();
  if (order.empty()) return false;
  issues->swap(order);
  return true;
}

}  // namespace sm
