#pragma once

#include <iterator>

#include "map/values.h"

namespace sm {

struct TreeEntry {
  uint64_t end, value;
};

// An interval map over a sorted tree, as one would write it, with packed values: the peers of ExtentMap. In blocks
// only.
template <class Tree>
class TreeMap {
 public:
  void assign(Range range, uint64_t value) {
    auto it = tree_.upper_bound(range.begin);
    if (it != tree_.begin() && std::prev(it)->second.end > range.begin) --it;
    while (it != tree_.end() && it->first < range.end) {
      const Range old{it->first, it->second.end};
      const uint64_t its = it->second.value;
      it = tree_.erase(it);
      if (old.begin < range.begin) tree_[old.begin] = {range.begin, its};
      if (old.end > range.end) tree_[range.end] = {old.end, its + step({old.begin, range.end})};
      it = tree_.lower_bound(range.begin);
    }
    if (it != tree_.begin()) {
      auto before = std::prev(it);
      if (before->second.end == range.begin && before->second.value + step({before->first, range.begin}) == value) {
        range.begin = before->first;
        value = before->second.value;
        it = tree_.erase(before);
      }
    }
    if (it != tree_.end() && it->first == range.end && value + step(range) == it->second.value) {
      range.end = it->second.end;
      it = tree_.erase(it);
    }
    tree_.emplace_hint(it, range.begin, TreeEntry{range.end, value});
  }

  bool covers(Range range, uint64_t* value) const {
    auto it = tree_.upper_bound(range.begin);
    if (it == tree_.begin() || (--it)->second.end < range.end) return false;
    *value = it->second.value + step({it->first, range.begin});
    return true;
  }

 private:
  static uint64_t step(Range over) { return over.length() / 4096 * Forward::kBlockStep; }
  Tree tree_;
};

}  // namespace sm
