// Files in memory, in the place of those of the system: they keep in order all that was asked of them, can fail, and
// give what a crash leaves.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "map/store/files.h"

namespace sm {

class MemoryFiles final : public StoreFiles {
 public:
  // A call that changes something, or makes it durable. Files are numbered as they are made.
  struct Call {
    enum Kind : uint8_t { kCreate, kWrite, kTruncate, kSync, kRename, kRemove, kSyncFolder } kind;
    int file = 0;
    uint64_t at = 0;  // or the length
    std::string bytes;
    std::string from, to;  // names
  };

  std::vector<Call> calls;
  // What a call gives in its place; 0: it is carried out. What is written then is there up to the half.
  std::function<int(const Call&)> fault;

  std::string& bytesOf(const std::string& name) { return contents_[names_.at(name)]; }
  bool has(const std::string& name) const { return names_.contains(name); }
  void put(const std::string& name, std::string bytes) {
    names_[name] = static_cast<int>(contents_.size());
    contents_.push_back(std::move(bytes));
  }

  int open(std::string* path, std::unique_ptr<StoreFile>* out) override {
    if (!has(*path)) {
      if (const int status = make(*path)) return status;
    }
    const int file = names_[*path];
    if (locked_.contains(file)) return -EWOULDBLOCK;
    *out = std::make_unique<File>(*this, file);
    return 0;
  }
  int create(const std::string& path, const std::string&, std::unique_ptr<StoreFile>* out) override {
    if (const int status = make(path)) return status;
    *out = std::make_unique<File>(*this, names_[path]);
    return 0;
  }
  int rename(const std::string& from, const std::string& to) override {
    if (const int status = note({.kind = Call::kRename, .from = from, .to = to})) return status;
    names_[to] = names_.at(from);
    names_.erase(from);
    return 0;
  }
  int syncFolderOf(const std::string&) override { return note({.kind = Call::kSyncFolder}); }
  int remove(const std::string& path) override {
    if (!has(path)) return 0;
    if (const int status = note({.kind = Call::kRemove, .from = path})) return status;
    names_.erase(path);
    return 0;
  }

  // What a crash before calls[at] may leave: of what was not made durable by then some, writes torn at sectors, in any
  // order; of names a first part of their changes.
  std::unique_ptr<MemoryFiles> crashed(size_t at, uint64_t seed) const {
    constexpr uint64_t kSector = 512;
    std::mt19937_64 random(seed);
    auto left = std::make_unique<MemoryFiles>();
    left->contents_.resize(contents_.size());
    auto syncs = [&](size_t i, Call::Kind kind, int file) {
      for (; i < at; ++i) {
        if (calls[i].kind == kind && (kind == Call::kSyncFolder || calls[i].file == file)) return true;
      }
      return false;
    };
    const uint64_t luck = random() % 5;  // of 4: with 0 nothing else is there, with 4 everything
    bool renames = true;
    for (size_t i = 0; i < at; ++i) {
      const Call& call = calls[i];
      std::string& content = left->contents_[call.file];
      switch (call.kind) {
        case Call::kCreate:
        case Call::kRename:
        case Call::kRemove:
          renames = renames && (syncs(i, Call::kSyncFolder, 0) || random() % 4 < luck);
          if (!renames) break;
          if (call.kind == Call::kCreate) left->names_[call.to] = call.file;
          if (call.kind == Call::kRename && left->has(call.from)) left->names_[call.to] = left->names_[call.from];
          if (call.kind != Call::kCreate) left->names_.erase(call.from);
          break;
        case Call::kTruncate:
          if (syncs(i, Call::kSync, call.file) || random() % 4 < luck) content.resize(call.at);
          break;
        case Call::kWrite: {
          const bool durable = syncs(i, Call::kSync, call.file);
          for (uint64_t done = 0; done < call.bytes.size();) {
            const uint64_t part = std::min(call.bytes.size() - done, kSector - (call.at + done) % kSector);
            if (durable || random() % 4 < luck) {
              content.resize(std::max(content.size(), call.at + done + part));
              content.replace(call.at + done, part, call.bytes, done, part);
            }
            done += part;
          }
          break;
        }
        case Call::kSync:
        case Call::kSyncFolder:
          break;
      }
    }
    return left;
  }

 private:
  class File final : public StoreFile {
   public:
    File(MemoryFiles& files, int file) : files_(files), file_(file) { files_.locked_.insert(file); }
    ~File() override { files_.locked_.erase(file_); }
    int64_t size() override { return static_cast<int64_t>(content().size()); }
    int read(uint64_t at, void* bytes, size_t length) override {
      if (at > content().size() || length > content().size() - at) return -EIO;
      std::copy_n(content().data() + at, length, static_cast<char*>(bytes));
      return 0;
    }
    int write(uint64_t at, const void* bytes, size_t length) override {
      const std::string all(static_cast<const char*>(bytes), length);
      const int status = files_.note({.kind = Call::kWrite, .file = file_, .at = at, .bytes = all});
      const size_t written = status == 0 ? length : length / 2;
      content().resize(std::max(content().size(), at + written));
      content().replace(at, written, all, 0, written);
      if (status != 0 && written > 0) {
        files_.calls.push_back({.kind = Call::kWrite, .file = file_, .at = at, .bytes = all.substr(0, written)});
      }
      return status;
    }
    int truncate(uint64_t length) override {
      const int status = files_.note({.kind = Call::kTruncate, .file = file_, .at = length});
      if (status == 0) content().resize(length);
      return status;
    }
    int sync() override { return files_.note({.kind = Call::kSync, .file = file_}); }

   private:
    std::string& content() { return files_.contents_[file_]; }
    MemoryFiles& files_;
    const int file_;
  };

  int note(Call call) {
    if (fault) {
      if (const int status = fault(call)) return status;
    }
    calls.push_back(std::move(call));
    return 0;
  }
  int make(const std::string& name) {
    if (const int status = note({.kind = Call::kCreate, .file = static_cast<int>(contents_.size()), .to = name})) {
      return status;
    }
    put(name, {});
    return 0;
  }

  std::vector<std::string> contents_;
  std::map<std::string, int> names_;
  std::set<int> locked_;
};

}  // namespace sm
