#include "map/store/map_file.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <system_error>
#include <utility>

namespace sm {

namespace {

constexpr uint64_t kShortest = 4 << 20;              // bytes of a file that is never too long
constexpr size_t kAtOnce = 32;                       // parts under one hold of the lock
constexpr size_t kWriteBytes = 256 << 10;            // or a little more in one write
constexpr size_t kKnown = size_t{1} << 16;           // regions of which is known what was last written
constexpr const char kUnfinished[] = ".unfinished";  // behind the path: a snapshot that is not whole yet

}  // namespace

// Appends records to a file.
class MapFile::Writer {
 public:
  Writer(StoreFile& file, FileNames& names, uint64_t generation, uint64_t number, uint64_t end)
      : names(names), file_(file), generation_(generation), number_(number), end_(end) {}

  void header() {
    const StoreHeader header = makeHeader(generation_);
    buffer_.append(reinterpret_cast<const char*>(&header), sizeof header);
  }
  int put(const std::string& payload) {
    appendRecord(&buffer_, generation_, ++number_, payload);
    return buffer_.size() < kWriteBytes ? 0 : write();
  }
  int finish() {
    const int status = write();
    return status != 0 ? status : file_.sync();
  }

  uint64_t number() const { return number_; }
  uint64_t end() const { return end_; }
  FileNames& names;

 private:
  int write() {
    const int status = file_.write(end_, buffer_.data(), buffer_.size());
    end_ += buffer_.size();
    buffer_.clear();
    return status;
  }

  StoreFile& file_;
  const uint64_t generation_;
  uint64_t number_, end_;
  std::string buffer_;
};

StoreFailure MapFile::failed(const char* what, int status) const {
  return {-status, nullptr,
          "the map " + path_ + " cannot be " + what + ": " + std::generic_category().message(-status) +
              (status == -ENOSPC || status == -EDQUOT
                   ? ". Make room there: it is tried again, and until then the file holds what it held"
                   : ". The file holds what it held; see to its file system")};
}

int MapFile::nameAll(std::span<const Mapping> mappings, Writer* to) {
  std::string payload;
  for (const Mapping& each : mappings) {
    if (to->names.devices.of(each.place.device) != FileNumbers::kNone) continue;
    payload.clear();
    encodeDevice(&payload, map_.deviceName(each.place.device));
    to->names.devices.add(each.place.device);
    if (const int status = to->put(payload)) return status;
  }
  return 0;
}

bool MapFile::isKnown(DiskKey disk, Range virt, const std::string& payload) {
  if (virt.length() != uint64_t{1} << kRegionBits) {
    known_.clear();  // it may say something else of any
    return false;
  }
  known_.resize(kKnown);
  const uint64_t region = virt.begin >> kRegionBits;
  uint64_t& known = known_[((region ^ uint64_t{disk} << 40) * 0x9e3779b97f4a7c15) >> 48];
  return std::exchange(known, std::hash<std::string>()(payload)) == known;
}

int MapFile::copyParts(std::span<const Changes::Part> parts, bool snapshot, Writer* to) {
  struct Piece {
    DiskKey disk;
    Range virt;
    size_t end;  // of its mappings
  };
  std::vector<Piece> pieces;
  std::vector<Mapping> mappings;
  std::string payload;
  Changes::Part rest;
  for (size_t next = 0; next < parts.size() || !rest.virt.empty();) {
    pieces.clear();
    mappings.clear();
    {
      std::lock_guard lock(map_.mutex());
      while (pieces.size() < kAtOnce && mappings.size() < AddressMap::kChunk) {
        if (rest.virt.empty()) {
          if (next == parts.size()) break;
          rest = parts[next++];
        }
        const uint64_t end = map_.copy(rest.disk, rest.virt, &mappings);
        pieces.push_back({rest.disk, {rest.virt.begin, end}, mappings.size()});
        rest.virt.begin = end;
      }
    }
    size_t begin = 0;
    for (const Piece& piece : pieces) {
      const std::span<const Mapping> some(mappings.data() + begin, piece.end - begin);
      begin = piece.end;
      if (snapshot && some.empty()) continue;
      if (to->names.disks.of(piece.disk) == FileNumbers::kNone) {
        payload.clear();
        encodeDisk(&payload, map_.diskName(piece.disk));
        to->names.disks.add(piece.disk);
        if (const int status = to->put(payload)) return status;
      }
      if (const int status = nameAll(some, to)) return status;
      payload.clear();
      encodeRange(&payload, to->names, piece.disk, piece.virt, some);
      if (!snapshot && isKnown(piece.disk, piece.virt, payload)) continue;
      if (const int status = to->put(payload)) return status;
    }
  }
  return 0;
}

StoreFailure MapFile::append(std::span<const Changes::Part> parts) {
  const uint32_t disks = names_.disks.count(), devices = names_.devices.count();
  Writer writer(*file_, names_, generation_, number_, end_);
  // What was not written is known to nobody.
  const auto undo = [&] {
    names_.disks.cut(disks);
    names_.devices.cut(devices);
    known_.clear();
  };
  int status = extra_ ? file_->truncate(end_) : 0;
  extra_ = true;
  if (status == 0 && moved_) status = files_.syncFolderOf(path_);
  if (status == 0) moved_ = false;
  try {
    if (status == 0) status = copyParts(parts, false, &writer);
    if (status == 0) status = writer.finish();
  } catch (...) {  // no memory
    undo();
    throw;
  }
  if (status != 0) {
    undo();
    return failed("written", status);
  }
  extra_ = false;
  number_ = writer.number();
  end_ = writer.end();
  return {};
}

StoreFailure MapFile::rewrite() {
  const std::string next = path_ + kUnfinished;
  std::unique_ptr<StoreFile> file;
  FileNames names;
  if (const int status = files_.create(next, path_, &file)) return failed("written anew", status);
  Writer writer(*file, names, generation_ + 1, 0, 0);
  std::vector<Changes::Part> all;
  for (DiskKey disk = 0; disk < map_.diskCount(); ++disk) all.push_back({disk, {0, UINT64_MAX}});
  writer.header();
  int status = copyParts(all, true, &writer);
  if (status == 0) status = writer.put(std::string(1, static_cast<char>(Kind::kEnd)));
  if (status == 0) status = writer.finish();
  if (status == 0) status = files_.rename(next, path_);
  if (status != 0) {
    files_.remove(next);
    longAt_ = std::max(longAt_, 2 * end_);  // not at once again
    return failed("written anew", status);
  }
  // It is what is there from now on, even if that does not become durable yet.
  moved_ = true;
  file_ = std::move(file);
  empty_.reset();
  names_ = std::move(names);
  ++generation_;
  number_ = writer.number();
  end_ = writer.end();
  longAt_ = std::max(kShortest, 3 * end_);
  extra_ = false;
  known_.clear();
  if (const int durable = files_.syncFolderOf(path_)) return failed("written anew", durable);
  moved_ = false;
  return {};
}

// Reads a file once from its beginning.
class MapFile::Loader {
 public:
  Loader(StoreFile& file, MapFile& into, uint64_t size) : file_(file), into_(into), size_(size) {}

