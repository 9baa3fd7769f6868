#include "disks/filter_chain.h"

#include <cerrno>
#include <chrono>
#include <condition_variable>

namespace sm {

struct FilterChain::Attachment {
  const sm_filter_ops* ops;
  void* context;
  // On the home I/O thread.
  uint64_t inFlight = 0;
  bool out = false;
  // How the home I/O thread tells whoever detaches that the last request has left.
  std::mutex mutex;
  std::condition_variable changed;
  bool idle = false;

  void signalIdle() {
    std::lock_guard<std::mutex> lock(mutex);
    idle = true;
    changed.notify_all();
  }
};

// Where a filter stands in a snapshot; the context of its frames.
struct FilterChain::Place {
  std::shared_ptr<Attachment> attachment;
  Snapshot* snapshot;
  size_t index;
};

struct FilterChain::Snapshot {
  std::vector<Place> places;
  uint64_t users = 0;
  bool retired = false;

  explicit Snapshot(const std::vector<std::shared_ptr<Attachment>>& filters) {
    places.reserve(filters.size());
    for (const auto& filter : filters) places.push_back({filter, this, places.size()});
  }
};

FilterChain::FilterChain(IoThread& home) : home_(home), current_(new Snapshot({})) {}

FilterChain::~FilterChain() { delete current_; }

FilterChain::Snapshot* FilterChain::take() {
  ++current_->users;
  return current_;
}

void FilterChain::giveBack(Snapshot* snapshot) {
  if (--snapshot->users == 0 && snapshot->retired) delete snapshot;
}

bool FilterChain::walk(Snapshot* snapshot, sm_request* request) { return walkFrom(snapshot, 0, request); }

bool FilterChain::walkOn(sm_request* request) {
  // The filter that took the request is the topmost that has a frame; what it pushed itself lies above that.
  uint32_t i = request->frame_count - 1;
  while (request->frames[i].done != &FilterChain::complete) --i;
  const Place* place = static_cast<const Place*>(request->frames[i].context);
  return walkFrom(place->snapshot, place->index + 1, request);
}

bool FilterChain::walkFrom(Snapshot* snapshot, size_t index, sm_request* request) {
  for (; index < snapshot->places.size(); ++index) {
    Place& place = snapshot->places[index];
    Attachment& filter = *place.attachment;
    if (filter.out || sm_request_push(request, &FilterChain::complete, &place, 0) != 0) continue;
    ++filter.inFlight;
    if (filter.ops->submit && filter.ops->submit(filter.context, request) != SM_FILTER_NEXT) return false;
  }
  return true;
}

void FilterChain::complete(sm_request* request, void* context, uint64_t) {
  Attachment& filter = *static_cast<Place*>(context)->attachment;
  if (filter.ops->complete) filter.ops->complete(filter.context, request);
  // The snapshot, and with it the filter, lives until the frame below has run.
  if (--filter.inFlight == 0 && filter.out) filter.signalIdle();
  sm_request_pop(request);
}

void FilterChain::replace(std::unique_ptr<Snapshot> next, Attachment* out) {
  struct Swap {
    FilterChain* chain;
    std::unique_ptr<Snapshot> next;
    Attachment* out;
  } swap{this, std::move(next), out};
  home_.call(
      [](void* context) {
        auto* swap = static_cast<Swap*>(context);
        Snapshot* old = swap->chain->current_;
        swap->chain->current_ = swap->next.release();
        old->retired = true;
        if (old->users == 0) swap->next.reset(old);  // freed by the caller
        if (swap->out) {
          swap->out->out = true;
          if (swap->out->inFlight == 0) swap->out->signalIdle();
        }
      },
      &swap);
}

int FilterChain::attach(const sm_filter_ops* ops, void* context) {
  if (!ops || ops->version != SM_CONTRACT_VERSION || ops->size < sizeof(sm_filter_ops)) return -EINVAL;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& filter : attached_) {
    if (filter->context == context) return -EEXIST;
  }
  if (attached_.size() >= kMaxFilters) return -ENOSPC;
  auto filter = std::make_shared<Attachment>();
  filter->ops = ops;
  filter->context = context;
  attached_.insert(attached_.begin(), std::move(filter));
  replace(std::make_unique<Snapshot>(attached_), nullptr);
  return 0;
}

int FilterChain::detach(void* context, uint64_t timeoutNs) {
  std::shared_ptr<Attachment> filter;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < attached_.size() && !filter; ++i) {
      if (attached_[i]->context != context) continue;
      filter = attached_[i];
      attached_.erase(attached_.begin() + static_cast<ptrdiff_t>(i));
    }
    if (!filter) return -ENOENT;
    replace(std::make_unique<Snapshot>(attached_), filter.get());
  }
  const auto timeout = std::chrono::nanoseconds(timeoutNs < uint64_t{INT64_MAX} / 4 ? timeoutNs : INT64_MAX / 4);
  std::unique_lock<std::mutex> lock(filter->mutex);
  return filter->changed.wait_for(lock, timeout, [&] { return filter->idle; }) ? 0 : -ETIMEDOUT;
}

}  // namespace sm
