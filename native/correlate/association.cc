#include "correlate/association.h"

namespace sm {

std::span<const AssociationSpec> associationRegistry() {
  static const AssociationSpec kRegistry[] = {
      {"serial", "the host's serial number (clone)", kDescend, makeSerialAssociation},
      {"tag", "a tag in a field that the host leaves alone (clone)", kDescend, makeTagAssociation},
  };
  return kRegistry;
}

}  // namespace sm
