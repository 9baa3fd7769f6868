#include "binding/errors.h"

#include <cerrno>

#include "binding/environment.h"

namespace sm::binding {

Failure closedFailure(const char* layer, const std::string& what) {
  return failed(EBADF, layer, what + " is closed: open it again, or close it after its last use",
                "ERR_STRATAMAP_CLOSED");
}

napi_value toError(Napi::Env env, const Failure& failure) {
  auto text = [&](const std::string& s) -> Napi::Value {
    return s.empty() ? env.Undefined() : Napi::Value(Napi::String::New(env, s));
  };
  return Environment::of(env).makeError.Call(
      {Napi::String::New(env, failure.message), Napi::String::New(env, failure.code),
       Napi::Number::New(env, -failure.error), text(failure.layer), text(failure.device), text(failure.vm),
       text(failure.disk),
       failure.offset < 0 ? env.Undefined() : Napi::Value(Napi::Number::New(env, double(failure.offset)))});
}

napi_value abortError(Napi::Env env) {
  return Environment::of(env).makeError.Call(
      {Napi::String::New(env, "The operation was aborted"), Napi::String::New(env, "ABORT_ERR")});
}

}  // namespace sm::binding
