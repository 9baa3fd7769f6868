// What is no map, and what cannot be written.
#include <doctest/doctest.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "native/map/store_rig.h"

using namespace sm;

namespace {

constexpr uint64_t kMi = 1 << 20;
using Call = MemoryFiles::Call;

}  // namespace

TEST_CASE("what is no whole map of this version is refused, and left as it is") {
  MemoryFiles whole;
  {
    StoredMap stored(whole);
    stored.add(stored.map->internDisk({"vm", "a"}), {0, 4096}, {stored.map->internDevice("x"), 0});
  }
  const std::string good = whole.bytesOf("map");
  StoreHeader newer = makeHeader(1);
  newer.version = 2;
  newer.checksum = checksumOf(0, &newer, offsetof(StoreHeader, checksum));
  std::vector<std::pair<std::string, std::string>> wrong = {
      {"{ \"json\": true }", "does not begin"},
      {"S", "ends within its header"},
      {std::string(5000, 0), "does not begin"},
      {std::string(reinterpret_cast<char*>(&newer), sizeof newer), "version 2"},
      {good + good, ""},
  };
  for (size_t length = 1; length < good.size(); ++length) wrong.emplace_back(good.substr(0, length), "damaged");
  for (size_t at = 8; at < good.size(); ++at) {
    if (at >= 8 && at < 12) continue;  // the version
    wrong.emplace_back(good, "damaged");
    wrong.back().first[at] ^= 1;
  }
  for (const auto& each : wrong) {
    const std::string &bytes = each.first, &found = each.second;
    CAPTURE(bytes.size());
    MemoryFiles files;
    files.put("map", bytes);
    StoredMap stored(files);
    if (bytes == good + good) {  // another's end is no journal of this
      CHECK_FALSE(stored.failure);
      continue;
    }
    REQUIRE(stored.failure);
    CHECK(stored.failure.code == std::string("ERR_STRATAMAP_MAP"));
    CHECK(stored.failure.message.find(found == "ends within its header" ? "header" : found) != std::string::npos);
    CHECK(files.calls.empty());
    CHECK(files.bytesOf("map") == bytes);
  }
}

TEST_CASE("a failure is told and kept, loses nothing, and is made good when it is over") {
  for (Call::Kind kind :
       {Call::kCreate, Call::kWrite, Call::kSync, Call::kRename, Call::kSyncFolder, Call::kTruncate}) {
    for (int error : {ENOSPC, EIO}) {
      for (bool journal : {false, true}) {
        CAPTURE(kind);
        CAPTURE(journal);
        MemoryFiles files;
        StoredMap stored(files);
        const DiskKey disk = stored.map->internDisk({"vm", "a"});
        const DeviceKey device = stored.map->internDevice("x");
        stored.add(disk, {0, kMi}, {device, 0});
        if (journal) REQUIRE_FALSE(stored.store->flush());
        int left = 3;
        files.fault = [&](const Call& call) { return call.kind == kind && left-- > 0 ? -error : 0; };
        const DeviceKey other = stored.map->internDevice("y");
        stored.add(stored.map->internDisk({"vm", "b"}), {kMi, 2 * kMi}, {other, 0});
        StoreFailure failure = stored.store->flush();
        const bool fails = kind == Call::kWrite || kind == Call::kSync || (!journal && kind != Call::kTruncate);
        CHECK(static_cast<bool>(failure) == fails);
        CHECK(stored.store->notices().size() == (fails ? 1 : 0));
        if (fails) {
          CHECK(failure.error == error);
          CHECK(failure.message.find(std::generic_category().message(error)) != std::string::npos);
        }
        // What was flushed before is there, whatever has failed.
        if (journal) CHECK(tell(*StoredMap(*files.crashed(files.calls.size(), 4)).map).size() >= 1);
        stored.add(disk, {2 * kMi, 3 * kMi}, {device, 2 * kMi});
        while (stored.store->flush()) REQUIRE(left >= 0);
        CHECK(stored.store->notices().size() == (fails ? 1 : 0));
        REQUIRE_FALSE(stored.store->close());
        CHECK(tell(*StoredMap(files).map).size() == 3);
      }
    }
  }
}

TEST_CASE("a close that fails says so, and lets go all the same") {
  MemoryFiles files;
  StoredMap stored(files);
  stored.add(stored.map->internDisk({"vm", "a"}), {0, 4096}, {stored.map->internDevice("x"), 0});
  files.fault = [](const Call& call) { return call.kind == Call::kSync ? -EIO : 0; };
  CHECK(stored.store->close().error == EIO);
  files.fault = nullptr;
  StoredMap again(files);
  REQUIRE_FALSE(again.failure);
  CHECK(tell(*again.map).empty());
}
