// Native workloads for JavaScript.
#include "disks/workload.h"

#include <atomic>
#include <cmath>
#include <memory>
#include <utility>

#include "binding/addon.h"
#include "binding/arguments.h"
#include "binding/environment.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/job.h"

namespace sm::binding {
namespace {

// One workload. It holds itself from the call until its result has been delivered; a Letter, because that is how the
// result comes.
class Run : public Guest, public Letter {
 public:
  static std::shared_ptr<Run> begin(Napi::Env env, std::shared_ptr<DiskBox> disk, const WorkloadOptions& options) {
    auto run = std::make_shared<Run>(env, std::move(disk), options);
    run->self_ = run;
    run->start();
    return run;
  }

  Run(Napi::Env env, std::shared_ptr<DiskBox> disk, const WorkloadOptions& options)
      : Guest(disk.get()),
        disk_(std::move(disk)),
        environment_(Environment::of(env)),
        deferred_(Napi::Promise::Deferred::New(env)),
        workload_(std::make_unique<Workload>(*disk_->disk, options)) {
    deliver = [](Letter* letter) { static_cast<Run*>(letter)->delivered(); };
    environment_.mailbox.hold();
    disk_->begin();
    disk_->volume->host->guests.insert(this);
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

  // The load ends, without reading back.
  void stop() override {
    if (!workload_) return;
    workload_->stop();
    workload_->stop();
  }

  void end() override {
    stop();
    ended_.wait(false, std::memory_order_acquire);
    workload_.reset();
  }

 private:
  void start() {
    workload_->start([this](const WorkloadResult& result) {
      Run* const run = this;  // end() may destroy this function as soon as it may go on
      run->result_ = std::make_unique<WorkloadResult>(result);
      run->ended_.store(true, std::memory_order_release);
      run->ended_.notify_all();
      run->environment_.mailbox.send(run);
    });
  }

  void delivered() {
    const Napi::Env env = environment_.env;
    const auto held = std::move(self_);
    disk_->volume->host->guests.erase(this);
    workload_.reset();
    try {
      if (disk_->closed) {
        deferred_.Reject(toError(env, closedFailure("disk", "disk " + disk_->vm + "/" + disk_->name)));
      } else {
        deferred_.Resolve(toObject(env));
      }
    } catch (const Napi::Error&) {
      // The environment is ending.
    }
    environment_.mailbox.letGo();
    disk_->end();
  }

  Napi::Object toObject(Napi::Env env) const {
    const WorkloadResult& from = *result_;
    Napi::Object to = Napi::Object::New(env);
    const auto number = [&](const char* name, uint64_t value) { to[name] = double(value); };
    number("operations", from.operations);
    number("bytes", from.bytes);
    number("errors", from.errors);
    number("mismatches", from.mismatches);
    number("reads", from.reads);
    number("writes", from.writes);
    number("discards", from.discards);
    number("zeroes", from.zeroes);
    number("flushes", from.flushes);
    number("verifiedBytes", from.verifiedBytes);
    number("elapsed", from.elapsedNs);
    number("cpu", from.cpuNs);
    if (from.firstError) {
      Napi::Object error = Napi::Object::New(env);
      error["code"] = errnoName(-from.firstError);
      error["offset"] = double(from.firstErrorOffset);
      to["firstError"] = error;
    }
    if (!from.firstMismatch.empty()) to["firstMismatch"] = from.firstMismatch;
    const auto& latency = from.latency;
    Napi::Object percentiles = Napi::Object::New(env);
    percentiles["p50"] = double(latency.percentile(50));
    percentiles["p90"] = double(latency.percentile(90));
    percentiles["p99"] = double(latency.percentile(99));
    percentiles["p999"] = double(latency.percentile(99.9));
    percentiles["max"] = double(latency.percentile(100));
    to["latency"] = percentiles;
    std::vector<double> buckets;  // lowest value, count
    for (int i = 0; i < LatencyHistogram::kBuckets; ++i) {
      if (!latency.counts[i]) continue;
      buckets.push_back(double(LatencyHistogram::lowest(i)));
      buckets.push_back(double(latency.counts[i]));
    }
    auto histogram = Napi::Float64Array::New(env, buckets.size());
    std::copy(buckets.begin(), buckets.end(), histogram.Data());
    to["histogram"] = histogram;
    return to;
  }

  std::shared_ptr<Run> self_;
  std::shared_ptr<DiskBox> disk_;
  Environment& environment_;
  Napi::Promise::Deferred deferred_;
  std::unique_ptr<Workload> workload_;
  std::unique_ptr<WorkloadResult> result_;
  std::atomic<bool> ended_{false};
};

WorkloadOptions optionsOf(const Napi::Object& from) {
  WorkloadOptions options;
  options.pattern = textOf(from.Get("pattern"));
  options.blockSize = numberOf(from.Get("blockSize"));
  options.queueDepth = uint32_t(numberOf(from.Get("queueDepth")));
  options.seconds = from.Get("seconds").As<Napi::Number>().DoubleValue();
  options.operations = numberOf(from.Get("operations"));
  options.seed = numberOf(from.Get("seed"));
  options.verify = flagOf(from.Get("verify"));
  options.offset = numberOf(from.Get("offset"));
  options.length = numberOf(from.Get("length"));
  options.readPercent = from.Get("readPercent").As<Napi::Number>().DoubleValue();
  options.discardPercent = from.Get("discardPercent").As<Napi::Number>().DoubleValue();
  options.zeroesPercent = from.Get("zeroesPercent").As<Napi::Number>().DoubleValue();
  options.flushPercent = from.Get("flushPercent").As<Napi::Number>().DoubleValue();
  return options;
}

// startWorkload(disk, options): { handle, result: promise }.
Napi::Value startWorkload(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto& disk = unwrap<DiskBox>(env, info[0]);
  const WorkloadOptions options = optionsOf(info[1].As<Napi::Object>());
  Napi::Object result = Napi::Object::New(env);
  Failure failure = disk->usable() ? Workload::checkOptions(*disk->disk, options)
                                   : closedFailure("disk", "disk " + disk->vm + "/" + disk->name);
  if (failure) {
    result["result"] = rejected(env, failure);
    return result;
  }
  const auto run = Run::begin(env, disk, options);
  result["handle"] = wrap(env, run);
  result["result"] = run->promise();
  return result;
}

// stopWorkload(workload): no new I/O, no reading back; its promise still resolves.
void stopWorkload(const Napi::CallbackInfo& info) { unwrap<Run>(info.Env(), info[0])->stop(); }

}  // namespace

void addWorkload(Napi::Object exports) {
  addFunction<startWorkload>(exports, "startWorkload");
  addFunction<stopWorkload>(exports, "stopWorkload");
}

}  // namespace sm::binding
