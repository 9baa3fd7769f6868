// An NBD server: listens, and serves exports to whoever connects, on the I/O threads of a host.
//
// Thread contract: everything here from any thread but an I/O thread, and may block; one Server serialises its own
// calls. It is closed before the host is. Its state belongs to the first I/O thread, where handshakes are made; a
// connection then moves to its export's home I/O thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/failure.h"
#include "engine/io_thread.h"
#include "nbd/connection.h"
#include "nbd/counters.h"
#include "nbd/export.h"

namespace sm::nbd {

struct ServerOptions {
  uint32_t connections = 256;       // at once; one more is closed as soon as it is accepted
  uint64_t bufferBytes = 64 << 20;  // for each I/O thread, beside half of its pool; at least 32 MiB
  ConnectionLimits limits;
};

struct ServerCounts {
  uint64_t accepted = 0, refused = 0;    // refused: there were too many
  uint64_t violations = 0, stalled = 0;  // how many of them ended so
  uint64_t tlsFailed = 0;                // and how many could not agree on TLS, or showed no good certificate
  uint32_t connected = 0;                // now
};

struct ConnectionInfo {
  std::string peer;
  std::string exportName;  // empty in the handshake
  Counts counts;
};

struct ExportCounts {
  std::string name;
  uint32_t connected = 0;
  Counts counts;  // of connections that are, and that were
};

class Server {
 public:
  // ENOSYS where an I/O thread has no ring. `tls`: what every client must begin; null: none may.
  static Failure open(const std::vector<std::unique_ptr<IoThread>>& threads, const ServerOptions& options,
                      std::unique_ptr<Server>* out, std::unique_ptr<TlsServer> tls = nullptr);
  ~Server();  // close(0)
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  Failure listenUnix(const std::string& path);
  // Beyond this machine's loopback with TLS alone (EACCES).
  Failure listenTcp(const std::string& host, uint16_t port, uint16_t* bound);

  // The export of one name is served once (EEXIST).
  Failure addExport(std::unique_ptr<Export> target);
  // No client finds it any more; those that are connected to it get answers to what has been received of them whole
  // (not what is still in the socket), and after `timeout` (ns) none. When it returns, nothing uses the export's disk
  // any more. ENOENT.
  Failure removeExport(const std::string& name, uint64_t timeout);
  // The same for everything. Afterwards nothing works.
  void close(uint64_t timeout);

  ServerCounts counts() const;
  std::vector<ConnectionInfo> connections() const;
  std::vector<ExportCounts> exports() const;

 private:
  class State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace sm::nbd
