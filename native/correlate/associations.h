// The makers that the registry lists, one for each association.
#pragma once

#include "correlate/association.h"

namespace sm {

std::unique_ptr<Association> makeInlineAssociation(uint32_t capacity, const LiveBuffers& buffers);
std::unique_ptr<Association> makeExtendedAssociation(uint32_t capacity, const LiveBuffers& buffers);
std::unique_ptr<Association> makePointerAssociation(uint32_t capacity, const LiveBuffers& buffers);
std::unique_ptr<Association> makeSerialAssociation(uint32_t capacity, const LiveBuffers& buffers);
std::unique_ptr<Association> makeAddressAssociation(uint32_t capacity, const LiveBuffers& buffers);
std::unique_ptr<Association> makeTagAssociation(uint32_t capacity, const LiveBuffers& buffers);
std::unique_ptr<Association> makeContentAssociation(uint32_t capacity, const LiveBuffers& buffers);
std::unique_ptr<Association> makeHintAssociation(uint32_t capacity, const LiveBuffers& buffers);

}  // namespace sm
