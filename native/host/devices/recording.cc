// The driver `recording`: I/O on a medium as `posix` does it, and a journal of it (journal.h), from which replay.h
// makes the medium as a crash at any instant may leave it.
//
// Opening copies what the medium holds into the journal, so that a replay needs nothing else. What cannot be recorded
// is not done: when the journal cannot be written, every request that would change the medium fails with its error.
//
// Thread contract: as Device. One mutex per device is held while a request is recorded, now and then for as long as it
// takes to write 1 MiB to the journal's file: this is a tool, and not the fast path. Invariants, under the mutex: the
// journal's order is that of issues and completions; of the changes in `running_`, in the order of issue, one that
// overlaps an earlier one is held until that has completed, so that what the medium ends up with is in the journal.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>
#include <vector>

#include "devices/check.h"
#include "devices/device.h"
#include "devices/journal.h"
#include "devices/open.h"
#include "devices/workers.h"

namespace sm::recording {

namespace {

constexpr unsigned kThreads = 8;
constexpr uint64_t kBasePiece = 64 << 10;  // bytes

void submit(const sm_device_ops*, sm_device* device, sm_request* request);

constexpr sm_device_ops kOps = {SM_CONTRACT_VERSION, sizeof(sm_device_ops), submit};

JournalRecord recordOf(JournalRecord::Kind kind, const sm_request& request, uint64_t id) {
  return {.kind = kind,
          .op = request.op,
          .flags = request.flags,
          .status = request.status,
          .id = id,
          .offset = request.offset,
          .length = request.length};
}

class RecordingDevice final : public Device {
 public:
  RecordingDevice(const OpenFile& file, std::unique_ptr<OwnedFd> fd, DeviceFacts facts,
                  std::unique_ptr<JournalWriter> journal)
      : fd_(std::move(fd)), journal_(std::move(journal)), workers_(file, kThreads) {
    facts_ = std::move(facts);
    facts_.driver = "recording";
    publish(&kOps);
  }

  void read(sm_request* request) { workers_.submit(request); }

  void record(sm_request* request) {
    std::lock_guard lock(mutex_);
    const uint64_t id = ++lastId_;
    request->status = 0;
    int32_t status = journal_->append(recordOf(JournalRecord::kIssue, *request, id), request);
    if (status == 0 && sm_request_push(request, onDone, this, id) != 0) {
      request->status = status = -ENOBUFS;  // too many frames above: it would complete unseen
      journal_->append(recordOf(JournalRecord::kComplete, *request, id), request);
    }
    if (status != 0) return IoThread::current()->completeLater(request, status);
    if (request->op == SM_OP_FLUSH) return workers_.submit(request);
    running_.push_back({id, request->offset, request->length, IoThread::current(), request});
    startFree(running_.size() - 1);
  }

 private:
  struct Change {
    uint64_t id, offset, length;
    IoThread* home;
    sm_request* held;  // null once it runs

    bool overlaps(const Change& other) const {
      return offset < other.offset + other.length && other.offset < offset + length;
    }
  };

  // Starts the changes from `first` on that are held, and need be no longer.
  void startFree(size_t first) {
    for (size_t i = first; i < running_.size(); ++i) {
      Change& change = running_[i];
      const auto end = running_.begin() + static_cast<ptrdiff_t>(i);
      if (!change.held || std::any_of(running_.begin(), end, [&](const Change& c) { return c.overlaps(change); })) {
        continue;
      }
      workers_.submit(std::exchange(change.held, nullptr), change.home);
    }
  }

  static void onDone(sm_request* request, void* context, uint64_t id) {
    static_cast<RecordingDevice*>(context)->completed(request, id);
    sm_request_pop(request);
  }

  void completed(sm_request* request, uint64_t id) {
    std::lock_guard lock(mutex_);
    int32_t status = journal_->append(recordOf(JournalRecord::kComplete, *request, id), request);
    if (status == 0 && request->op == SM_OP_FLUSH) status = journal_->writeOut();
    if (status != 0) request->status = status;
    const auto at = std::find_if(running_.begin(), running_.end(), [id](const Change& c) { return c.id == id; });
    if (at != running_.end()) startFree(running_.erase(at) - running_.begin());
  }

