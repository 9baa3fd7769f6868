#include "map/store/map_store.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <utility>

namespace sm {

namespace {

constexpr size_t kNotices = 16;
constexpr int kLongestPause = 64;  // intervals: between tries that fail
constexpr size_t kMarkedAtOnce = 1024;

}  // namespace

MapStore::MapStore(const Options& options, std::shared_ptr<AddressMap> map)
    : map_(std::move(map)), interval_(options.interval), changes_{Changes([this] { many(); }), Changes([this] {
                                                                    many();
                                                                  })} {}

StoreFailure MapStore::open(const Options& options, std::shared_ptr<AddressMap> map, std::unique_ptr<MapStore>* out) {
  std::unique_ptr<MapStore> store(new MapStore(options, std::move(map)));
  if (StoreFailure failure = MapFile::open(options.files, options.path, *store->map_, &store->file_)) return failure;
  {
    std::lock_guard lock(store->map_->mutex());
    store->map_->markIn(&store->changes_[0]);
  }
  store->writer_ = std::thread([self = store.get()] { self->run(); });
  *out = std::move(store);
  return {};
}

StoreFailure MapStore::flush() {
  std::unique_lock lock(mutex_);
  const uint64_t mine = ++asked_;
  wanted_.notify_one();
  finished_.wait(lock, [&] { return done_ >= mine || ending_; });
  if (done_ >= mine) return failure_;
  return {EBADF, "ERR_STRATAMAP_CLOSED", "the map is closed: flush it before"};
}

StoreFailure MapStore::close() {
  std::lock_guard once(closing_);
  if (!writer_.joinable()) return failure_;
  StoreFailure failure = flush();
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    wanted_.notify_one();
  }
  writer_.join();
  {
    std::lock_guard lock(map_->mutex());
    map_->markIn(nullptr);  // now that nobody lets it mark any more
  }
  file_.reset();
  finished_.notify_all();
  return failure;
}

std::vector<std::string> MapStore::notices() const {
  std::lock_guard lock(mutex_);
  return notices_;
}

// Under the map's lock, so without the mutex: a wake-up that is missed costs an interval.
void MapStore::many() {
  many_ = true;
  wanted_.notify_one();
}

void MapStore::run() {
  pthread_setname_np(pthread_self(), "stratamap-map");
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);

  std::unique_lock lock(mutex_);
  for (int pause = 1;;) {
    wanted_.wait_for(lock, pause * interval_, [&] { return asked_ > done_ || ending_ || (many_ && pause == 1); });
    if (ending_) return;
    many_ = false;
    const uint64_t asked = asked_;
    const bool isAsked = asked > done_;
    lock.unlock();
    StoreFailure failure = write(isAsked);
    if (failure && pause == 1) note(failure.message);
    lock.lock();
    pause = failure ? std::min(2 * pause, kLongestPause) : 1;
    failure_ = std::move(failure);
    done_ = asked;
    finished_.notify_all();
  }
}

void MapStore::note(const std::string& message) {
  std::lock_guard lock(mutex_);
  if (notices_.size() < kNotices) notices_.push_back(message);
}

// What has changed, or all of it.
StoreFailure MapStore::write(bool asked) {
  Changes* taken = &changes_[marked_];
  marked_ = 1 - marked_;
  {
    std::lock_guard lock(map_->mutex());
    map_->markIn(&changes_[marked_]);
  }
  StoreFailure failure;
  try {
    failure = writeChanges(taken, asked);
  } catch (const std::exception& error) {
    failure = {ENOMEM, nullptr, "the map " + file_->path() + " cannot be written: " + error.what()};
  }
  if (failure && taken->everything()) {
    std::lock_guard lock(map_->mutex());
    changes_[marked_].markEverything();
  } else if (failure) {
    for (auto parts = taken->parts(); !parts.empty();) {
      const auto some = parts.first(std::min(parts.size(), kMarkedAtOnce));
      parts = parts.subspan(some.size());
      std::lock_guard lock(map_->mutex());
      for (const Changes::Part& part : some) changes_[marked_].mark(part.disk, part.virt);
    }
  }
  taken->clear();
  return failure;
}

StoreFailure MapStore::writeChanges(Changes* taken, bool asked) {
  if (taken->empty() && !(asked && file_->isNew())) return {};
  const bool everything = taken->everything() || file_->isNew();
  if (!everything && !file_->isLong()) return file_->append(taken->parts());
  StoreFailure failure = file_->rewrite();
  if (!failure || everything) return failure;
  // There may be room for what has changed.
  note(failure.message);
  return file_->append(taken->parts());
}

}  // namespace sm
