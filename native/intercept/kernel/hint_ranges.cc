#include "intercept/kernel/hint_ranges.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "correlate/hint.h"

namespace sm {

namespace {

constexpr uint16_t kPerRange = (HintAssociation::kHints - HintAssociation::kFirstHint) / HintRanges::kRanges;
static_assert(kPerRange * HintRanges::kRanges == HintAssociation::kHints - HintAssociation::kFirstHint);

bool setLock(int fd, uint16_t range, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = range;
  lock.l_len = 1;
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

}  // namespace

HintRanges::~HintRanges() {
  if (fd_ >= 0) close(fd_);
}

int HintRanges::acquire(const std::string& lockFile, std::string* why) {
  fd_ = open(lockFile.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) {
    const int error = errno;
    *why = "the hints of I/O priorities are shared through " + lockFile +
           ", which cannot be opened: " + std::strerror(error) + "; it takes root";
    return -error;
  }
  std::vector<uint16_t> got;
  for (uint16_t range = 0; range < kRanges; ++range) {
    if (setLock(fd_, range, F_WRLCK)) got.push_back(range);
  }
  if (got.empty()) {
    *why = "all hints of I/O priorities are taken by other probes of association hint: detach one of them";
    return -EBUSY;
  }
  const size_t keep = (got.size() + 1) / 2;
  for (size_t i = keep; i < got.size(); ++i) setLock(fd_, got[i], F_UNLCK);
  for (size_t i = 0; i < keep; ++i) {
    for (uint16_t hint = 0; hint < kPerRange; ++hint) {
      hints_.push_back(static_cast<uint16_t>(HintAssociation::kFirstHint + got[i] * kPerRange + hint));
    }
  }
  return 0;
}

}  // namespace sm
