#include "content.h"

#include <algorithm>
#include <cstring>

namespace oracle {

std::vector<const std::byte*> memoryOf(const sm_request* request) {
  std::vector<const std::byte*> out;
  for (uint32_t i = 0; i < request->iov_count; ++i) {
    const auto* base = static_cast<const std::byte*>(request->iov[i].iov_base);
    for (uint64_t at = 0; at < request->iov[i].iov_len; at += kBlock) out.push_back(base + at);
  }
  return out;
}

Bytes copyOf(const std::byte* memory) {
  Bytes bytes;
  std::memcpy(bytes.data(), memory, kBlock);
  return bytes;
}

namespace {

struct Signature {
  uint64_t magic, space, block, generation, random, check;
};
constexpr uint64_t kMagic = 0x6f7261636c652121;

uint64_t checkOf(const Signature& s) {
  return ((s.space * 31 + s.block) * 1000003 + s.generation) * 0x9e3779b97f4a7c15 ^ s.random;
}

}  // namespace

Bytes signedPayload(Unit owner, uint64_t generation, uint64_t random) {
  Signature s{kMagic, owner.space, owner.block, generation, random, 0};
  s.check = checkOf(s);
  Bytes bytes;
  for (size_t at = 0; at < kBlock; at += 8) {
    uint64_t word = random + at * generation;
    std::memcpy(bytes.data() + at, &word, 8);
  }
  std::memcpy(bytes.data(), &s, sizeof s);
  return bytes;
}

std::optional<Unit> signerOf(const Bytes& bytes) {
  Signature s;
  std::memcpy(&s, bytes.data(), sizeof s);
  if (s.magic != kMagic || s.check != checkOf(s)) return std::nullopt;
  return Unit{static_cast<uint32_t>(s.space), s.block};
}

Content::Content(const std::vector<uint64_t>& diskBlocks) {
  for (uint64_t blocks : diskBlocks) {
    modifying_.emplace_back(blocks);
    held_.emplace_back(blocks);
  }
}

void Content::submitted(const sm_request* request, uint32_t disk) {
  Live live{disk, request->offset / kBlock, {}, memoryOf(request), {}};
  const uint64_t blocks = request->length / kBlock;
  for (uint64_t i = 0; i < blocks; ++i) live.clear.push_back(modifying_[disk][live.first + i] == 0);
  if (sm_op_modifies(request->op)) {
    for (uint64_t i = 0; i < blocks; ++i) ++modifying_[disk][live.first + i];
    for (auto& [_, other] : live_) {
      if (other.disk != disk) continue;
      for (uint64_t i = 0; i < other.clear.size(); ++i) {
        if (other.first + i >= live.first && other.first + i < live.first + blocks) other.clear[i] = false;
      }
    }
  }
  for (auto& [reader, other] : live_) {
    if (request->op != SM_OP_READ || reader->op != SM_OP_READ) continue;
    const bool shared = std::any_of(live.memory.begin(), live.memory.end(), [&other = other](const std::byte* block) {
      return std::find(other.memory.begin(), other.memory.end(), block) != other.memory.end();
    });
    if (!shared) continue;
    live.clear.assign(blocks, false);
    other.clear.assign(other.clear.size(), false);
  }
  if (request->op == SM_OP_WRITE) {
    for (const std::byte* memory : live.memory) live.data.push_back(copyOf(memory));
  } else if (request->op == SM_OP_WRITE_ZEROES) {
    live.data.assign(blocks, Bytes{});
  }
  live_[request] = std::move(live);
}

std::string Content::completed(const sm_request* request) {
  Live live = std::move(live_.at(request));
  live_.erase(request);
  const bool ok = request->status == 0;
  if (sm_op_modifies(request->op)) {
    for (uint64_t i = 0; i < live.clear.size(); ++i) {
      --modifying_[live.disk][live.first + i];
      auto& held = held_[live.disk][live.first + i];
      if (ok && live.clear[i] && !live.data.empty()) held = live.data[i];
      else held.reset();
    }
  } else if (request->op == SM_OP_READ && ok) {
    for (uint64_t i = 0; i < live.clear.size(); ++i) {
      if (!live.clear[i]) continue;
      auto& held = held_[live.disk][live.first + i];
      const Bytes got = copyOf(live.memory[i]);
      if (held && *held != got) {
        return "the volume returned other bytes than were written to disk " + std::to_string(live.disk) + " block " +
               std::to_string(live.first + i);
      }
      held = got;
    }
  }
  return {};
}

}  // namespace oracle
