// The one place that includes Node's headers: Node-API alone, at version 9 (Node 20.17 and later), with C++ exceptions,
// all of which become JavaScript's.
#pragma once

#ifndef NAPI_VERSION
#define NAPI_VERSION 9
#endif
#if !defined(NAPI_CPP_EXCEPTIONS) && !defined(NODE_ADDON_API_CPP_EXCEPTIONS)
#define NAPI_CPP_EXCEPTIONS
#endif
#ifndef NODE_ADDON_API_CPP_EXCEPTIONS_ALL
#define NODE_ADDON_API_CPP_EXCEPTIONS_ALL
#endif
// An environment that is being torn down runs no more JavaScript: what we would have thrown there has no reader.
#ifndef NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#endif

#include <napi.h>
