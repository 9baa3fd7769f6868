// One connection of the lean client: requests go out of a ring whose places have their payload already, replies are
// counted and their data is passed over. Nothing is allocated, and nothing of a payload copied, while it runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace bench {

class NbdStream {
 public:
  struct Load {
    bool writes = false, sequential = false;
    uint32_t block = 4096, depth = 1;
  };

  // Connects and shakes hands; ends the program with a message where that fails.
  NbdStream(const std::string& path, const std::string& name, const Load& load, uint64_t seed);
  ~NbdStream();
  NbdStream(const NbdStream&) = delete;
  NbdStream& operator=(const NbdStream&) = delete;

  int fd() const { return fd_; }
  uint64_t bytes() const { return bytes_; }  // of the export
  uint32_t inFlight() const { return inFlight_; }
  bool blocked() const { return sent_ < queued_; }  // wants to send

  void fill(uint64_t most);  // queues up to `most` requests, as far as the depth goes
  void send();
  uint64_t receive();  // how many replies came

 private:
  uint64_t nextOffset();

  const Load load_;
  uint64_t bytes_ = 0;
  const int fd_;
  uint64_t random_, next_ = 0;
  uint32_t inFlight_ = 0;
  size_t place_;                     // bytes of a request, with its payload
  std::unique_ptr<uint8_t[]> ring_;  // `depth` places
  uint64_t queued_ = 0, sent_ = 0;   // bytes
  std::unique_ptr<uint8_t[]> input_;
  uint8_t head_[16];
  size_t headBytes_ = 0;  // of a reply that has come in part
  size_t dataBytes_ = 0;  // of a reply's data, to come
};

}  // namespace bench
