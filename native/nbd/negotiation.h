// The handshake of a connection: fixed newstyle, as a machine that is given bytes and gives bytes back. It knows no
// socket and no disk.
//
// Thread contract: one thread. Invariants: what it holds for a client is bounded (kOptionMost); one message of the
// client is answered at a time, so that whoever drives it sees the answer before the next is looked at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "devices/nbd_protocol.h"

namespace sm::nbd {

constexpr size_t kOptionMost = 32 << 10;  // bytes of an option's data; a longer one is refused
constexpr uint32_t kSkipMost = 1 << 20;   // of what is refused; a longer one ends the connection
constexpr size_t kContextsMost = 8;       // metadata contexts that a client may select
constexpr size_t kNoExport = ~size_t{0};

// What a client is told of an export.
struct ExportInfo {
  std::string name, description;
  uint64_t bytes = 0;
  uint16_t flags = 0;  // TransmissionFlag, without kSendDf
  uint32_t minimumBlock = kDefaultBlock, preferredBlock = 4096;
  std::vector<std::string> contexts;  // names of its metadata contexts
};

// The exports as the client's connection sees them now. They may change between two calls of feed().
class Catalog {
 public:
  virtual ~Catalog() = default;
  virtual size_t size() const = 0;
  virtual ExportInfo at(size_t index) const = 0;
  // Or kNoExport. The empty name is the default export's.
  virtual size_t find(std::string_view name) const = 0;
};

// "TLS support": NOTLS, SELECTIVETLS with no export that requires it, FORCEDTLS.
enum class Tls { kOff, kOffered, kRequired };

// What the two sides agreed on.
struct Agreement {
  size_t exportIndex = kNoExport;  // in the catalog, now
  uint64_t bytes = 0;
  uint16_t flags = 0;  // TransmissionFlag
  uint32_t minimumBlock = kDefaultBlock;
  bool structured = false;
  std::vector<uint32_t> contexts;  // places in the export's list; the client's id is the place in this one
};

class Negotiation {
 public:
  enum class Next {
    kMore,          // answer, then feed again: what was not consumed, or with it what has come since
    kTransmission,  // answer; the rest of the input is requests
    kStartTls,      // answer, then call tlsStarted() when TLS has been set up; nothing after the option is input
    kClose,         // answer, then end the connection
    kViolation,     // end the connection: the client speaks another protocol
  };

  Negotiation(const Catalog& catalog, Tls tls) : catalog_(catalog), tls_(tls) {}

  // Appends what the server says first.
  void greet(std::string* answer) const;
  // Looks at one message of the client at the beginning of `input`; says how many bytes it took (0 with kMore: the
  // message is not complete) and appends the answer. `input` never needs to be longer than kInputMost.
  Next feed(const uint8_t* input, size_t size, size_t* consumed, std::string* answer);
  static constexpr size_t kInputMost = kOptionHeaderBytes + kOptionMost;

  void tlsStarted();                                         // everything agreed on before is forgotten
  const Agreement& agreement() const { return agreement_; }  // after kTransmission

 private:
  struct OptionIn;
  Next option(const OptionIn& in, std::string* answer);
  Next exportName(const OptionIn& in, std::string* answer);
  Next list(const OptionIn& in, std::string* answer) const;
  Next startTls(const OptionIn& in, std::string* answer) const;
  Next info(const OptionIn& in, std::string* answer);
  Next metaContext(const OptionIn& in, std::string* answer);
  void agree(size_t index, const ExportInfo& chosen);

  const Catalog& catalog_;
  const Tls tls_;
  bool tlsOn_ = false;
  bool flagsSeen_ = false;  // of the client
  bool noZeroes_ = false, structured_ = false;
  uint32_t skip_ = 0;  // bytes of a refused option that are to come
  std::string contextExport_;
  std::vector<std::string> contexts_;  // selected for it; a context's id is its place
  Agreement agreement_;
};

}  // namespace sm::nbd
