// Reading the arguments that lib/ passes: it has checked them, so that what is wrong here is a bug of ours, a
// TypeError.
#pragma once

#include <string>

#include "binding/node_api.h"

namespace sm::binding {

inline std::string textOf(const Napi::Value& value) { return value.As<Napi::String>().Utf8Value(); }
inline bool flagOf(const Napi::Value& value) { return value.As<Napi::Boolean>().Value(); }
inline uint64_t numberOf(const Napi::Value& value) { return uint64_t(value.As<Napi::Number>().Int64Value()); }

}  // namespace sm::binding
