// From a Failure to the Error that JavaScript sees.
#pragma once

#include "binding/node_api.h"
#include "host/failures.h"

namespace sm::binding {

// "use after close": ERR_STRATAMAP_CLOSED.
Failure closedFailure(const char* layer, const std::string& what);
// An error object with code, errno (negative, as Node's own), layer, device or vm and disk, and offset. Made by the
// factory that lib/errors.ts registered.
napi_value toError(Napi::Env env, const Failure& failure);
// The same for an operation that its AbortSignal ended.
napi_value abortError(Napi::Env env);

}  // namespace sm::binding
