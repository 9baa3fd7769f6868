#include "nbd/server.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <new>
#include <utility>

#include "host/failures.h"
#include "nbd/address.h"
#include "nbd/buffers.h"
#include "nbd/listener.h"

namespace sm::nbd {

// Members belong to the thread `acceptor`, unless they say otherwise.
class Server::State final : public Catalog, public Listener::User {
 public:
  struct Served {
    std::unique_ptr<Export> target;
    Counts past;  // of connections that are over
    uint32_t connected = 0;
  };

  // A connection, and its way out: gone on its own thread, counted here, a last visit there behind everything that was
  // posted to it, and destroyed here.
  struct Client final : Connection::Owner {
    struct Task : sm_task {
      Client* client;
    };

    Client(State& owner, int fd, std::string peer)
        : state(owner), connection(fd, std::move(peer), *this, owner.options.limits, owner.tls.get()) {
      for (Task* task : {&drain, &kill, &leave}) task->client = this;
      drain.run = [](sm_task* task) { static_cast<Task*>(task)->client->connection.drain(); };
      kill.run = [](sm_task* task) { static_cast<Task*>(task)->client->connection.kill(); };
    }

    const Catalog& catalog() const override { return state; }
    Place join(Connection&, size_t index) override {
      served = state.exports[index].get();
      ++served->connected;
      IoThread& home = served->target->home();
      return {served->target.get(), state.buffers[home.index()].get()};
    }
    void gone(Connection&, Why reason) override {
      why = reason;
      leave.run = [](sm_task* task) { static_cast<Task*>(task)->client->counted(); };
      state.acceptor.post(&leave);
    }
    void counted() {
      over = true;
      state.sums.violations += why == Why::kViolation;
      state.sums.stalled += why == Why::kStalled;
      state.sums.tlsFailed += why == Why::kTls;
      if (served) served->past.add(connection.counts().read());
      leave.run = [](sm_task* task) { static_cast<Task*>(task)->client->left(); };
      connection.thread().post(&leave);
    }
    void left() {
      leave.run = [](sm_task* task) {
        Client* client = static_cast<Task*>(task)->client;
        client->state.remove(client);
      };
      state.acceptor.post(&leave);
    }
    // Each once, and not to one that is over.
    void tell(Task* task, bool* told) {
      if (!over && !std::exchange(*told, true)) connection.thread().post(task);
    }
    void tellDrain() { tell(&drain, &toldDrain); }
    void tellKill() { tell(&kill, &toldKill); }

    State& state;
    Connection connection;
    Served* served = nullptr;  // null in the handshake
    Why why = Why::kClient;
    bool over = false, toldDrain = false, toldKill = false;
    Task drain{}, kill{}, leave{};
    std::list<std::unique_ptr<Client>>::iterator place;
  };

  State(const std::vector<std::unique_ptr<IoThread>>& all, const ServerOptions& given, std::unique_ptr<TlsServer> with)
      : options(given), acceptor(*all[0]), threads(all), tls(std::move(with)) {
    for (const auto& thread : all) {
      if (buffers.size() <= thread->index()) buffers.resize(thread->index() + 1);
      buffers[thread->index()] = std::make_unique<Buffers>(*thread, options.bufferBytes);
    }
  }

  // --- exports, as clients see them
  size_t size() const override { return exports.size(); }
  ExportInfo at(size_t index) const override {
    const Export& target = *exports[index]->target;
    const ExportFacts facts = target.facts();
    ExportInfo info;
    info.name = target.name();
    info.description = target.description();
    info.bytes = facts.bytes;
    // A flush covers every write that was completed before it, whichever connection it came by.
    info.flags = kHasFlags | kSendFlush | kCanMultiConn | kSendCache;
    info.flags |= facts.readOnly ? kReadOnly : kSendFua | kSendTrim | kSendWriteZeroes | kSendFastZero;
    info.minimumBlock = facts.minimumBlock;
    info.preferredBlock = std::max(facts.minimumBlock, info.preferredBlock);
    for (const auto& context : target.contexts()) info.contexts.push_back(context->name());
    return info;
  }
  size_t find(std::string_view name) const override {
    for (size_t i = 0; i < exports.size(); ++i) {
      if (exports[i]->target->name() == name) return i;
    }
    return name.empty() && exports.size() == 1 ? 0 : kNoExport;
  }

