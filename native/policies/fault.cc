#include "policies/fault.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "policies/holder.h"

namespace sm {

struct Fault::Shared {
  struct Rule : FaultRule {
    Rule(const FaultRule& rule, uint64_t seed) : FaultRule(rule), seed(seed) {}
    const uint64_t seed;
    std::atomic<uint64_t> matched{0}, operations{0}, bytes{0};

    // Whether it strikes; *bits are for what it does then.
    bool strikes(const sm_request& request, uint64_t* bits) {
      if (!match(request) || (kind == FaultKind::kTorn && request.op != SM_OP_WRITE)) return false;
      const uint64_t n = matched.fetch_add(1, std::memory_order_relaxed);
      const uint64_t drawn = chance(seed, n);
      if (every != 0 ? (n + 1) % every != 0 : unit(drawn) >= probability) return false;
      *bits = chance(seed ^ drawn, n);
      operations.fetch_add(1, std::memory_order_relaxed);
      bytes.fetch_add(request.length, std::memory_order_relaxed);
      return true;
    }
  };
  std::vector<std::unique_ptr<Rule>> rules;
  std::shared_ptr<HolderTally> tally;  // of completions that were put off: nobody asks
};

namespace {

// What reaches the device of a request: runs of its blocks, by a request of our own that carries what a clone would.
struct Part {
  sm_request request;
  iovec iov[SM_IOV_MAX];
  alignas(16) unsigned char extension[SM_EXTENSION];
  void* owner;
  uint32_t lane;
  Part* nextFree;

  sm_request* whole;
  const sm_device_ops* next;
  uint64_t block;    // bytes
  uint64_t at, end;  // blocks of the whole that are still to be decided; what is from `end` on stays away
  uint64_t missing;  // a block that stays away; of a torn write
  uint64_t longest;  // blocks in a run
  uint64_t seed, drawn;
  bool torn, reaches;  // `reaches`: the next run does
  bool any;            // has reached

  void begin(sm_request* of, const sm_device_ops* through, uint64_t blockSize, FaultKind kind, uint64_t bits) {
    whole = of;
    next = through;
    block = blockSize;
    torn = kind == FaultKind::kTorn;
    const uint64_t blocks = of->length / block;
    at = 0;
    end = torn ? blocks : 1 + bits % (blocks - 1);
    missing = torn ? bits % blocks : blocks;
    longest = torn ? std::max<uint64_t>(1, blocks / 4) : end;
    seed = bits;
    drawn = 0;
    any = false;
    reaches = torn ? (bits >> 32) & 1 : true;
  }

  // The next run that reaches the device; false: there is none any more.
  bool nextRun(uint64_t* from, uint64_t* blocks) {
    while (at < end) {
      uint64_t length = torn ? 1 + chance(seed, drawn++) % longest : end;
      length = std::min(length, end - at);
      const bool reach = std::exchange(reaches, !reaches);
      *from = at;
      if (reach && at <= missing && missing - at < length) {
        length = missing - at;
        at = missing + 1;
      } else {
        at += length;
      }
      *blocks = length;
      if (reach && length > 0) return any = true;
    }
    if (any) return false;
    *from = (missing + 1) % end;  // of a torn write: a short one's first run reaches
    *blocks = 1;
    return any = true;
  }

  void fill(uint64_t from, uint64_t length) {
    std::memset(&request, 0, offsetof(sm_request, extension));
    request.op = whole->op;
    request.ioprio = whole->ioprio;
    request.flags = whole->flags;
    request.offset = whole->offset + from;
    request.length = length;
    request.serial = whole->serial;
    request.device = whole->device;
    request.private_data = whole->private_data;
    std::memcpy(request.spare, whole->spare, sizeof request.spare);
    request.extension = extension;
    std::memcpy(extension, whole->extension, SM_EXTENSION);
    request.frame_count = request.reserved1 = 0;
    if (!whole->iov) return;
    request.iov = iov;
    for (uint32_t i = 0; i < whole->iov_count && i < SM_IOV_MAX && length > 0; ++i) {
      const iovec& segment = whole->iov[i];
      if (from >= segment.iov_len) {
        from -= segment.iov_len;
        continue;
      }
      const uint64_t bytes = std::min<uint64_t>(length, segment.iov_len - from);
      iov[request.iov_count++] = {static_cast<char*>(segment.iov_base) + from, bytes};
      length -= bytes;
      from = 0;
    }
  }
};

}  // namespace

// Invariant: a request that was struck is counted, in `struck_` while something of it is at the device, or as waiting
// in the holder, until its frames run. Nothing is put off once submit has returned: it could outlast the last release.
class Fault::Point : public Holder {
 public:
  static constexpr uint32_t kParts = 64;  // for each thread

