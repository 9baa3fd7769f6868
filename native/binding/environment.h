// What one JavaScript environment (the main thread, or one worker) has of us, from load to teardown.
//
// Thread contract: the JavaScript thread alone, but for mailbox.send. Invariant: after shutDown() no I/O thread of this
// environment exists, so nothing can call into it any more.
#pragma once

#include <memory>
#include <unordered_set>

#include "binding/io.h"
#include "binding/mailbox.h"
#include "binding/node_api.h"
#include "binding/vigil.h"

namespace sm::binding {

class HostBox;
struct MapBox;

class Environment {
 public:
  explicit Environment(Napi::Env env)
      : env(env),
        mailbox(env),
        io(*this),
        vigil(
            env, [this] { return hasPolicies(); }, [this] { endPolicies(); }) {}
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  // Closes every host that is still open, whatever is in flight, and then every stored map. At the process's exit and
  // at the environment's end.
  void shutDown();

  bool hasPolicies() const;
  // Lets go on what is held back, at every host.
  void endPolicies();

  Napi::Env env;
  Napi::FunctionReference makeError;
  Mailbox mailbox;
  std::unordered_set<HostBox*> hosts;
  std::unordered_set<MapBox*> maps;  // stored ones
  IoFront io;
  Vigil vigil;  // while there are policies
};

}  // namespace sm::binding
