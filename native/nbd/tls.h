// TLS for the clients of a server: X.509 certificates, versions 1.2 and 1.3.
//
// Thread contract: open and the destructor from any thread but an I/O thread, and may block; secure from any.
#pragma once

#include <memory>
#include <string>

#include "engine/failure.h"
#include "nbd/transport.h"

namespace sm::nbd {

// Paths of PEM files.
struct TlsFiles {
  std::string ca;           // of those who may have signed a client's certificate
  std::string certificate;  // the server's, and behind it those up to its CA's
  std::string key;          // the server's, without a password
  bool verifyPeer = true;   // a client needs a certificate; without that, `ca` may be empty
};

class TlsServer {
 public:
  // Why there is no TLS, and what to do; empty where there is.
  static std::string missing();
  // ENOTSUP without GnuTLS; what is wrong with a file otherwise.
  static Failure open(const TlsFiles& files, std::unique_ptr<TlsServer>* out);
  ~TlsServer();  // none of its streams is left
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;

  // The stream inside `plain`, which outlives it and on which nothing is in flight. The first receive does the
  // handshake, and gets -EACCES where that comes to nothing; later ones get -EPROTO for what is not TLS. Null: no
  // memory.
  //
  // Data is copied and en- or decrypted on the I/O thread, through 208 KiB of the stream's own, and records of at most
  // 16 KiB of GnuTLS's own. The handshake's arithmetic, a millisecond or two of public keys, is done on a thread of the
  // TlsServer, one handshake at a time.
  std::unique_ptr<Transport> secure(SocketTransport& plain);

 private:
  class State;
  explicit TlsServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace sm::nbd
