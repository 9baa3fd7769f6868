// Arbitrary bytes as the file of a stored map, loaded, and written on. The first byte says what is put right, since
// random bytes pass no checksum: the header, and the numbers and checksums of all records.
#include <algorithm>
#include <cstring>
#include <string>

#include "fuzz/fuzz.h"
#include "native/map/store_rig.h"

using namespace sm;

namespace {

std::string putRight(std::string bytes, uint8_t what) {
  StoreHeader header;
  if (bytes.size() < sizeof header) return bytes;
  std::memcpy(&header, bytes.data(), sizeof header);
  if ((what & 1) != 0) {
    header = makeHeader(header.generation);
    std::memcpy(bytes.data(), &header, sizeof header);
  }
  if ((what & 2) == 0) return bytes;
  std::string right = bytes.substr(0, sizeof header);
  uint64_t number = 0;
  for (size_t at = sizeof header; bytes.size() - at >= sizeof(StoreRecord);) {
    StoreRecord record;
    std::memcpy(&record, &bytes[at], sizeof record);
    at += sizeof record;
    if (record.length > bytes.size() - at) break;
    appendRecord(&right, header.generation, ++number, std::string_view(bytes).substr(at, record.length));
    at += record.length;
  }
  return right + bytes.substr(right.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string bytes = putRight({reinterpret_cast<const char*>(data + 1), size - 1}, data[0]);
  MemoryFiles files;
  files.put("map", bytes);
  std::vector<Told> told;
  {
    AddressMap map;
    std::unique_ptr<MapFile> file;
    if (const StoreFailure failure = MapFile::open(files, "map", map, &file)) {
      SM_MUST(failure.code == std::string("ERR_STRATAMAP_MAP") && !failure.message.empty());
      SM_MUST(!file && files.calls.empty() && files.bytesOf("map") == bytes);
      return 0;
    }
    told = tell(map);
    SM_MUST(told == tellOwners(map));
    SM_MUST(std::all_of(told.begin(), told.end(), [](const Told& t) { return std::get<State>(t) == State::kStale; }));
    // It goes on, behind what was whole, or anew.
    if ((data[0] & 4) != 0) {
      SM_MUST(!file->rewrite());
    } else {
      const Changes::Part part{map.internDisk({"vm", "new"}), {0, 4096}};
      const DeviceKey device = map.internDevice("new");
      {
        std::lock_guard lock(map.mutex());
        map.removeVirtual(part.disk, part.virt);
        map.add(part.disk, part.virt, {device, UINT64_MAX - 4096}, State::kMapped);
        map.staleAll();
      }
      SM_MUST(!file->append({&part, 1}));
      told = tell(map);
    }
  }
  AddressMap map;
  std::unique_ptr<MapFile> file;
  SM_MUST(!MapFile::open(files, "map", map, &file));
  SM_MUST(tell(map) == told);
  return 0;
}
