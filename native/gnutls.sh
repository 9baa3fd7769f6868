#!/bin/sh
# Prints 1 if the header of GnuTLS is installed, and nothing otherwise: binding.gyp then builds the addon without TLS.
# The library itself is loaded when TLS is asked for.
echo '#include <gnutls/gnutls.h>' | ${CC:-cc} -E - >/dev/null 2>&1 && echo 1
exit 0
