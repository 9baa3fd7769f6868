// What a request in flight may still reach is never freed (rule 10); it stays findable, so that it is no leak.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace sm {

inline void keepForever(std::shared_ptr<void> kept) {
  static std::mutex mutex;
  static auto* all = new std::vector<std::shared_ptr<void>>;
  std::lock_guard lock(mutex);
  all->push_back(std::move(kept));
}

}  // namespace sm
