#include "correlate/association.h"

#include "correlate/associations.h"
#include "correlate/evidence.h"

namespace sm {

bool Association::carries(const Evidence& below, const Context& above) const {
  return below.key != kNoKey && below.key == above.key;
}

std::string_view correlationName(Correlation correlation) {
  return correlation == kDescend ? "descend" : correlation == kAscend ? "ascend" : "meet";
}

std::span<const AssociationSpec> associationRegistry() {
  static const AssociationSpec kRegistry[] = {
      {"inline", "unused fields of the request (clone)", kEveryCorrelation, makeInlineAssociation},
      {"extended", "storage added behind the request (clone)", kEveryCorrelation, makeExtendedAssociation},
      {"pointer", "a pointer left in the request (clone)", kEveryCorrelation, makePointerAssociation},
      {"serial", "the host's serial number (clone)", kEveryCorrelation, makeSerialAssociation},
      {"address", "the payload's memory address (clone or fresh, buffer not copied)", kEveryCorrelation,
       makeAddressAssociation},
      {"tag", "a tag in a field that the host leaves alone (clone)", kEveryCorrelation, makeTagAssociation},
      {"content", "the payload (clone or fresh, copied or not)", kEveryCorrelation, makeContentAssociation},
      {"hint", "the hint bits of the kernel's I/O priority, through its own stack", kDescend, makeHintAssociation,
       true},
  };
  return kRegistry;
}

}  // namespace sm