  // --- clients
  void accepted(int fd) override {
    ++sums.accepted;
    if (closing || clients.size() >= options.connections) {
      ++sums.refused;
      ::close(fd);
      return;
    }
    prepareStream(fd);
    std::string peer = peerName(fd);
    clients.push_back(std::make_unique<Client>(*this, fd, std::move(peer)));
    clients.back()->place = std::prev(clients.end());
    clients.back()->connection.start(acceptor);
  }

  void idle() override {
    std::lock_guard<std::mutex> lock(mutex);
    ++idleListeners;
    changed.notify_all();
  }

  void remove(Client* client) {
    std::lock_guard<std::mutex> lock(mutex);
    if (client->served) --client->served->connected;
    clients.erase(client->place);
    changed.notify_all();
  }

  // --- for the API's threads
  template <typename F>
  void onAcceptor(F&& run) {
    acceptor.call([](void* context) { (*static_cast<std::remove_reference_t<F>*>(context))(); }, &run);
  }

  // Those of one export, or all; what they hold is let go of when this returns.
  template <typename Over>
  void endClients(const Served* served, uint64_t timeout, Over over) {
    const auto tellAll = [&](void (Client::*tell)()) {
      onAcceptor([&] {
        for (const auto& client : clients) {
          if (!served || client->served == served) (client.get()->*tell)();
        }
      });
    };
    if (timeout) tellAll(&Client::tellDrain);
    std::unique_lock<std::mutex> lock(mutex);
    if (changed.wait_for(lock, std::chrono::nanoseconds(std::min<uint64_t>(timeout, INT64_MAX / 2)), over)) return;
    lock.unlock();
    tellAll(&Client::tellKill);
    lock.lock();
    changed.wait(lock, over);
  }

  Failure usable() const {
    if (!closing) return {};
    return failed(EBADF, "nbd", "the server is closed: open another one", "ERR_STRATAMAP_CLOSED");
  }

  void listenOn(int fd, SocketFile file) {
    onAcceptor([&] {
      listeners.push_back(std::make_unique<Listener>(acceptor, fd, std::move(file), *this));
      listeners.back()->accept();
    });
  }

  const ServerOptions options;
  IoThread& acceptor;
  const std::vector<std::unique_ptr<IoThread>>& threads;
  std::vector<std::unique_ptr<Buffers>> buffers;  // by a thread's index; each its thread's own

  std::unique_ptr<TlsServer> tls;  // set up before, ends behind the last client
  std::vector<std::unique_ptr<Served>> exports;
  std::vector<std::unique_ptr<Listener>> listeners;
  ServerCounts sums;

  std::mutex calls;  // one call of the API at a time
  std::atomic<bool> closing{false};

