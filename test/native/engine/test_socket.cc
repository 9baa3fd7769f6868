#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "engine/socket.h"
#include "native/sys/temp.h"

using namespace sm;
using namespace sm::test;

namespace {

void on(IoThread& thread, std::function<void()> work) {
  thread.call([](void* context) { (*static_cast<std::function<void()>*>(context))(); }, &work);
}

// What came of an operation.
struct Outcome {
  std::atomic<int> result{12345};
  static void done(void* context, int result) {
    auto* self = static_cast<Outcome*>(context);
    self->result = result;
    self->result.notify_one();
  }
  int wait(IoThread& thread) {
    result.wait(12345);
    on(thread, [] {});  // done has returned
    return result;
  }
};

struct Rig {
  Rig() : thread({.requests = 64, .bufferBytes = 1 << 20}, clock) {
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    socket = std::make_unique<Socket>(pair[0]);
  }
  ~Rig() {
    if (pair[1] >= 0) close(pair[1]);
  }
  HostClock clock;
  IoThread thread;
  int pair[2];
  std::unique_ptr<Socket> socket;
};

}  // namespace

TEST_CASE("what a socket receives is scattered, what it sends is gathered, both at once") {
  for (const bool waits : {false, true}) {
    Rig rig;
    if (!rig.thread.ring()) SM_SKIP(rig.thread.whyNoRing());
    char head[4], rest[100];
    iovec in[] = {{head, 4}, {rest, 100}};
    Outcome received, sent;
    on(rig.thread, [&] { rig.socket->receive(rig.thread, in, 2, waits, Outcome::done, &received); });
    std::string one = "scattered", two = " and gathered";
    iovec out[] = {{one.data(), one.size()}, {two.data(), two.size()}};
    on(rig.thread, [&] { rig.socket->send(rig.thread, out, 2, Outcome::done, &sent); });
    CHECK(sent.wait(rig.thread) == 22);
    char back[100];
    CHECK(read(rig.pair[1], back, sizeof back) == 22);
    CHECK(std::string(back, 22) == one + two);
    REQUIRE(write(rig.pair[1], "abcdefg", 7) == 7);
    CHECK(received.wait(rig.thread) == 7);
    CHECK(std::string(head, 4) == "abcd");
    CHECK(std::string(rest, 3) == "efg");
  }
}

TEST_CASE("a socket whose peer has gone, and one that is shut down") {
  Rig rig;
  if (!rig.thread.ring()) SM_SKIP(rig.thread.whyNoRing());
  char bytes[16];
  iovec part{bytes, sizeof bytes};
  Outcome received, ended, sent;
  on(rig.thread, [&] { rig.socket->receive(rig.thread, &part, 1, true, Outcome::done, &received); });
  rig.socket->shutDown(SHUT_RDWR);
  CHECK(received.wait(rig.thread) == 0);
  close(std::exchange(rig.pair[1], -1));
  on(rig.thread, [&] { rig.socket->send(rig.thread, &part, 1, Outcome::done, &sent); });
  CHECK(sent.wait(rig.thread) == -EPIPE);  // and no signal
  on(rig.thread, [&] { rig.socket->receive(rig.thread, &part, 1, false, Outcome::done, &ended); });
  CHECK(ended.wait(rig.thread) == 0);
}

TEST_CASE("a listening socket accepts until it is shut down") {
  Rig rig;
  if (!rig.thread.ring()) SM_SKIP(rig.thread.whyNoRing());
  TempFolder folder;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (folder / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(fd, 1) == 0);
  Socket listening(fd);
  Outcome first, second;
  on(rig.thread, [&] { listening.accept(rig.thread, Outcome::done, &first); });
  const int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK(first.wait(rig.thread) >= 0);
  close(first.result);
  close(client);
  on(rig.thread, [&] { listening.accept(rig.thread, Outcome::done, &second); });
  listening.shutDown(SHUT_RDWR);
  CHECK(second.wait(rig.thread) == -EINVAL);
}