  StoreFailure run() {
    if (StoreFailure failure = header()) return failure;
    bool whole = false;
    for (;;) {
      StoreRecord record;
      bool right = false;
      if (const int status = next(&record, &right)) return unreadable(status);
      if (!right || !take({bytes(), record.length}, &whole)) break;
      used_ += record.length;
      into_.number_ = record.number;
      into_.end_ = at_ - (filled_ - used_);
      if (whole && snapshotEnd_ == 0) snapshotEnd_ = into_.end_;
    }
    if (!whole) {
      return wrong("is damaged: its snapshot ends at byte " + std::to_string(into_.end_) + " of " +
                   std::to_string(size_) + ", where no whole record follows");
    }
    into_.longAt_ = std::max(kShortest, 3 * snapshotEnd_);
    into_.extra_ = into_.end_ < size_;
    std::lock_guard lock(into_.map_.mutex());
    into_.map_.restored();
    return {};
  }

 private:
  StoreFailure unreadable(int status) const {
    return {-status, nullptr,
            "the map " + into_.path_ + " cannot be read: " + std::generic_category().message(-status)};
  }
  StoreFailure wrong(const std::string& found) const {
    return {EINVAL, "ERR_STRATAMAP_MAP",
            "the map " + into_.path_ + " cannot be opened: the file " + found +
                ". It was left as it is, and nothing of it is used: give another path, or move it away to begin anew"};
  }

