// The map of a cell against what is true: what the disks were last acknowledged to hold, what the devices hold, and
// whose the signatures in it are.
#include "truth.h"

namespace conformance {

using namespace sm;
using oracle::kBlock;

namespace {

// A late child of the volume's may be changing the place just now: then it is mapped no more.
bool stillMapped(const Stack& stack, size_t disk, uint64_t offset, Place place) {
  for (const VirtualExtent& extent : stack.map().locate(stack.key(disk), offset, kBlock)) {
    if (extent.state != State::kMapped) return false;
    for (const Place& each : extent.places) {
      if (each == place) return true;
    }
  }
  return false;
}

void compareExtent(Stack& stack, uint32_t disk, const VirtualExtent& extent, Place place) {
  Outcome& outcome = stack.outcome();
  const std::byte* bytes = stack.read(place.device, place.offset, extent.length);
  for (uint64_t at = 0; at < extent.length; at += kBlock) {
    const oracle::Unit unit{disk, (extent.diskOffset + at) / kBlock};
    const oracle::Bytes found = oracle::copyOf(bytes + at);
    const Place here{place.device, place.offset + at};
    auto wrong = [&](const std::string& what) {
      if (!stillMapped(stack, disk, extent.diskOffset + at, here)) return;
      ++outcome.wrong;
      stack.complain("disk " + std::to_string(disk) + " offset " + std::to_string(extent.diskOffset + at) +
                     " is said to be at " + stack.map().deviceName(place.device) + " " + std::to_string(here.offset) +
                     ": " + what);
    };
    if (const oracle::Bytes* acknowledged = stack.content().acknowledged(unit)) {
      outcome.compared += kBlock;
      if (*acknowledged != found) wrong("the device holds other bytes");
    } else {
      wrong("nothing is certain of what it holds");
    }
    if (const auto signer = oracle::signerOf(found)) {
      outcome.owners += kBlock;
      if (*signer != unit) {
        wrong("the bytes there are disk " + std::to_string(signer->space) + "'s, block " +
              std::to_string(signer->block));
      }
    }
  }
}

// The other direction says the same.
void compareOwners(Stack& stack, uint32_t disk, const VirtualExtent& extent, Place place) {
  uint64_t told = 0;
  for (const PhysicalExtent& owner : stack.map().owners(place.device, place.offset, extent.length)) {
    if (owner.disk != stack.key(disk)) continue;
    if (owner.diskOffset - extent.diskOffset == owner.offset - place.offset) told += owner.length;
  }
  if (told == extent.length) return;
  if (!stillMapped(stack, disk, extent.diskOffset, place)) return;
  ++stack.outcome().wrong;
  stack.complain("disk " + std::to_string(disk) + " offset " + std::to_string(extent.diskOffset) +
                 " is at a place that tells of " + std::to_string(told) + " of its " + std::to_string(extent.length) +
                 " bytes");
}

}  // namespace

void compareMap(Stack& stack) {
  for (uint32_t disk = 0; disk < kDisks; ++disk) {
    for (const VirtualExtent& extent : stack.map().extents(stack.key(disk), 0, SIZE_MAX)) {
      if (extent.state != State::kMapped) continue;
      for (const Place& place : extent.places) {
        compareExtent(stack, disk, extent, place);
        compareOwners(stack, disk, extent, place);
      }
    }
  }
}

Share shareOf(const Stack& stack, uint32_t disk, const std::vector<Span>& spans) {
  Share share;
  for (const Span& span : spans) {
    share.of += span.length;
    const bool small = span.length < 4096;
    if (small) share.small += span.length;
    for (const VirtualExtent& extent : stack.map().locate(stack.key(disk), span.offset, span.length)) {
      if (extent.state != State::kMapped) continue;
      share.mapped += extent.length;
      if (small) share.smallMapped += extent.length;
      if (extent.moving) share.moving += extent.length;
      if (extent.places.size() < stack.places()) share.fewPlaces += extent.length;
    }
  }
  return share;
}

}  // namespace conformance
