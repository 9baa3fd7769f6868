#include "nbd/tls.h"

#include <cerrno>

#include "host/failures.h"

#if SM_HAVE_GNUTLS
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <system_error>
#include <utility>

#include "nbd/tls_library.h"
#include "nbd/tls_transport.h"
#include "nbd/tls_worker.h"
#endif

namespace sm::nbd {

namespace {
const std::string kAsked = "cannot serve NBD with TLS: ";
constexpr const char* kCode = "ERR_STRATAMAP_TLS";
}  // namespace

#if SM_HAVE_GNUTLS

namespace {

constexpr size_t kFileMost = 1 << 20;  // bytes: no certificates are longer
// The system's defaults, less the versions that the protocol leaves to the past.
constexpr const char* kPriorities = "-VERS-TLS1.0:-VERS-TLS1.1";

struct File {
  const char* what;
  std::string path, content;
  gnutls_datum_t datum() {
    return {reinterpret_cast<unsigned char*>(content.data()), static_cast<unsigned>(content.size())};
  }
  std::string named() const { return std::string(what) + " (" + path + ") "; }
};

Failure read(File& file) {
  const auto wrong = [&](int error, const std::string& found) {
    return failed(error, "nbd", kAsked + file.named() + "cannot be read: " + found + "; give the path of a PEM file");
  };
  // Not to wait for a pipe's other end.
  const int fd = open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return wrong(errno, std::strerror(errno));
  struct stat about {};
  fstat(fd, &about);
  file.content.resize(kFileMost + 1);
  const ssize_t size = S_ISREG(about.st_mode) ? ::read(fd, file.content.data(), file.content.size()) : 0;
  const int error = errno;
  close(fd);
  if (!S_ISREG(about.st_mode)) return wrong(EINVAL, "it is no file");
  if (size < 0) return wrong(error, std::strerror(error));
  if (size > static_cast<ssize_t>(kFileMost)) return wrong(EFBIG, "it is longer than 1 MiB");
  file.content.resize(size);
  return {};
}

}  // namespace

class TlsServer::State {
 public:
  explicit State(const TlsLibrary& library) : tls(library) {}
  ~State() {
    if (credentials) tls.gnutls_certificate_free_credentials(credentials);
    if (priorities) tls.gnutls_priority_deinit(priorities);
  }

  Failure load(const TlsFiles& files) {
    verifyPeer = files.verifyPeer;
    if (tls.gnutls_certificate_allocate_credentials(&credentials) < 0 ||
        tls.gnutls_priority_init2(&priorities, kPriorities, nullptr, GNUTLS_PRIORITY_INIT_DEF_APPEND) < 0) {
      return failed(ENOMEM, "nbd", kAsked + "GnuTLS could not be set up");
    }
    if (verifyPeer) {
      File ca{"the CA's certificate", files.ca};
      if (Failure failure = read(ca)) return failure;
      const gnutls_datum_t datum = ca.datum();
      const int count = tls.gnutls_certificate_set_x509_trust_mem(credentials, &datum, GNUTLS_X509_FMT_PEM);
      if (count <= 0) return wrong(ca, count, "holds no certificate");
    }
    File certificate{"the certificate", files.certificate}, key{"the key", files.key};
    if (Failure failure = read(certificate)) return failure;
    if (Failure failure = read(key)) return failure;
    const gnutls_datum_t certificateDatum = certificate.datum(), keyDatum = key.datum();
    // Each alone, so that it can be said which one is wrong.
    gnutls_x509_crt_t one;
    tls.gnutls_x509_crt_init(&one);
    int error = tls.gnutls_x509_crt_import(one, &certificateDatum, GNUTLS_X509_FMT_PEM);
    tls.gnutls_x509_crt_deinit(one);
    if (error < 0) return wrong(certificate, error, "holds no certificate");
    gnutls_x509_privkey_t other;
    tls.gnutls_x509_privkey_init(&other);
    error = tls.gnutls_x509_privkey_import2(other, &keyDatum, GNUTLS_X509_FMT_PEM, nullptr, 0);
    tls.gnutls_x509_privkey_deinit(other);
    if (error < 0) return wrong(key, error, "holds no key that can be used without a password");
    error = tls.gnutls_certificate_set_x509_key_mem2(credentials, &certificateDatum, &keyDatum, GNUTLS_X509_FMT_PEM,
                                                     nullptr, 0);
    if (error == GNUTLS_E_CERTIFICATE_KEY_MISMATCH) return wrong(key, error, "is not that of " + certificate.path);
    if (error < 0) return wrong(certificate, error, "cannot be used");
    return {};
  }

