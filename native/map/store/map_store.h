// Keeps a map in a file (rule 12): what was known outlives the process, all of it stale until evidence revives it.
//
// A thread of its own writes, every interval, what the map has marked as changed; an I/O never waits for it, and never
// fails with it. What could not be written is marked anew, and tried again.
//
// Thread contract: flush, close and notices from any thread; they may block, notices briefly. Invariants: of the two
// lists of changes the map marks in one, and the writer has the other, which is empty but while it writes; the map
// marks in none before open has returned and after close has begun to end the thread; `done_` <= `asked_`, and all that
// was known when a flush was asked is in the file, or `failure_` says why not, once `done_` has reached it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "map/address_map.h"
#include "map/changes.h"
#include "map/store/map_file.h"

namespace sm {

class MapStore {
 public:
  struct Options {
    std::string path;
    std::chrono::milliseconds interval{1000};
    StoreFiles& files = StoreFiles::system();
  };

  // Loads the file at the path, or makes it, into `map`, which is empty and seen by nobody yet; after a failure it is
  // of no use. ERR_STRATAMAP_BUSY: it is open already. ERR_STRATAMAP_MAP: it is no map, or damaged, or of another
  // version.
  static StoreFailure open(const Options& options, std::shared_ptr<AddressMap> map, std::unique_ptr<MapStore>* out);
  ~MapStore() { close(); }

  // What is known now is durable when it returns nothing.
  StoreFailure flush();
  // The same, and lets go of the file, in any case. What the map learns from then on is not kept. Idempotent.
  StoreFailure close();
  // Of the writer's failures, the first of each row. At most a few.
  std::vector<std::string> notices() const;

 private:
  MapStore(const Options& options, std::shared_ptr<AddressMap> map);
  void run();
  StoreFailure write(bool asked);
  StoreFailure writeChanges(Changes* taken, bool asked);
  void note(const std::string& message);
  void many();

  const std::shared_ptr<AddressMap> map_;
  const std::chrono::milliseconds interval_;
  std::unique_ptr<MapFile> file_;  // the writer's
  Changes changes_[2];             // under the map's lock: that in which it marks
  int marked_ = 0;                 // which one that is; the writer's

  std::atomic<bool> many_{false};  // there is much to write

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable wanted_, finished_;
  uint64_t asked_ = 0, done_ = 0;
  bool ending_ = false;
  StoreFailure failure_;
  std::vector<std::string> notices_;
  std::mutex closing_;  // of close
  std::thread writer_;
};

}  // namespace sm
