// Reading the arguments that lib/ passes: it has checked them, so that what is wrong here is a bug of ours, a
// TypeError. And lists of strings on their way back.
#pragma once

#include <string>
#include <vector>

#include "binding/node_api.h"

namespace sm::binding {

inline std::string textOf(const Napi::Value& value) { return value.As<Napi::String>().Utf8Value(); }
inline bool flagOf(const Napi::Value& value) { return value.As<Napi::Boolean>().Value(); }
inline uint64_t numberOf(const Napi::Value& value) { return uint64_t(value.As<Napi::Number>().Int64Value()); }

inline Napi::Array toStrings(Napi::Env env, const std::vector<std::string>& strings) {
  Napi::Array array = Napi::Array::New(env, strings.size());
  for (uint32_t i = 0; i < strings.size(); ++i) array[i] = strings[i];
  return array;
}

}  // namespace sm::binding
