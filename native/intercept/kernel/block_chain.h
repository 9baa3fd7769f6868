// The block devices beneath a file, found through sysfs and the mount table: the device of its file system; where that
// is a loop device, the device beneath its backing file; and so on. A partition is its whole disk, for that is what the
// block layer tells of.
//
// Thread contract: any thread; may block.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sm {

struct BlockLevel {
  dev_t device = 0;        // of the whole disk
  std::string path;        // "/dev/loop9"
  std::string fileSystem;  // that lies on it: "ext4"
};

struct BlockChain {
  std::vector<BlockLevel> levels;  // top first; at least one
  std::string ends;                // why there is nothing beneath the last: one sentence
};

// 0, or a negative errno where there is no device to observe; `why` then says so.
int findBlockChain(const std::string& file, BlockChain* out, std::string* why);

// How many requests the device has in flight, also those that a scheduler holds; false where the system does not say.
// (sysfs `stat`, field 9, Documentation/block/stat.rst; `inflight` leaves out what a scheduler holds)
bool requestsInFlight(dev_t device, uint64_t* count);
// Whether several discards may become one request there, of which the block layer tells the first alone (sysfs
// `queue/max_discard_segments`).
bool mergesDiscards(dev_t device);
// For how long the block layer lets a request take, ns (sysfs `queue/io_timeout`).
uint64_t requestTimeout(dev_t device);

// One line of /proc/self/mountinfo (proc(5)).
struct MountEntry {
  uint64_t id = 0;
  std::string type, source;
};
bool parseMountEntry(const std::string& line, MountEntry* out);

}  // namespace sm
