#include "intercept/kernel/trace_decoder.h"

#include <stratamap/request.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sys/tracefs.h"

namespace sm {

namespace {

constexpr const char* kNames[] = {"block/block_io_start", "block/block_bio_backmerge", "block/block_bio_frontmerge",
                                  "block/block_rq_issue", "block/block_bio_queue"};
constexpr uint64_t kSector = 512;

template <class T>
T at(std::span<const std::byte> record, uint32_t offset) {
  T value;
  std::memcpy(&value, record.data() + offset, sizeof value);
  return value;
}

}  // namespace

uint32_t TraceDecoder::numberOf(dev_t device) { return major(device) << 20 | minor(device); }

uint8_t TraceDecoder::opOf(std::string_view rwbs) {
  // An F in front is a flush before what follows, or a flush alone.
  if (rwbs.size() > 1 && rwbs[0] == 'F' && std::string_view("WDRNZ").find(rwbs[1]) != rwbs.npos) rwbs.remove_prefix(1);
  switch (rwbs.empty() ? '\0' : rwbs[0]) {
    case 'R':
      return SM_OP_READ;
    case 'W':
      return SM_OP_WRITE;
    case 'F':
      return SM_OP_FLUSH;
    case 'D':
      return SM_OP_DISCARD;
    default:
      return SM_OP_WRITE_ZEROES;
  }
}

int TraceDecoder::use(BlockIo::Kind kind, const Tracepoint& point) {
  const bool hasPriority = kind == BlockIo::kStart || kind == BlockIo::kIssue;
  const TraceField* const dev = point.field("dev", 4);
  const TraceField* const sector = point.field("sector", 8);
  const TraceField* const sectors = point.field("nr_sector", 4);
  const TraceField* const ioprio = point.field("ioprio", 2);
  const TraceField* const thread = point.field("common_pid", 4);
  const auto rwbs = std::find_if(point.fields.begin(), point.fields.end(),
                                 [](const TraceField& each) { return each.name == "rwbs" && each.size > 0; });
  if (!dev || !thread || !sector || !sectors || rwbs == point.fields.end() || (hasPriority && !ioprio) ||
      point.id > UINT16_MAX) {
    return -EOPNOTSUPP;
  }
  Layout& layout = layouts_[kind];
  layout = {static_cast<uint16_t>(point.id),  dev->offset,   sector->offset, sectors->offset, rwbs->offset, rwbs->size,
            hasPriority ? ioprio->offset : 0, thread->offset};
  for (const TraceField* field : {dev, thread, sector, sectors, hasPriority ? ioprio : dev, &*rwbs}) {
    layout.size = std::max(layout.size, field->offset + field->size);
  }
  return 0;
}

int TraceDecoder::open(std::string* why) {
  Tracefs tracefs;
  if (const int error = tracefs.open(why)) return error;
  for (size_t kind = 0; kind < kEvents; ++kind) {
    Tracepoint point;
    if (const int error = tracefs.read(kNames[kind], &point, why)) return error;
    if (const int error = use(static_cast<BlockIo::Kind>(kind), point)) {
      *why = std::string("the kernel's event ") + kNames[kind] +
             " does not tell the device, the sectors or the I/O priority: Linux 6.5 is needed";
      return error;
    }
  }
  return 0;
}

std::vector<uint64_t> TraceDecoder::tracepoints() const {
  std::vector<uint64_t> ids;
  for (const Layout& layout : layouts_) ids.push_back(layout.id);
  return ids;
}

bool TraceDecoder::decode(std::span<const std::byte> record, uint32_t* device, BlockIo* out) const {
  if (record.size() < sizeof(uint16_t)) return false;
  const auto id = at<uint16_t>(record, 0);  // common_type
  for (size_t kind = 0; kind < kEvents; ++kind) {
    const Layout& layout = layouts_[kind];
    if (layout.id != id || record.size() < layout.size) continue;
    const auto sector = at<uint64_t>(record, layout.sector);
    const auto sectors = at<uint32_t>(record, layout.sectors);
    const char* const rwbs = reinterpret_cast<const char*>(record.data()) + layout.rwbs;
    out->kind = static_cast<BlockIo::Kind>(kind);
    out->op = opOf({rwbs, strnlen(rwbs, layout.rwbsSize)});
    out->ioprio = layout.ioprio ? at<uint16_t>(record, layout.ioprio) : 0;
    // A flush has sector -1.
    const bool placed = sectors > 0 && sector <= (UINT64_MAX >> 10) / kSector;
    out->phys = placed ? Range{sector * kSector, (sector + sectors) * kSector} : Range{};
    out->thread = at<uint32_t>(record, layout.thread);
    *device = at<uint32_t>(record, layout.device);
    return true;
  }
  return false;
}

}  // namespace sm