  // What the API waits for changes under `mutex`, on the acceptor alone.
  std::mutex mutex;
  std::condition_variable changed;
  std::list<std::unique_ptr<Client>> clients;
  size_t idleListeners = 0;
};

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() { close(0); }

Failure Server::open(const std::vector<std::unique_ptr<IoThread>>& threads, const ServerOptions& options,
                     std::unique_ptr<Server>* out, std::unique_ptr<TlsServer> tls) {
  for (const auto& thread : threads) {
    if (thread->ring()) continue;
    return failed(ENOSYS, "nbd", "cannot serve NBD: it needs io_uring, and " + thread->whyNoRing());
  }
  const ConnectionLimits& limits = options.limits;
  if (limits.requests < 1 || limits.requests > 1024 || limits.stall < 1'000'000 || limits.handshake == 0) {
    return failed(EINVAL, "nbd",
                  "cannot serve NBD: a connection may have 1 to 1024 requests in flight, a handshake takes time, and a "
                  "client stalls for a millisecond at least",
                  "ERR_OUT_OF_RANGE");
  }
  try {
    out->reset(new Server(std::make_unique<State>(threads, options, std::move(tls))));
  } catch (const std::bad_alloc&) {
    return failed(ENOMEM, "nbd", "cannot serve NBD: no memory for the buffers; ask for fewer bytes of them");
  }
  return {};
}

Failure Server::listenUnix(const std::string& path) {
  std::lock_guard<std::mutex> lock(state_->calls);
  if (Failure failure = state_->usable()) return failure;
  int fd;
  SocketFile file;
  if (Failure failure = nbd::listenUnix(path, &fd, &file)) return failure;
  state_->listenOn(fd, std::move(file));
  return {};
}

Failure Server::listenTcp(const std::string& host, uint16_t port, uint16_t* bound) {
  std::lock_guard<std::mutex> lock(state_->calls);
  if (Failure failure = state_->usable()) return failure;
  std::vector<int> fds;
  if (Failure failure = nbd::listenTcp(host, port, state_->tls != nullptr, &fds, bound)) return failure;
  for (const int fd : fds) state_->listenOn(fd, {});
  return {};
}

Failure Server::addExport(std::unique_ptr<Export> target) {
  std::lock_guard<std::mutex> lock(state_->calls);
  if (Failure failure = state_->usable()) return failure;
  const std::string asked = "cannot export " + target->name();
  const IoThread* home = &target->home();
  if (target->name().size() > kStringMost || target->description().size() > kStringMost) {
    return failed(EINVAL, "nbd", asked + ": a name or a description has at most 4096 bytes");
  }
  const auto isHome = [&](const auto& thread) { return thread.get() == home; };
  if (std::none_of(state_->threads.begin(), state_->threads.end(), isHome)) {
    return failed(EINVAL, "nbd", asked + ": it belongs to another host; serve it from a server of that one");
  }
  bool taken = false;
  state_->onAcceptor([&] {
    for (const auto& served : state_->exports) taken |= served->target->name() == target->name();
    if (taken) return;
    state_->exports.push_back(std::make_unique<State::Served>());
    state_->exports.back()->target = std::move(target);
  });
  if (taken) return failed(EEXIST, "nbd", asked + ": an export of that name is served; use another name");
  return {};
}

Failure Server::removeExport(const std::string& name, uint64_t timeout) {
  std::lock_guard<std::mutex> lock(state_->calls);
  if (Failure failure = state_->usable()) return failure;
  std::unique_ptr<State::Served> served;
  state_->onAcceptor([&] {
    const auto found = std::find_if(state_->exports.begin(), state_->exports.end(),
                                    [&](const auto& each) { return each->target->name() == name; });
    if (found == state_->exports.end()) return;
    served = std::move(*found);
    state_->exports.erase(found);
  });
  if (!served) return failed(ENOENT, "nbd", "cannot end export " + name + ": none of that name is served");
  state_->endClients(served.get(), timeout, [&] { return served->connected == 0; });
  return {};
}

void Server::close(uint64_t timeout) {
  std::lock_guard<std::mutex> lock(state_->calls);
  if (state_->closing.exchange(true)) return;
  state_->onAcceptor([&] {
    for (const auto& listener : state_->listeners) listener->close();
  });
  state_->endClients(nullptr, timeout,
                     [&] { return state_->clients.empty() && state_->idleListeners == state_->listeners.size(); });
  state_->onAcceptor([&] {
    state_->listeners.clear();
    state_->exports.clear();
  });
  state_->tls.reset();  // its thread may still be on its way out of a post to an I/O thread
}

ServerCounts Server::counts() const {
  ServerCounts counts;
  state_->onAcceptor([&] {
    counts = state_->sums;
    counts.connected = static_cast<uint32_t>(state_->clients.size());
  });
  return counts;
}

std::vector<ConnectionInfo> Server::connections() const {
  std::vector<ConnectionInfo> list;
  state_->onAcceptor([&] {
    for (const auto& client : state_->clients) {
      const Connection& connection = client->connection;
      list.push_back(
          {connection.peer(), client->served ? client->served->target->name() : "", connection.counts().read()});
    }
  });
  return list;
}

std::vector<ExportCounts> Server::exports() const {
  std::vector<ExportCounts> list;
  state_->onAcceptor([&] {
    for (const auto& served : state_->exports) {
      ExportCounts counts{served->target->name(), served->connected, served->past};
      for (const auto& client : state_->clients) {
        if (client->served == served.get() && !client->over) counts.counts.add(client->connection.counts().read());
      }
      list.push_back(std::move(counts));
    }
  });
  return list;
}

}  // namespace sm::nbd
