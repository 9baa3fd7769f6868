// Opaque layers for tests: each does something that a storage stack somewhere does, as awkwardly as it may. They are
// those of the model of the rules, and a few more. None of them loses data.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "world.h"

namespace truth {

// In place; a mirror; log-structured with a cleaner, also with deduplication; a journal; a write-back cache;
// read-modify-write; encryption; merging of several guests' writes; promotion by reads.
std::vector<std::string> volumeNames();
std::unique_ptr<Volume> makeVolume(const std::string& name, World& world);

}  // namespace truth