  Point(const sm_stack* stack, std::shared_ptr<Shared> shared)
      : Holder(stack, shared->tally), shared_(std::move(shared)), free_(stack->threads(stack)) {
    parts_.reset(new Part[kParts * free_.size()]);
    for (uint32_t lane = 0; lane < free_.size(); ++lane) {
      free_[lane] = nullptr;
      for (uint32_t i = 0; i < kParts; ++i) {
        Part& part = parts_[lane * kParts + i];
        part.owner = this;
        part.lane = lane;
        part.nextFree = std::exchange(free_[lane], &part);
      }
    }
  }

  void submit(const sm_device_ops* next, sm_device* device, sm_request* request) override {
    uint64_t bits = 0;
    for (auto& rule : shared_->rules) {
      if (rule->strikes(*request, &bits)) return strike(*rule, bits, next, device, request);
    }
    next->submit(next, device, request);
  }
  uint64_t inside() const override { return waiting() + struck_.load(std::memory_order_acquire); }
  const char* name() const override { return "fault"; }

 private:
  void strike(const FaultRule& rule, uint64_t bits, const sm_device_ops* next, sm_device* device, sm_request* request) {
    const uint64_t block = std::max<uint64_t>(512, device->block_size);
    if (rule.kind != FaultKind::kError && request->op != SM_OP_FLUSH && request->length / block > 1) {
      // Where all are in use, nothing of the request reaches the device.
      if (Part* part = takePart()) {
        struck_.fetch_add(1, std::memory_order_relaxed);
        DispatchChain::hold(next);
        part->begin(request, next, block, rule.kind, bits);
        if (advance(part)) return;
        give(part);
        complete(request, -EIO);
        struck_.fetch_sub(1, std::memory_order_release);
        return;
      }
    }
    const int32_t status = rule.kind == FaultKind::kError ? -rule.error : -EIO;
    if (request->op != SM_OP_READ) return complete(request, status);
    struck_.fetch_add(1, std::memory_order_relaxed);
    if (sm_request_push(request, wasRead, this, static_cast<uint32_t>(-status)) != 0) {
      struck_.fetch_sub(1, std::memory_order_release);
      return complete(request, status);
    }
    next->submit(next, device, request);
  }

  static void wasRead(sm_request* request, void* context, uint64_t error) {
    auto* point = static_cast<Point*>(context);
    if (request->status == 0) request->status = -static_cast<int32_t>(error);
    point->struck_.fetch_sub(1, std::memory_order_release);  // it may be gone from here on
    sm_request_pop(request);
  }

  Part* takePart() {
    const uint32_t thread = stack()->thread(stack());
    if (thread >= free_.size() || !free_[thread]) return nullptr;
    return std::exchange(free_[thread], free_[thread]->nextFree);
  }

  // Sends the next run; false: there is none any more.
  static bool advance(Part* part) {
    uint64_t from, blocks;
    if (!part->nextRun(&from, &blocks)) return false;
    part->fill(from * part->block, blocks * part->block);
    sm_request_push(&part->request, landed, part, 0);
    part->next->submit(part->next, part->request.device, &part->request);
    return true;
  }

  void give(Part* part) {
    DispatchChain::letGo(part->next);
    part->nextFree = std::exchange(free_[part->lane], part);
  }

  static void landed(sm_request*, void* context, uint64_t) {
    auto* part = static_cast<Part*>(context);
    if (advance(part)) return;
    auto* point = static_cast<Point*>(part->owner);
    sm_request* whole = part->whole;
    point->give(part);
    point->struck_.fetch_sub(1, std::memory_order_release);  // it may be gone from here on
    sm_request_complete(whole, -EIO);
  }

  const std::shared_ptr<Shared> shared_;
  std::vector<Part*> free_;  // by thread
  std::unique_ptr<Part[]> parts_;
  std::atomic<uint64_t> struck_{0};
};

Fault::Fault(const sm_stack* stack, uint64_t seed, std::vector<FaultRule> rules)
    : Policy(stack), shared_(std::make_shared<Shared>()) {
  shared_->tally = std::make_shared<HolderTally>(stack);
  for (size_t i = 0; i < rules.size(); ++i) {
    shared_->rules.push_back(std::make_unique<Shared::Rule>(rules[i], chance(seed, i)));
  }
}

std::unique_ptr<Interposer> Fault::make() { return std::make_unique<Point>(stack(), shared_); }

std::vector<FaultCounters> Fault::counters() const {
  std::vector<FaultCounters> out;
  for (const auto& rule : shared_->rules) out.push_back({rule->matched, rule->operations, rule->bytes});
  return out;
}

}  // namespace sm
