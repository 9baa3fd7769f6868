#!/bin/sh
# has-header.sh HEADER: prints 1 if it is installed, and nothing otherwise: binding.gyp then builds the addon without
# what needs it. The libraries themselves are loaded when they are asked for.
echo "#include <$1>" | ${CC:-cc} -E - >/dev/null 2>&1 && echo 1
exit 0
