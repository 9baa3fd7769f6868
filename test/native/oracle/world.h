// A deterministic world for the address map: virtual disks, devices in memory, a volume in between, and observers. One
// thread; a seeded scheduler picks what happens next, so that the I/Os of a queue overlap, overtake and outlive each
// other in every way. The observers are the real probe, the real filter and the real exchange of dispatch tables; each
// has an oracle that is told of everything from outside of them.
//
// A device does an I/O and completes it at two different steps; a failed write leaves the first half.
#pragma once

#include <stratamap/services.h>

#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "co.h"
#include "intercept/probe.h"
#include "map/event_ring.h"
#include "oracle/content.h"
#include "oracle/oracle.h"

namespace truth {

using oracle::Bytes;
using oracle::kBlock;
using oracle::Unit;

class World;
struct Watch;

// What a clone has of its parent.
struct Carriers {
  uint64_t serial = 0, spare[4] = {};
  void* privateData = nullptr;
  std::byte extension[SM_EXTENSION] = {};

  void take(const sm_request* from);
  void giveSerial(sm_request* to) const { to->serial = serial; }
  void giveFields(sm_request* to) const;
};

// What a volume sees of a request: of its carriers it keeps a copy, for a clone may be made after the request's end.
struct Guest {
  sm_request* request = nullptr;
  uint8_t op = 0;
  uint32_t disk = 0;
  uint64_t first = 0, blocks = 0;  // in blocks
  std::vector<std::byte*> memory;
  Carriers carriers;
  int slot = -1;  // of memory
  Unit unit(uint64_t i) const { return {disk, first + i}; }
};
using GuestPtr = std::shared_ptr<Guest>;

struct Child {
  sm_request* request = nullptr;
  bool done = false;
  int32_t status = 0;
  std::vector<iovec> iov;
  bool ok() const { return status == 0; }
};
using ChildPtr = std::shared_ptr<Child>;

class Volume {
 public:
  virtual ~Volume() = default;
  // A request has come; the volume completes it some time.
  virtual void submit(const GuestPtr& guest) = 0;
  // Something of its own to do, perhaps.
  virtual void background() {}
  virtual bool idle() const { return true; }
};

struct Observer {
  std::string association, correlation;
  // Whether the oracle knows what it has to answer. Of the others every answer has to be true, by bytes and owners.
  bool foretold() const { return correlation == "descend" && association != "address" && association != "content"; }
  oracle::Carrier carrier() const {
    return association == "serial"     ? oracle::Carrier::kSerial
           : association == "pointer"  ? oracle::Carrier::kPrivateData
           : association == "extended" ? oracle::Carrier::kExtension
                                       : oracle::Carrier::kSpare;
  }
};

struct WorldOptions {
  uint64_t seed = 1;
  std::function<std::unique_ptr<Volume>(World&)> volume;
  uint32_t disks = 3;
  uint64_t diskBlocks = 12, deviceBlocks = 96;  // of each; two devices
  uint64_t largest = 6;                         // blocks of a request
  bool spiky = false;                           // all of them are of one block or of the largest size
  size_t depth = 4;                             // requests in flight
  double failing = 0;                           // share of children that fail
  double wild = 0;                              // share of requests that use a live request's buffer
  double admin = 0;                             // share of steps that attach, detach, add or remove something
  double loss = 0;                              // share of requests that leave no room for an observer's frame
  double foreignField = 0;    // share of requests whose issuer uses the fields that the host leaves alone
  bool stuck = false;         // detaching gives up on what is in flight
  bool sharedDevice = false;  // of the two, one
  std::vector<Observer> observers = {{"serial", "descend"}};
  uint32_t capacity = 256, slots = 256;
  uint64_t shadowBytes = 1 << 20;
  bool exact = true;       // else the observers may say less
  bool onlyWrong = false;  // look for wrong mappings alone
};

struct Counts {
  uint64_t steps = 0, requests = 0, children = 0, mappedBlocks = 0, unmappedBlocks = 0, comparedBytes = 0, owners = 0,
           attaches = 0, losses = 0, overlaps = 0, collisions = 0, saidLess = 0, events = 0;
  // What an observer gave up: requests without a context, children without evidence, requests with too many doubts.
  uint64_t unrecorded = 0, evidenceLost = 0, taintOverflow = 0;
  Counts& operator+=(const Counts& o);
};

class World {
 public:
  explicit World(const WorldOptions& options);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // One random thing. False: a difference was found.
  bool step();
  // Submits nothing more; ends when nothing is in flight.
  bool drain();
  const std::string& difference() const { return difference_; }
  const Counts& counts() const { return counts_; }
  std::vector<std::unique_ptr<Watch>>& watches() { return watches_; }

