// Whether the way down to the devices keeps priorities and bytes: tried with a block of a file that has no name, in the
// same folder as the disks. What a file system or a device in between changes (fscrypt, dm-crypt, compression), or
// writes at another time (btrfs with checksums), is found out here, before a guest's first request.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <random>
#include <utility>

#include "correlate/hint.h"
#include "intercept/kernel/observer.h"
#include "intercept/kernel/tagged_io.h"

namespace sm {

// A block of some request of late, against what stands in its places.
void Observer::compareSample() {
  Sample sample;
  std::vector<std::string> paths;
  {
    std::lock_guard lock(map_.mutex());
    if (!correlator_.takeSample(&sample)) return;
    for (const Place& place : sample.places) {
      const auto device =
          std::find_if(devices_.begin(), devices_.end(), [&](const Device& each) { return each.key == place.device; });
      paths.push_back(device == devices_.end() ? "" : device->level.path);
    }
  }
  // Direct I/O wants whole blocks.
  const uint64_t length = sample.virt.length() / 512 * 512;
  std::byte found[Sample::kMost];
  size_t differs = 0;
  while (differs < paths.size()) {
    const uint64_t offset = sample.places[differs].offset;
    if (!readPlaces(paths[differs], {{offset, offset + length}}, correlator_.hints()->ownPriority(), found)) return;
    if (std::memcmp(found, sample.bytes.data(), length) != 0) break;
    ++differs;
  }
  std::lock_guard lock(map_.mutex());
  drain();
  if (!correlator_.holdsStill(sample) || differs == paths.size()) return;
  correlator_.distrust(sample.disk, differs);
  notices_.push_back("nothing is mapped on to " + paths[differs] +
                     " any more: what is there is not what was written. Something in between changes it");
}

void Observer::checkStack(const std::string& folder, const BlockChain& chain, const std::vector<DeviceKey>& keys,
                          size_t* trusted, std::string* found) {
  *trusted = 0;
  const File file(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600));
  const Block block = makeBlock(), back = makeBlock();
  std::random_device random;
  for (size_t i = 0; i < kBlock / sizeof(unsigned); ++i) {
    const unsigned word = random();
    std::memcpy(block.get() + i * sizeof word, &word, sizeof word);
  }
  {
    std::lock_guard lock(map_.mutex());
    drain();
    seen_.clear();
    checking_ = true;
  }
  const int error = file.fd() < 0 ? -errno : writeBlock(file.fd(), correlator_.hints()->ownPriority(), block.get());
  std::vector<BlockIo> seen;
  {
    std::lock_guard lock(map_.mutex());
    drain();
    checking_ = false;
    seen.swap(seen_);
  }
  const std::string where = "nothing is mapped through " + folder;
  if (error != 0) {
    *found = where + ": no direct I/O can be tried there (" + std::strerror(-error) + ")";
    return;
  }
  for (; *trusted < chain.levels.size(); ++*trusted) {
    const std::string& device = chain.levels[*trusted].path;
    const std::string onto = *trusted == 0 ? where : where + " on to " + device;
    std::vector<Range> places;
    uint64_t bytes = 0;
    for (const BlockIo& io : seen) {
      if (io.device != keys[*trusted] || io.kind != BlockIo::kStart || io.op != SM_OP_WRITE) continue;
      places.push_back(io.phys);
      bytes += io.phys.length();
    }
    if (bytes != kBlock) {
      *found = onto + ": writes reach " + device +
               " without their I/O priority. That is so with btrfs's checksums and compression, and with loop devices "
               "of kernels before 6.12.25";
      return;
    }
    if (!readPlaces(device, places, correlator_.hints()->ownPriority(), back.get()) ||
        std::memcmp(block.get(), back.get(), kBlock) != 0) {
      *found =
          onto + ": what is on " + device + " is not what was written: something in between encrypts or changes it";
      return;
    }
  }
}

}  // namespace sm
