#!/bin/sh
# Prints the path of liburing's static library if it and its header are installed, and nothing otherwise: binding.gyp
# then builds the addon without it.
archive=$(${CC:-cc} -print-file-name=liburing.a 2>/dev/null)
case $archive in
  /*) echo '#include <liburing.h>' | ${CC:-cc} -E - >/dev/null 2>&1 && echo "$archive" ;;
esac
exit 0
