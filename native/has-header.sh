#!/bin/sh
# has-header.sh HEADER [CONDITION]: prints 1 if it is installed, and CONDITION of the preprocessor holds with it, and
# nothing otherwise: the addon is then built without what needs it. The libraries themselves are loaded when they are
# asked for.
printf '#include <%s>\n#if !(%s)\n#error no\n#endif\n' "$1" "${2:-1}" | ${CC:-cc} -E - >/dev/null 2>&1 && echo 1
exit 0
