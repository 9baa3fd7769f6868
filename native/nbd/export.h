// What an NBD server serves under a name: bytes that requests can be sent to, a virtual disk's or a device's.
//
// Thread contract: constructed and given its contexts before a server has it; name, description, facts and contexts
// from any thread; allocate, release and submit on the home I/O thread. It outlives every connection to it: a server
// gives it back (Server::removeExport) before what is below it is closed.
#pragma once

#include <stratamap/request.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/io_thread.h"
#include "nbd/meta_context.h"

namespace sm::nbd {

struct ExportFacts {
  uint64_t bytes = 0;
  uint32_t minimumBlock = kDefaultBlock;  // bytes, a power of two: offsets and lengths are multiples of it
  uint32_t maxTransfer = 1 << 20;         // bytes: no request that carries data is longer
  bool readOnly = false;
  bool discardZeroes = false;  // what is discarded reads as zeroes
  bool fastZeroes = false;     // a hole is made faster than data is written
};

class Export {
 public:
  Export(std::string name, std::string description) : name_(std::move(name)), description_(std::move(description)) {
    contexts_.push_back(std::make_unique<AllData>());
  }
  virtual ~Export() = default;
  Export(const Export&) = delete;
  Export& operator=(const Export&) = delete;

  const std::string& name() const { return name_; }
  const std::string& description() const { return description_; }
  const std::vector<std::unique_ptr<MetaContext>>& contexts() const { return contexts_; }
  // One of the same name takes the place of the one there is.
  void addContext(std::unique_ptr<MetaContext> context) {
    for (auto& each : contexts_) {
      if (each->name() == context->name()) {
        each = std::move(context);
        return;
      }
    }
    contexts_.push_back(std::move(context));
  }

  virtual IoThread& home() = 0;
  virtual ExportFacts facts() const = 0;
  // A request for submit, or null: IoThread::wait for one. Released by whoever allocated it, after its completion.
  virtual sm_request* allocate() = 0;
  virtual void release(sm_request* request) = 0;
  // Op, flags, range and data are filled in, the issuer's frame is pushed. May complete before it returns.
  virtual void submit(sm_request* request) = 0;

 private:
  const std::string name_, description_;
  std::vector<std::unique_ptr<MetaContext>> contexts_;
};

}  // namespace sm::nbd