  StoreFailure header() {
    StoreHeader header{};
    const size_t length = std::min<uint64_t>(size_, sizeof header);
    if (const int status = file_.read(0, &header, length)) return unreadable(status);
    if (std::memcmp(header.magic, kStoreMagic, std::min(length, sizeof header.magic)) != 0) {
      return wrong("does not begin as a map does");
    }
    if (length < sizeof header) return wrong("is damaged: it ends within its header");
    if (header.version != kStoreVersion) {
      return wrong("is of version " + std::to_string(header.version) + ", and this version of stratamap knows " +
                   std::to_string(kStoreVersion));
    }
    if (header.checksum != checksumOf(0, &header, offsetof(StoreHeader, checksum))) {
      return wrong("is damaged: the checksum of its header is wrong");
    }
    into_.generation_ = header.generation;
    into_.end_ = at_ = sizeof header;
    return {};
  }

  char* bytes() { return buffer_.data() + used_; }

  // Has `length` bytes from the next on in memory; *there: so many are left.
  int have(size_t length, bool* there) {
    *there = length <= filled_ - used_ || length - (filled_ - used_) <= size_ - at_;
    if (!*there || length <= filled_ - used_) return 0;
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(used_));
    filled_ -= used_;
    used_ = 0;
    const size_t more = std::min<uint64_t>(std::max(length - filled_, kWriteBytes), size_ - at_);
    buffer_.resize(filled_ + more);
    const int status = file_.read(at_, buffer_.data() + filled_, more);
    filled_ += more;
    at_ += more;
    return status;
  }

  // The next record, if it is *right; its payload is at bytes().
  int next(StoreRecord* record, bool* right) {
    bool there = false;
    if (const int status = have(sizeof *record, &there); status != 0 || !there) return status;
    std::memcpy(record, bytes(), sizeof *record);
    if (record->length == 0 || record->length > kMostPayload || record->number != into_.number_ + 1) return 0;
    if (const int status = have(sizeof *record + record->length, &there); status != 0 || !there) return status;
    used_ += sizeof *record;
    *right = isRight(*record, into_.generation_, bytes());
    return 0;
  }

  bool take(std::string_view payload, bool* whole) {
    Decoded record{.mappings = &mappings_};
    if (!decode(payload, into_.names_, &record)) return false;
    switch (record.kind) {
      case Kind::kDisk:
        into_.names_.disks.add(into_.map_.internDisk({std::string(record.vm), std::string(record.name)}));
        return true;
      case Kind::kDevice:
        into_.names_.devices.add(into_.map_.internDevice(std::string(record.name)));
        return true;
      case Kind::kRange: {
        std::lock_guard lock(into_.map_.mutex());
        into_.map_.restore(record.disk, record.virt, mappings_);
        return true;
      }
      case Kind::kEnd:
        return !std::exchange(*whole, true);
    }
    return false;
  }

  StoreFile& file_;
  MapFile& into_;
  const uint64_t size_;
  uint64_t at_ = 0;  // what is read next
  uint64_t snapshotEnd_ = 0;
  std::vector<char> buffer_;
  size_t filled_ = 0, used_ = 0;  // bytes of the buffer
  std::vector<Mapping> mappings_;
};

StoreFailure MapFile::open(StoreFiles& files, std::string path, AddressMap& map, std::unique_ptr<MapFile>* out) {
  std::unique_ptr<StoreFile> file;
  const std::string asked = path;
  const int status = files.open(&path, &file);
  std::unique_ptr<MapFile> opened(new MapFile(files, map, std::move(path)));
  if (status == -EWOULDBLOCK) {
    return {
        EBUSY, "ERR_STRATAMAP_BUSY",
        "the map " + asked + " cannot be opened: it is open already, here or in another process. Close it there first"};
  }
  if (status == -EINVAL) {
    return {EINVAL, "ERR_STRATAMAP_MAP",
            "the map " + asked + " cannot be opened: that is no regular file. Give the path of one, or of none yet"};
  }
  if (status != 0) {
    return {-status, nullptr,
            "the map " + asked + " cannot be opened: " + std::generic_category().message(-status) +
                ". Give a path in a folder in which files can be made, for a snapshot is made beside it"};
  }
  const int64_t size = file->size();
  if (size < 0) return opened->failed("read", static_cast<int>(size));
  if (size == 0) {
    opened->empty_ = std::move(file);
  } else {
    if (StoreFailure failure = Loader(*file, *opened, static_cast<uint64_t>(size)).run()) return failure;
    // What was read may be on its way to the medium yet, if the process that wrote it was killed.
    int durable = file->sync();
    if (durable == 0) durable = files.syncFolderOf(opened->path_);
    if (durable != 0) return opened->failed("opened", durable);
    opened->file_ = std::move(file);
    files.remove(opened->path_ + kUnfinished);  // of which a crash has left the beginning
  }
  *out = std::move(opened);
  return {};
}

}  // namespace sm
