// One file that holds a map (format.h): loads it, appends to its journal, puts a new snapshot in its place.
//
// Thread contract: one thread at a time. The map's lock is taken for a bounded number of extents at a time, and never
// while the file is read or written. Invariants: the first end_ bytes are durable and right, or the file was found so;
// what is behind them, if extra_, is of no meaning, and goes before anything is written there.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "map/address_map.h"
#include "map/changes.h"
#include "map/store/files.h"
#include "map/store/format.h"

namespace sm {

// `code` as Error.code; null: the name of `error`, an errno.
struct StoreFailure {
  int error = 0;
  const char* code = nullptr;
  std::string message;
  explicit operator bool() const { return error != 0; }
};

class MapFile {
 public:
  // Opens or makes the file, locks it, and loads all of it into `map`, which is empty and seen by nobody yet; after a
  // failure it is of no use.
  static StoreFailure open(StoreFiles& files, std::string path, AddressMap& map, std::unique_ptr<MapFile>* out);

  // Both: durable when they return nothing. After a failure the file holds what it held before.
  StoreFailure append(std::span<const Changes::Part> parts);
  StoreFailure rewrite();

  // Whether nothing has been written yet.
  bool isNew() const { return !file_; }
  // Whether the journal has become so long that a snapshot is due.
  bool isLong() const { return end_ > longAt_; }
  const std::string& path() const { return path_; }

 private:
  class Loader;
  class Writer;

  MapFile(StoreFiles& files, AddressMap& map, std::string path) : files_(files), map_(map), path_(std::move(path)) {}
  int copyParts(std::span<const Changes::Part> parts, bool snapshot, Writer* to);
  int nameAll(std::span<const Mapping> mappings, Writer* to);
  bool isKnown(DiskKey disk, Range virt, const std::string& payload);
  StoreFailure failed(const char* what, int status) const;

  StoreFiles& files_;
  AddressMap& map_;
  const std::string path_;
  std::unique_ptr<StoreFile> file_, empty_;  // one of them: that which was found or made empty only holds the lock
  FileNames names_;
  uint64_t generation_ = 0, number_ = 0;  // of the file, and of its last record
  uint64_t end_ = 0, longAt_ = 0;
  bool extra_ = false;
  bool moved_ = false;  // to its path, and that may not be durable
  // What was last written of some regions, as a hash: what is written over in place, and removed and added again,
  // changes nothing in the end.
  std::vector<uint64_t> known_;
};

}  // namespace sm