  // --- for volumes
  std::mt19937_64 random;
  bool chance(double p) { return std::uniform_real_distribution<double>(0, 1)(random) < p; }
  uint64_t below(uint64_t n) { return n == 0 ? 0 : random() % n; }
  const WorldOptions& options() const { return options_; }
  const oracle::Content& content() const { return content_; }
  std::vector<sm_device*> devices();
  const sm_services* services() const { return &services_.table; }
  // Blocks of both devices are numbered through.
  const std::byte* deviceBlock(uint64_t place) const;
  std::byte* allocate(uint64_t* slot);  // memory for a request's blocks
  void free(uint64_t slot) { freeSlots_.push_front(slot); }
  // A child; `fill` may set its carriers. `full`: it leaves no room for an observer.
  ChildPtr issue(uint8_t op, uint64_t place, const std::vector<std::byte*>& memory, uint64_t blocks,
                 const std::function<void(sm_request*)>& fill, bool full = false);
  void complete(const GuestPtr& guest, bool ok);
  void spawn(Co<void> task);
  struct Pause {
    World& world;
    std::vector<ChildPtr> waits;
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> self);
    void await_resume() const {}
  };
  Pause pause() { return {*this, {}}; }
  Pause wait(std::vector<ChildPtr> children) { return {*this, std::move(children)}; }

  // --- for tests that choose what happens
  GuestPtr submit(uint8_t op, uint32_t disk, uint64_t first, uint64_t blocks);
  bool advance();  // lets one thing go on, and compares; false: a difference
  void compareAll();
  void attach(Watch& watch);
  void detach(Watch& watch);
  size_t inFlight() const { return guests_.size(); }
  bool quiet() const;
  bool endedInFlight() const { return endedInFlight_; }  // while it is being destroyed: after a difference

  static constexpr uint64_t kSlotBlocks = 32, kSlots = 400;

 private:
  friend struct Watch;
  struct Pooled;
  struct Filter;
  struct Device;
  struct Disk;
  struct Root {
    Co<void> task;
    std::coroutine_handle<> leaf;
    std::vector<ChildPtr> waits;
  };
  struct Pending {
    sm_request* request;
    uint32_t device;
    uint64_t order;
    bool effected = false;
    int32_t status = 0;
  };
  struct Services {
    sm_services table;
    World* world;
  };

  bool progress(bool mayVolunteer);
  bool runContract();
  void effect(Pending* pending);
  void finish(size_t index);
  void randomSubmit();
  void admin();
  void pumpUntil(const std::function<bool()>& done);
  void check(Watch& watch, bool all);
  void differ(const std::string& what);
  // With SM_TRACE in the environment, what happens is printed.
  void happens(const char* what, const sm_request* request, int64_t where);
  void tick(bool all);
  const bool tracing_ = std::getenv("SM_TRACE") != nullptr;
  Pooled* pooled();
  void release(sm_request* request);
  void taken(Device& device, sm_request* request);
  static void guestDone(sm_request* request, void* context, uint64_t word);
  sm_request* clone(const sm_request* parent, uint64_t from, uint64_t length);
  int32_t io(sm_device* device, uint8_t op, uint64_t offset, void* data, uint64_t length);
  int32_t filterDetach(Watch& watch, sm_disk* disk, void* context);
  int32_t everywhere(Watch& watch);
  void fillServices();

  const WorldOptions options_;
  Services services_{};
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<Disk>> disks_;
  std::vector<std::byte> memory_;
  std::deque<uint64_t> freeSlots_;
  std::vector<std::unique_ptr<Pooled>> pool_;
  std::vector<Pooled*> freeRequests_;
  std::vector<GuestPtr> guests_;
  std::vector<Pending> pending_;
  std::vector<std::unique_ptr<Root>> roots_;
  Root* running_ = nullptr;
  std::deque<sm_task*> posted_, waiters_;
  std::vector<sm_timer*> timers_;
  bool returned_ = false;
  uint64_t clock_ = 1, serial_ = 0, order_ = 0, generation_ = 0;
  oracle::Content content_;
  std::vector<std::unique_ptr<Watch>> watches_;
  std::unique_ptr<Volume> volume_;
  std::string difference_;
  Counts counts_;
  uint64_t epoch_ = 1;
  bool nested_ = false, endedInFlight_ = false;
  uint64_t happened_ = 0;  // in this step
};

// An observer under test, and its oracle.
struct Watch {
  struct Stack {
    sm_stack table;
    Watch* watch;
  } stack{};
  World& world;
  std::shared_ptr<sm::AddressMap> map = std::make_shared<sm::AddressMap>();
  std::unique_ptr<sm::Probe> probe;
  std::unique_ptr<sm::EventRing> ring;
  oracle::Oracle truth;
  sm::ProbeOptions options;
  std::vector<sm::DiskKey> diskKeys;
  std::vector<sm::DeviceKey> deviceKeys;
  std::vector<Unit> dirtyDisk, dirtyDevice;
  // What a counting driver below saw while watched: operations and bytes.
  std::vector<oracle::Tally> below;
  struct Completion {
    uint8_t op;
    int32_t status;
    uint32_t disk;
    uint64_t offset, length;
  };
  std::deque<Completion> expected;       // events
  std::vector<uint32_t> devicesInOrder;  // as they were added; a detach takes the last first
  std::vector<uint32_t> leavingDevices;  // those that everywhere() is being called for

  const bool exact, onlyWrong;  // see WorldOptions

  Watch(World& world, const Observer& observer, oracle::OracleOptions truth);
};

// compare.cc: what the observer answers against what its oracle says. Returns the first difference.
std::string compareDisk(Watch& watch, Unit first, uint64_t blocks, Counts* counts);
std::string compareDevice(Watch& watch, Unit first, uint64_t blocks, Counts* counts);
std::string compareExtents(Watch& watch, uint32_t disk);
std::string compareLedger(Watch& watch);
std::string compareEvents(Watch& watch, Counts* counts);

}  // namespace truth
