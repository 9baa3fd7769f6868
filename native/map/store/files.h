// What a store asks of the file system, and no more. Tests put in its place one that keeps, fails or loses what it is
// asked.
//
// Every call returns 0 (or a count) or a negative errno. Thread contract: one thread at a time for each file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace sm {

class StoreFile {
 public:
  StoreFile() = default;
  StoreFile(const StoreFile&) = delete;
  StoreFile& operator=(const StoreFile&) = delete;
  virtual ~StoreFile() = default;  // closes it, and lets go of its lock

  virtual int64_t size() = 0;
  // Exactly `length` bytes: -EIO where there are fewer.
  virtual int read(uint64_t at, void* bytes, size_t length) = 0;
  virtual int write(uint64_t at, const void* bytes, size_t length) = 0;
  virtual int truncate(uint64_t length) = 0;
  virtual int sync() = 0;
};

class StoreFiles {
 public:
  StoreFiles() = default;
  StoreFiles(const StoreFiles&) = delete;
  StoreFiles& operator=(const StoreFiles&) = delete;
  virtual ~StoreFiles() = default;

  // The file at *path, made where there is none, and locked: -EWOULDBLOCK where another has it, -EINVAL where it is no
  // regular file. *path becomes the same without links and from the root.
  virtual int open(std::string* path, std::unique_ptr<StoreFile>* out) = 0;
  // A new file in the place of any, locked, with the rights of the file at `like`.
  virtual int create(const std::string& path, const std::string& like, std::unique_ptr<StoreFile>* out) = 0;
  virtual int rename(const std::string& from, const std::string& to) = 0;
  // Makes what was renamed there durable.
  virtual int syncFolderOf(const std::string& path) = 0;
  virtual int remove(const std::string& path) = 0;

  static StoreFiles& system();
};

}  // namespace sm
