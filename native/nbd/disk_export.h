// A virtual disk as an export.
#pragma once

#include <string>
#include <utility>

#include "disks/virtual_disk.h"
#include "nbd/export.h"

namespace sm::nbd {

struct DiskExportOptions {
  std::string name;  // empty: VM/DISK
  std::string description;
  bool readOnly = false;
  bool fastZeroes = false;  // the volume unmaps what is discarded, which no disk can tell of itself
};

class DiskExport final : public Export {
 public:
  DiskExport(VirtualDisk& disk, const DiskExportOptions& options)
      : Export(options.name.empty() ? nameOf(disk) : options.name, options.description),
        disk_(disk),
        options_(options) {}

  static std::string nameOf(VirtualDisk& disk) {
    return std::string(disk.contract()->vm) + "/" + disk.contract()->name;
  }

  IoThread& home() override { return disk_.home(); }
  ExportFacts facts() const override {
    ExportFacts facts;
    facts.bytes = disk_.bytes();
    facts.minimumBlock = disk_.contract()->block_size;
    facts.maxTransfer = kMaxTransfer;
    facts.readOnly = options_.readOnly;
    facts.discardZeroes = true;
    facts.fastZeroes = options_.fastZeroes;
    return facts;
  }
  sm_request* allocate() override { return disk_.allocate(); }
  void release(sm_request* request) override { disk_.release(request); }
  void submit(sm_request* request) override { disk_.enter(request); }

 private:
  VirtualDisk& disk_;
  const DiskExportOptions options_;
};

}  // namespace sm::nbd