  const std::unique_ptr<OwnedFd> fd_;
  std::mutex mutex_;
  uint64_t lastId_ = 0;
  std::vector<Change> running_;
  const std::unique_ptr<JournalWriter> journal_;
  Workers workers_;
};

void submit(const sm_device_ops*, sm_device* device, sm_request* request) {
  auto* self = static_cast<RecordingDevice*>(device->driver);
  int32_t status;
  if (endsEarly(*device, *request, &status)) {
    IoThread::current()->completeLater(request, status);
  } else if (request->op == SM_OP_READ) {
    self->read(request);
  } else {
    self->record(request);
  }
}

// Records what the medium holds, without its holes and zeroes. Returns 0 or a negative errno.
int32_t recordBase(const OpenFile& file, const DeviceFacts& facts, JournalWriter& journal) {
  const Scratch scratch, data;
  for (uint64_t at = 0; at < facts.bytes;) {
    const off_t next = lseek(file.fd, static_cast<off_t>(at), SEEK_DATA);
    if (next < 0 && errno == ENXIO) break;
    if (next > 0) at = std::max<uint64_t>(at, next / facts.blockSize * facts.blockSize);
    if (at >= facts.bytes) break;
    iovec iov{data.data(), std::min<uint64_t>(kDeviceMaxTransfer, facts.bytes - at)};
    sm_request read{.op = SM_OP_READ, .offset = at, .length = iov.iov_len, .iov = &iov, .iov_count = 1};
    if (const int32_t status = execute(file, read, scratch)) return status;
    for (uint64_t from = 0; from < read.length; from += kBasePiece) {
      const char* bytes = static_cast<const char*>(data.data()) + from;
      const uint64_t length = std::min(kBasePiece, read.length - from);
      if (std::all_of(bytes, bytes + length, [](char byte) { return byte == 0; })) continue;
      iovec part{const_cast<char*>(bytes), length};
      const sm_request piece{.op = SM_OP_WRITE, .offset = at + from, .length = length, .iov = &part, .iov_count = 1};
      if (const int32_t status = journal.append(recordOf(JournalRecord::kBase, piece, 0), &piece)) return status;
    }
    at += read.length;
  }
  return journal.writeOut();
}

}  // namespace

Failure open(const DeviceSpec& spec, const std::vector<IoThread*>&, std::unique_ptr<Device>* out) {
  OpenFile file;
  DeviceFacts facts;
  if (Failure failure = openFile(spec, &file, &facts)) return failure;
  auto fd = std::make_unique<OwnedFd>(file.fd);
  facts.discardZeroes = false;  // after a crash it may hold what was there
  facts.journal = spec.journal;
  Failure failure;
  std::unique_ptr<JournalWriter> journal;
  if (facts.journal.empty() && file.blockDevice) {
    failure = journalFailure("of " + spec.path, EINVAL, "ERR_STRATAMAP_JOURNAL",
                             "a block device has no folder of its own for it; give a path as the journal");
  } else {
    if (facts.journal.empty()) facts.journal = spec.path + ".journal";
    failure = JournalWriter::create(facts.journal, facts.bytes, facts.blockSize, &journal);
  }
  if (!failure) {
    if (const int32_t status = recordBase(file, facts, *journal)) {
      unlink(facts.journal.c_str());
      failure =
          journalFailure(facts.journal, -status, nullptr, "what " + spec.path + " holds cannot be copied into it");
    }
  }
  if (failure) {
    failure.device = spec.name;
    return failure;
  }
  if (spec.shared) {
    facts.notices.push_back("device '" + spec.name + "': what others change on " + spec.path +
                            " is not in its journal");
  }
  *out = std::make_unique<RecordingDevice>(file, std::move(fd), std::move(facts), std::move(journal));
  return {};
}

}  // namespace sm::recording
