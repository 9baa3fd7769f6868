#include "correlate/issue_order.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <unordered_map>

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
  // False: too many.
  bool set(const std::vector<Step>& issues, const std::vector<Step>& starts) {
    for (const Step& issue : issues) {
      auto lane = std::find_if(lanes_.begin(), lanes_.end(),
                               [&](const Lane& each) { return each.issues[0].thread == issue.thread; });
      if (lane == lanes_.end()) lane = lanes_.insert(lane, Lane());
      lane->issues.push_back(issue);
      lane->ends.push_back((lane->ends.empty() ? 0 : lane->ends.back()) + issue.phys.length());
    }
    size_t states = 1;
    for (Lane& lane : lanes_) {
      lane.weight = states;
      states *= lane.issues.size() + 1;
      if (states > kMostStates) return false;
    }
    uint64_t at = 0;
    for (const Step& start : starts) {
      startedAt_[at] = start.time;
      at += start.phys.length();
    }
    startedAt_[at] = 0;  // where all ends, nothing begins
    leads_.assign(states, kUnknown);
    return true;
  }

  // The issues in order; see orderIssues.
  std::vector<Step> order() {
    std::vector<Step> out;
    if (!leads(0)) return out;
    std::vector<size_t> states = {0};
    std::vector<bool> met(leads_.size());
    for (size_t i = 0; i < states.size(); ++i) {
      for (Lane& lane : lanes_) {
        const size_t next = step(states[i], lane);
        if (next == kNone || !leads(next)) continue;
        lane.places[takenOf(states[i], lane)].insert(bytesOf(states[i]));
        if (!met[next]) states.push_back(next);
        met[next] = true;
      }
    }
    std::map<uint64_t, const Step*> certain;
    for (const Lane& lane : lanes_) {
      for (size_t i = 0; i < lane.issues.size(); ++i) {
        if (lane.places.at(i).size() == 1) certain[*lane.places.at(i).begin()] = &lane.issues[i];
      }
    }
    const uint64_t all = bytesOf(leads_.size() - 1);
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
    size_t weight = 0;                            // of one more in a state
    std::map<size_t, std::set<uint64_t>> places;  // by the issue: bytes before it, in some order that can have been
  };
  static constexpr size_t kNone = SIZE_MAX;
  static constexpr uint8_t kUnknown = 255;

  static size_t takenOf(size_t state, const Lane& lane) { return state / lane.weight % (lane.issues.size() + 1); }
  uint64_t bytesOf(size_t state) const {
    uint64_t bytes = 0;
    for (const Lane& lane : lanes_) {
      if (const size_t taken = takenOf(state, lane)) bytes += lane.ends[taken - 1];
    }
    return bytes;
  }

  // Whether all can be taken from here on.
  bool leads(size_t state) {
    if (state == leads_.size() - 1) return true;
    if (leads_[state] == kUnknown) {
      leads_[state] = 0;
      for (const Lane& lane : lanes_) {
        const size_t next = step(state, lane);
        if (next != kNone && leads(next)) leads_[state] = 1;
      }
    }
    return leads_[state] != 0;
  }

  // Where the next of a lane leads, or kNone.
  size_t step(size_t state, const Lane& lane) const {
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
  std::vector<uint8_t> leads_;                        // by state
};

}  // namespace

bool orderIssues(std::vector<Step>* issues, const std::vector<Step>& starts) {
  if (isCertain(*issues)) return true;
  Orders orders;
  if (!orders.set(*issues, starts)) return false;
  std::vector<Step> order = orders.order();
  if (order.empty()) return false;
  issues->swap(order);
  return true;
}

}  // namespace sm
