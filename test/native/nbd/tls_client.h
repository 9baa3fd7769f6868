// Certificates, and a client that speaks TLS: GnuTLS's other side.
#pragma once

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <fstream>
#include <memory>
#include <string>

#include "client.h"

namespace sm::test {

// A key and its certificate, signed by another's or by its own.
class Identity {
 public:
  enum class For { kSigning, kServer, kClient };

  Identity(const std::string& name, For purpose, const Identity* signer = nullptr) {
    gnutls_x509_privkey_init(&key_);
    REQUIRE(gnutls_x509_privkey_generate(key_, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0) ==
            0);
    gnutls_x509_crt_init(&certificate_);
    gnutls_x509_crt_set_version(certificate_, 3);
    gnutls_x509_crt_set_serial(certificate_, "\x01\x02", 2);
    gnutls_x509_crt_set_dn(certificate_, ("CN=" + name).c_str(), nullptr);
    gnutls_x509_crt_set_activation_time(certificate_, time(nullptr) - 3600);
    gnutls_x509_crt_set_expiration_time(certificate_, time(nullptr) + 86400);
    gnutls_x509_crt_set_key(certificate_, key_);
    gnutls_x509_crt_set_ca_status(certificate_, purpose == For::kSigning);
    gnutls_x509_crt_set_key_usage(certificate_,
                                  purpose == For::kSigning ? GNUTLS_KEY_KEY_CERT_SIGN : GNUTLS_KEY_DIGITAL_SIGNATURE);
    if (purpose == For::kServer) purposed(GNUTLS_KP_TLS_WWW_SERVER);
    if (purpose == For::kClient) purposed(GNUTLS_KP_TLS_WWW_CLIENT);
    const Identity& by = signer ? *signer : *this;
    REQUIRE(gnutls_x509_crt_sign2(certificate_, by.certificate_, by.key_, GNUTLS_DIG_SHA256, 0) == 0);
  }
  ~Identity() {
    gnutls_x509_crt_deinit(certificate_);
    gnutls_x509_privkey_deinit(key_);
  }
  Identity(const Identity&) = delete;
  Identity& operator=(const Identity&) = delete;

  std::string certificate() const {
    gnutls_datum_t out{};
    REQUIRE(gnutls_x509_crt_export2(certificate_, GNUTLS_X509_FMT_PEM, &out) == 0);
    return taken(out);
  }
  std::string key(const char* password = nullptr) const {
    gnutls_datum_t out{};
    const unsigned flags = password ? GNUTLS_PKCS_PBES2_AES_256 : GNUTLS_PKCS_PLAIN;
    REQUIRE(gnutls_x509_privkey_export2_pkcs8(key_, GNUTLS_X509_FMT_PEM, password, flags, &out) == 0);
    return taken(out);
  }
  void use(gnutls_certificate_credentials_t credentials) const {
    gnutls_x509_crt_t certificates[] = {certificate_};
    REQUIRE(gnutls_certificate_set_x509_key(credentials, certificates, 1, key_) >= 0);
  }
  void trust(gnutls_certificate_credentials_t credentials) const {
    gnutls_x509_crt_t certificates[] = {certificate_};
    REQUIRE(gnutls_certificate_set_x509_trust(credentials, certificates, 1) == 1);
  }

 private:
  void purposed(const char* purpose) { gnutls_x509_crt_set_key_purpose_oid(certificate_, purpose, 0); }
  static std::string taken(gnutls_datum_t data) {
    std::string out(reinterpret_cast<const char*>(data.data), data.size);
    gnutls_free(data.data);
    return out;
  }

  gnutls_x509_privkey_t key_ = nullptr;
  gnutls_x509_crt_t certificate_ = nullptr;
};

inline std::string fileOf(const std::string& folder, const std::string& name, const std::string& content) {
  const std::string path = folder + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

class TlsClient final : public Client {
 public:
  static constexpr const char* kNewest = "NORMAL";
  static constexpr const char* kOlder = "NORMAL:-VERS-ALL:+VERS-TLS1.2";

  template <typename Address>
  explicit TlsClient(const Address& address, const char* priority = kNewest) : Client(address) {
    gnutls_certificate_allocate_credentials(&credentials_);
    gnutls_init(&session_, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
    REQUIRE(gnutls_priority_set_direct(session_, priority, nullptr) == 0);
    gnutls_credentials_set(session_, GNUTLS_CRD_CERTIFICATE, credentials_);
    gnutls_transport_set_int(session_, fd());
  }
  ~TlsClient() override {
    gnutls_deinit(session_);
    gnutls_certificate_free_credentials(credentials_);
  }

  gnutls_session_t session() const { return session_; }
  void use(const Identity& identity) { identity.use(credentials_); }
  void trust(const Identity& authority) {
    authority.trust(credentials_);
    gnutls_session_set_verify_cert(session_, nullptr, 0);
  }

  // Asks for it and does it: 0, or what GnuTLS says. With 1.3 the server's refusal comes with the first answer.
  int handshake() {
    int result;
    do {
      result = gnutls_handshake(session_);
    } while (result < 0 && !gnutls_error_is_fatal(result));
    secured = result == 0;
    return result;
  }
  bool startTls() {
    if (!greet()) return false;
    const auto replies = ask(Option::kStartTls);
    return !replies.empty() && replies[0].type == Reply::kAck && handshake() == 0;
  }
  // As open(), of which the greeting is over.
  bool go(const std::string& name) {
    const auto replies = ask(Option::kStructuredReply);
    if (replies.empty() || replies[0].type != Reply::kAck) return false;
    for (const OptionReply& reply : ask(Option::kGo, infoData(name, {Info::kBlockSize}))) {
      if (reply.type == Reply::kAck) return true;
    }
    return false;
  }

  bool secured = false;
  int last = 0;  // what GnuTLS said to the last of our calls

 protected:
  ssize_t put(const void* data, size_t length) override {
    if (!secured) return Client::put(data, length);
    do {
      last = static_cast<int>(gnutls_record_send(session_, data, length));
    } while (last < 0 && !gnutls_error_is_fatal(last));
    return last < 0 ? (errno = EPIPE, -1) : last;
  }
  ssize_t take(void* data, size_t length) override {
    if (!secured) return Client::take(data, length);
    do {
      last = static_cast<int>(gnutls_record_recv(session_, data, length));
    } while (last < 0 && !gnutls_error_is_fatal(last));
    return last < 0 ? (errno = EPIPE, -1) : last;
  }

 private:
  gnutls_certificate_credentials_t credentials_ = nullptr;
  gnutls_session_t session_ = nullptr;
};

}  // namespace sm::test
