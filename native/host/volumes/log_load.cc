// Reading a log volume's metadata, and writing it for the first time.
#include <algorithm>
#include <cerrno>

#include "log_journal.h"

namespace sm {

struct LogJournal::Scan {
  uint64_t generation = 0;  // 0: the area begins with no whole page
  uint32_t pages = 0;       // of whole batches
  bool damaged = false;     // a page is not whole, though a batch that was written later is
};

int32_t LogJournal::format(const sm_services* services, sm_device* device, const LogLayout& layout,
                           const uint8_t uuid[16], sm_error* error) {
  const PageMemory memory = allocatePages(kPage);
  if (!memory) return report(error, -ENOMEM, "no memory for the volume's map");
  if (int32_t status = mediumIo(services, device, SM_OP_WRITE, layout.areaAt(1), memory.get(), kPage, error))
    return status;
  LogPage page{};
  page.magic = kLogMagic;
  page.generation = 1;
  memcpy(page.uuid, uuid, sizeof page.uuid);
  page.last = 1;
  page.crc = logChecksum(page);
  memcpy(memory.get(), &page, sizeof page);
  return mediumIo(services, device, SM_OP_WRITE, layout.areaAt(0), memory.get(), kPage, error);
}

bool LogJournal::whole(const LogPage& page, uint32_t area, uint32_t number, uint64_t generation) const {
  return page.magic == kLogMagic && page.generation == generation && generation > 0 && page.number == number &&
         page.area == area && page.count <= kRecordsPerPage && page.last <= 1 &&
         !memcmp(page.uuid, uuid_, sizeof uuid_) && page.crc == logChecksum(page);
}

// Until the first page that is not whole, and a little further than what is whole behind it: were that the end of a
// batch, its last page shows that it was no torn one.
int32_t LogJournal::scan(const sm_services* services, uint32_t area, LogPage* pages, Scan* out, sm_error* error) const {
  bool ended = false;
  uint32_t endsAt = areaPages_;
  for (uint32_t from = 0; from < endsAt; from += kPiece) {
    const uint32_t count = std::min(kPiece, endsAt - from);
    if (int32_t status =
            mediumIo(services, device_, SM_OP_READ, areaAt_[area] + from * kPage, pages, count * kPage, error))
      return status;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t number = from + i;
      if (number == 0) out->generation = pages[0].generation;
      const bool isWhole = whole(pages[i], area, number, out->generation);
      if (!isWhole && number == 0) {
        out->generation = 0;
        return 0;
      }
      if (isWhole == ended) {
        ended = true;
        endsAt = std::min(areaPages_, from + 2 * kPiece);
      }
      if (!isWhole || !pages[i].last) continue;
      if (ended) out->damaged = true;
      else out->pages = number + 1;
    }
  }
  return 0;
}

int32_t LogJournal::load(const sm_services* services, const std::function<int32_t(const LogRecord&)>& each,
                         sm_error* error) {
  const PageMemory memory = allocatePages(kPiece * kPage);
  if (!memory) return report(error, -ENOMEM, "no memory for the volume's map");
  auto* pages = reinterpret_cast<LogPage*>(memory.get());
  Scan scans[2];
  for (uint32_t i = 0; i < 2; ++i)
    if (int32_t status = scan(services, i, pages, &scans[i], error)) return status;
  // A generation of which no batch is whole had not begun yet, unless a batch behind the first is.
  const auto counts = [&](uint32_t i) { return scans[i].pages || scans[i].damaged ? scans[i].generation : 0; };
  area_ = counts(1) > counts(0) ? 1 : 0;
  const Scan& found = scans[area_];
  if (!counts(area_) || found.damaged)
    return report(error, -EBADMSG,
                  "the map of the volume on device '%s' (offset %llu) is damaged: restore the device from a backup, or "
                  "format the volume anew",
                  device_->name, static_cast<unsigned long long>(areaAt_[area_]));
  generation_ = std::max(scans[0].generation, scans[1].generation);
  if (generation_ > kLastGeneration)
    return report(
        error, -EBADMSG,
        "the map of the volume on device '%s' (offset %llu) is whole but makes no sense: it was not written by "
        "this program; restore the device from a backup, or format the volume anew",
        device_->name, static_cast<unsigned long long>(areaAt_[area_]));
  nextPage_ = found.pages;
  for (uint32_t from = 0; from < found.pages; from += kPiece) {
    const uint32_t count = std::min(kPiece, found.pages - from);
    if (int32_t status =
            mediumIo(services, device_, SM_OP_READ, areaAt_[area_] + from * kPage, pages, count * kPage, error))
      return status;
    for (uint32_t i = 0; i < count; ++i) {
      if (!whole(pages[i], area_, from + i, found.generation))
        return report(error, -EIO, "the map of the volume on device '%s' changed while it was read", device_->name);
      for (uint32_t j = 0; j < pages[i].count; ++j)
        if (int32_t status = each(pages[i].records[j])) return status;
    }
  }
  return 0;
}

}  // namespace sm
