// GnuTLS, loaded when TLS is first asked for: the addon must load where it is not installed. It is the library of QEMU,
// libnbd and nbdkit, and shares no symbol with the OpenSSL that is in every Node.
//
// Thread contract: from any thread.
#pragma once

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <string>

namespace sm::nbd {

#define SM_TLS_FUNCTIONS(each)                   \
  each(gnutls_alert_send_appropriate);           \
  each(gnutls_bye);                              \
  each(gnutls_certificate_allocate_credentials); \
  each(gnutls_certificate_free_credentials);     \
  each(gnutls_certificate_server_set_request);   \
  each(gnutls_certificate_set_x509_key_mem2);    \
  each(gnutls_certificate_set_x509_trust_mem);   \
  each(gnutls_check_version);                    \
  each(gnutls_credentials_set);                  \
  each(gnutls_deinit);                           \
  each(gnutls_error_is_fatal);                   \
  each(gnutls_handshake);                        \
  each(gnutls_init);                             \
  each(gnutls_priority_deinit);                  \
  each(gnutls_priority_init2);                   \
  each(gnutls_priority_set);                     \
  each(gnutls_record_check_pending);             \
  each(gnutls_record_get_direction);             \
  each(gnutls_record_recv);                      \
  each(gnutls_record_send);                      \
  each(gnutls_session_set_verify_cert2);         \
  each(gnutls_strerror);                         \
  each(gnutls_transport_set_errno);              \
  each(gnutls_transport_set_ptr);                \
  each(gnutls_transport_set_pull_function);      \
  each(gnutls_transport_set_push_function);      \
  each(gnutls_x509_crt_deinit);                  \
  each(gnutls_x509_crt_import);                  \
  each(gnutls_x509_crt_init);                    \
  each(gnutls_x509_privkey_deinit);              \
  each(gnutls_x509_privkey_import2);             \
  each(gnutls_x509_privkey_init)

struct TlsLibrary {
#define SM_TLS_MEMBER(name) decltype(&::name) name = nullptr
  SM_TLS_FUNCTIONS(SM_TLS_MEMBER);
#undef SM_TLS_MEMBER

  // Null where it cannot be loaded; `why` then says so. It stays loaded.
  static const TlsLibrary* get(std::string* why);
};

}  // namespace sm::nbd