  Failure wrong(const File& file, int error, const std::string& found) const {
    std::string message = kAsked + file.named() + found;
    if (error < 0) message += std::string(": ") + tls.gnutls_strerror(error);
    return failed(EINVAL, "nbd", message + "; give the right PEM file", kCode);
  }

  gnutls_session_t session() const {
    gnutls_session_t session = nullptr;
    if (tls.gnutls_init(&session, GNUTLS_SERVER | GNUTLS_NONBLOCK) < 0) return nullptr;
    if (tls.gnutls_priority_set(session, priorities) < 0 ||
        tls.gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials) < 0) {
      tls.gnutls_deinit(session);
      return nullptr;
    }
    if (verifyPeer) {
      // A certificate that is made for servers is no client's.
      static char purpose[] = GNUTLS_KP_TLS_WWW_CLIENT;
      static gnutls_typed_vdata_st wanted[] = {
          {GNUTLS_DT_KEY_PURPOSE_OID, reinterpret_cast<unsigned char*>(purpose), 0}};
      tls.gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
      tls.gnutls_session_set_verify_cert2(session, wanted, 1, 0);
    } else {
      tls.gnutls_certificate_server_set_request(session, GNUTLS_CERT_IGNORE);
    }
    return session;
  }

  const TlsLibrary& tls;
  gnutls_certificate_credentials_t credentials = nullptr;
  gnutls_priority_t priorities = nullptr;
  bool verifyPeer = true;
  TlsWorker worker;
};

std::string TlsServer::missing() {
  std::string why;
  return TlsLibrary::get(&why) ? "" : why + "; install GnuTLS (Debian: apt-get install libgnutls30)";
}

Failure TlsServer::open(const TlsFiles& files, std::unique_ptr<TlsServer>* out) {
  std::string why;
  const TlsLibrary* library = TlsLibrary::get(&why);
  if (!library) return failed(ENOTSUP, "nbd", kAsked + missing(), kCode);
  try {
    auto state = std::make_unique<State>(*library);
    if (Failure failure = state->load(files)) return failure;
    out->reset(new TlsServer(std::move(state)));
  } catch (const std::system_error& error) {
    return failed(EAGAIN, "nbd", kAsked + "no thread for its handshakes: " + error.what());
  }
  return {};
}

std::unique_ptr<Transport> TlsServer::secure(SocketTransport& plain) {
  gnutls_session_t session = state_->session();
  if (!session) return nullptr;
  return std::make_unique<TlsTransport>(state_->tls, state_->worker, session, plain);
}

#else

class TlsServer::State {};

std::string TlsServer::missing() {
  return "this addon was built without GnuTLS; install its header (Debian: apt-get install libgnutls28-dev) and build "
         "it again (npm rebuild stratamap --build-from-source)";
}

Failure TlsServer::open(const TlsFiles&, std::unique_ptr<TlsServer>*) {
  return failed(ENOTSUP, "nbd", kAsked + missing(), kCode);
}

std::unique_ptr<Transport> TlsServer::secure(SocketTransport&) { return nullptr; }

#endif

TlsServer::TlsServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsServer::~TlsServer() = default;

}  // namespace sm::nbd
