// `limit`: holds the physical I/O of one virtual disk to a rate, in operations and bytes per second (rule 11).
//
// Whose a request is its own association says, when it arrives. What is another disk's, or nobody's that is known (a
// volume's own metadata, a late child), goes through at once, and touches nothing that the limited disk's I/O touches
// but the map's lock, which the probe takes for every request in any case, and the thread's requests: what waits keeps
// its own and its issuer's, so once a thread's pool is all in what waits, the other disks on that thread wait too.
//
// A request costs one operation and its length; a discard or write-zeroes an operation and no bytes.
//
// The bucket grants in the order of arrival: a request's time is the earliest at which both rates have room for it, and
// room that is not used is saved for at most `burst`. So between any two instants no more is let through than rate ×
// (time + burst), and one request. A request that is larger than the burst is let through when the bucket is full, and
// the next ones pay for it.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "intercept/probe.h"
#include "policies/holder.h"
#include "policies/policy.h"

namespace sm {

struct LimitOptions {
  double iops = 0;            // physical operations per second; 0: no limit
  double bytesPerSecond = 0;  // 0: no limit
  uint64_t burst = 0;         // ns

  static constexpr double kLeast = 1e-3, kMost = 1e15;        // of a rate
  static constexpr uint64_t kMostBurst = 86'400'000'000'000;  // ns
};

struct LimitCounters : HolderCounters {  // `passed`: of the disk, and at once
  uint64_t foreign = 0;                  // of others: passed at once
  uint64_t foreignHeld = 0;              // found to be another disk's when they went on: always 0
};

// Thread contract: any thread; its lock is met by the limited disk's I/O alone.
class Bucket {
 public:
  explicit Bucket(const LimitOptions& options) : options_(options) {}
  // When a request of so many bytes that arrives now may go on; with the first call the account begins, full. Where
  // that is later than now, goesOn is called when the request does.
  uint64_t grant(uint64_t now, uint64_t bytes);
  void goesOn(uint64_t due, uint64_t bytes);
  // From now on at other rates, with nothing saved. What has gone on and is not paid for yet stays owed; what has been
  // granted and waits is in the account no more.
  void set(const LimitOptions& options, uint64_t now);

 private:
  struct Account {
    double operations = 0, bytes = 0;  // ns since begin_ at which the next request has room
  };
  void charge(Account& account, double due, uint64_t bytes) const;

  std::mutex mutex_;
  LimitOptions options_;
  bool begun_ = false;
  uint64_t begin_ = 0;  // ns
  Account granted_;     // with all that waits
  Account gone_;        // without
};

class Limit : public Policy {
 public:
  // Returns 0, or -ENOTSUP with `why`: the probe does not attribute requests when they are issued. Where the probe is
  // detached first, everything passes from then on.
  static int create(const sm_stack* stack, Probe& probe, const DiskName& disk, const LimitOptions& options,
                    std::unique_ptr<Limit>* out, std::string* why);

  // New rates, for what is held back already as well. Returns 0, or -ETIMEDOUT where a thread has not answered in
  // `timeout` ns: what it holds goes on as was granted before.
  int update(const LimitOptions& options, uint64_t timeout);
  LimitCounters counters() const;

 protected:
  std::unique_ptr<Interposer> make() override;

 private:
  class Point;
  struct Shared;
  Limit(const sm_stack* stack, std::shared_ptr<Shared> shared);

  const std::shared_ptr<Shared> shared_;
};

}  // namespace sm
