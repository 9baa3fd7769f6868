#if SM_HAVE_GNUTLS

#include "nbd/tls_library.h"

#include <dlfcn.h>

namespace sm::nbd {

namespace {

constexpr const char* kFile = "libgnutls.so.30";  // of every release since 3.4
constexpr const char* kOldest = "3.6.3";

struct Loaded {
  Loaded() {
    void* handle = dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      why = dlerror();
      return;
    }
    const auto find = [&](auto& member, const char* name) {
      member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(dlsym(handle, name));
      if (!member) why = std::string(kFile) + " has no " + name;
    };
#define SM_TLS_FIND(name) find(library.name, #name)
    SM_TLS_FUNCTIONS(SM_TLS_FIND);
#undef SM_TLS_FIND
    if (why.empty() && !library.gnutls_check_version(kOldest)) {
      why = std::string(kFile) + " is version " + library.gnutls_check_version(nullptr) + ", older than " + kOldest;
    }
  }
  TlsLibrary library;
  std::string why;
};

}  // namespace

const TlsLibrary* TlsLibrary::get(std::string* why) {
  static const Loaded loaded;
  *why = loaded.why;
  return loaded.why.empty() ? &loaded.library : nullptr;
}

}  // namespace sm::nbd

#endif
