// The handshake, byte by byte: every option, every error, every limit.
#include "nbd/negotiation.h"

#include <doctest/doctest.h>

#include <functional>

#include "messages.h"

using namespace sm::test;
using namespace sm::nbd;
using Next = Negotiation::Next;

namespace {

struct Exports final : Catalog {
  std::vector<ExportInfo> list;
  Exports() {
    list.resize(2);
    list[0].name = "vm-1/vda";
    list[0].description = "a disk";
    list[0].bytes = 1 << 20;
    list[0].flags = kHasFlags | kSendFlush;
    list[0].contexts = {"base:allocation", "stratamap:physical"};
    list[1].name = "big";
    list[1].bytes = 8 << 20;
    list[1].flags = kHasFlags | kReadOnly;
    list[1].minimumBlock = 4096;
    list[1].contexts = {"base:allocation"};
  }
  size_t size() const override { return list.size(); }
  ExportInfo at(size_t index) const override { return list[index]; }
  size_t find(std::string_view name) const override {
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].name == name) return i;
    }
    return kNoExport;
  }
};

struct Rig {
  explicit Rig(Tls tls = Tls::kOff, uint32_t flags = kFixedNewstyle | kNoZeroes) : machine(exports, tls) {
    REQUIRE(feed(clientFlags(flags)) == Next::kMore);
    REQUIRE(answer.empty());
  }
  // One message; all of it must be taken.
  Next feed(const std::string& bytes) {
    answer.clear();
    size_t consumed = 0;
    const Next next = machine.feed(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), &consumed, &answer);
    if (next != Next::kViolation) CHECK(consumed == bytes.size());
    return next;
  }
  // The type of the one reply, or of the last of them.
  Reply ask(Option type, const std::string& data = {}) {
    CHECK(feed(option(type, data)) == Next::kMore);
    replies = optionReplies(answer);
    REQUIRE_FALSE(replies.empty());
    for (const OptionReply& each : replies) CHECK(each.option == static_cast<uint32_t>(type));
    return replies.back().type;
  }

  Exports exports;
  Negotiation machine;
  std::string answer;
  std::vector<OptionReply> replies;
};

}  // namespace

TEST_CASE("the server's greeting") {
  Exports exports;
  std::string out;
  Negotiation(exports, Tls::kOff).greet(&out);
  CHECK(out == "NBDMAGICIHAVEOPT" + wire(uint16_t{3}));
  CHECK(out.size() == kGreetingBytes);
}

TEST_CASE("client flags that are unknown end the connection") {
  Exports exports;
  for (const uint32_t flags : {0u, 1u, 2u, 3u, 4u, 0x80000003u}) {
    Negotiation machine(exports, Tls::kOff);
    std::string out;
    size_t consumed;
    const std::string in = wire(flags);
    CHECK(machine.feed(reinterpret_cast<const uint8_t*>(in.data()), in.size(), &consumed, &out) ==
          (flags > 3 ? Next::kViolation : Next::kMore));
    CHECK(out.empty());
  }
}

TEST_CASE("a message that is not complete is waited for, however it is cut") {
  const std::string whole = option(Option::kGo, infoData("vm-1/vda", {Info::kBlockSize}));
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    Rig rig;
    size_t consumed = 1;
    CHECK(rig.machine.feed(reinterpret_cast<const uint8_t*>(whole.data()), cut, &consumed, &rig.answer) == Next::kMore);
    CHECK(consumed == 0);
    CHECK(rig.answer.empty());
    CHECK(rig.feed(whole) == Next::kTransmission);
  }
}

TEST_CASE("GO and INFO tell size, flags and block sizes, and what else is asked for") {
  for (const Option type : {Option::kInfo, Option::kGo}) {
    Rig rig;
    CHECK(rig.feed(option(type, infoData("vm-1/vda", {Info::kName, Info::kDescription, Info::kBlockSize}))) ==
          (type == Option::kGo ? Next::kTransmission : Next::kMore));
    const auto replies = optionReplies(rig.answer);
    REQUIRE(replies.size() == 5);
    CHECK(replies[0].data == wire(uint16_t{0}, uint64_t{1 << 20}, uint16_t{kHasFlags | kSendFlush}));
    CHECK(replies[1].data == wire(uint16_t{3}, uint32_t{512}, uint32_t{4096}, uint32_t{32 << 20}));
    CHECK(replies[2].data == wire(uint16_t{1}, "vm-1/vda"));
    CHECK(replies[3].data == wire(uint16_t{2}, "a disk"));
    for (int i = 0; i < 4; ++i) CHECK(replies[i].type == Reply::kInfo);
    CHECK(replies[4].type == Reply::kAck);
    if (type == Option::kInfo) continue;
    CHECK(rig.machine.agreement().exportIndex == 0);
    CHECK(rig.machine.agreement().bytes == 1 << 20);
    CHECK_FALSE(rig.machine.agreement().structured);
    CHECK(rig.machine.agreement().contexts.empty());
  }
}

TEST_CASE("GO that is malformed, unknown, or ignores large blocks") {
  Rig rig;
  const std::string good = infoData("vm-1/vda", {Info::kBlockSize});
  for (size_t cut = 0; cut < good.size(); ++cut) {
    CHECK(rig.ask(Option::kGo, good.substr(0, cut)) == Reply::kErrInvalid);
  }
  CHECK(rig.ask(Option::kGo, good + "x") == Reply::kErrInvalid);
  CHECK(rig.ask(Option::kGo, wire(uint32_t{0xffffffff}) + "vm-1/vda") == Reply::kErrInvalid);
  CHECK(rig.ask(Option::kGo, infoData("vm-2/vda")) == Reply::kErrUnknown);
  CHECK(rig.ask(Option::kInfo, infoData("vm-2/vda")) == Reply::kErrUnknown);
  CHECK(rig.ask(Option::kInfo, infoData(std::string(4097, 'n'))) == Reply::kErrTooBig);
  CHECK(rig.ask(Option::kGo, infoData("big")) == Reply::kErrBlockSizeReqd);
  CHECK(rig.replies[0].type == Reply::kInfo);
  CHECK(rig.ask(Option::kInfo, infoData("big")) == Reply::kAck);
  CHECK(rig.feed(option(Option::kGo, infoData("big", {Info::kBlockSize}))) == Next::kTransmission);
  CHECK(rig.machine.agreement().minimumBlock == 4096);
}

TEST_CASE("EXPORT_NAME") {
  for (const bool zeroes : {false, true}) {
    Rig rig(Tls::kOff, zeroes ? kFixedNewstyle : kFixedNewstyle | kNoZeroes);
    CHECK(rig.feed(option(Option::kExportName, "vm-1/vda")) == Next::kTransmission);
    CHECK(rig.answer ==
          wire(uint64_t{1 << 20}, uint16_t{kHasFlags | kSendFlush}) + std::string(zeroes ? 124 : 0, '\0'));
  }
  Rig rig;
  CHECK(rig.feed(option(Option::kExportName, "vm-2/vda")) == Next::kClose);
  CHECK(rig.answer.empty());
  CHECK(Rig().feed(option(Option::kExportName, std::string(4097, 'x'))) == Next::kClose);
  CHECK(Rig().feed(option(Option::kExportName, std::string(kOptionMost + 1, 'x'))) == Next::kViolation);
}

TEST_CASE("ABORT is acknowledged") {
  Rig rig;
  CHECK(rig.feed(option(Option::kAbort)) == Next::kClose);
  CHECK(optionReplies(rig.answer).at(0).type == Reply::kAck);
}

TEST_CASE("LIST") {
  Rig rig;
  CHECK(rig.ask(Option::kList) == Reply::kAck);
  REQUIRE(rig.replies.size() == 3);
  CHECK(rig.replies[0].type == Reply::kServer);
  CHECK(rig.replies[0].data == text("vm-1/vda") + "a disk");
  CHECK(rig.replies[1].data == text("big"));
  CHECK(rig.ask(Option::kList, "x") == Reply::kErrInvalid);
}

TEST_CASE("STRUCTURED_REPLY") {
  Rig rig;
  CHECK(rig.ask(Option::kStructuredReply, "x") == Reply::kErrInvalid);
  CHECK(rig.ask(Option::kStructuredReply) == Reply::kAck);
  CHECK(rig.feed(option(Option::kGo, infoData("vm-1/vda"))) == Next::kTransmission);
  CHECK(rig.machine.agreement().structured);
  CHECK(rig.machine.agreement().flags == (kHasFlags | kSendFlush | kSendDf));
}

TEST_CASE("options that are not known, and options that are too long") {
  Rig rig;
  for (const uint32_t unknown : {0u, 4u, 8u + 3u, 12u, 0xffffffffu}) {
    CHECK(rig.ask(static_cast<Option>(unknown), "some data") == Reply::kErrUnsup);
  }
  // Refused at once, its data passed over in whatever pieces it comes.
  const std::string head = wire(kOptionMagic, uint32_t{7}, uint32_t{kSkipMost});
  CHECK(rig.feed(head) == Next::kMore);
  CHECK(optionReplies(rig.answer).at(0).type == Reply::kErrTooBig);
  CHECK(rig.feed(std::string(1000, 'x')) == Next::kMore);
  CHECK(rig.answer.empty());
  std::string rest = std::string(kSkipMost - 1000, 'x') + option(Option::kList);
  size_t consumed = 0;
  CHECK(rig.machine.feed(reinterpret_cast<const uint8_t*>(rest.data()), rest.size(), &consumed, &rig.answer) ==
        Next::kMore);
  CHECK(consumed == kSkipMost - 1000);
  CHECK(rig.ask(Option::kList) == Reply::kAck);
  CHECK(rig.feed(wire(kOptionMagic, uint32_t{7}, uint32_t{kSkipMost + 1})) == Next::kViolation);
  CHECK(Rig().feed(wire(kOptionMagic + 1, uint32_t{3}, uint32_t{0})) == Next::kViolation);
}

TEST_CASE("metadata contexts: lists, wildcards, and what is selected") {
  Rig rig;
  CHECK(rig.ask(Option::kListMetaContext, contextData("vm-1/vda")) == Reply::kErrInvalid);
  CHECK(rig.ask(Option::kSetMetaContext, contextData("vm-1/vda", {"base:allocation"})) == Reply::kErrInvalid);
  CHECK(rig.ask(Option::kStructuredReply) == Reply::kAck);

  const auto list = [&](const std::vector<std::string>& queries) {
    CHECK(rig.ask(Option::kListMetaContext, contextData("vm-1/vda", queries)) == Reply::kAck);
    std::string names;
    for (size_t i = 0; i + 1 < rig.replies.size(); ++i) {
      CHECK(rig.replies[i].type == Reply::kMetaContext);
      CHECK(load<uint32_t>(rig.replies[i].data.data()) == 0);
      names += rig.replies[i].data.substr(4) + " ";
    }
    return names;
  };
  CHECK(list({}) == "base:allocation stratamap:physical ");
  CHECK(list({"base:"}) == "base:allocation ");
  CHECK(list({"stratamap:", "base:allocation"}) == "base:allocation stratamap:physical ");
  CHECK(list({"qemu:dirty", "base:alloc", ""}) == "");
  CHECK(rig.ask(Option::kListMetaContext, contextData("vm-2/vda")) == Reply::kErrUnknown);

  const std::string good = contextData("vm-1/vda", {"base:allocation"});
  for (size_t cut = 0; cut < good.size(); ++cut) {
    CHECK(rig.ask(Option::kSetMetaContext, good.substr(0, cut)) == Reply::kErrInvalid);
  }
  CHECK(rig.ask(Option::kSetMetaContext, good + "x") == Reply::kErrInvalid);
  CHECK(rig.ask(Option::kSetMetaContext, text("vm-1/vda") + wire(uint32_t{0xffffffff})) == Reply::kErrInvalid);
  CHECK(rig.ask(Option::kSetMetaContext, contextData("vm-1/vda", {std::string(4097, 'q')})) == Reply::kErrTooBig);
  CHECK(rig.ask(Option::kSetMetaContext, contextData("vm-2/vda", {"base:allocation"})) == Reply::kErrUnknown);

  CHECK(rig.ask(Option::kSetMetaContext, contextData("vm-1/vda", {"base:", "stratamap:physical", "x:y"})) ==
        Reply::kAck);
  REQUIRE(rig.replies.size() == 2);
  CHECK(rig.replies[0].data == wire(uint32_t{0}, "stratamap:physical"));
  CHECK(rig.feed(option(Option::kInfo, infoData("vm-1/vda"))) == Next::kMore);
  CHECK(rig.feed(option(Option::kGo, infoData("vm-1/vda"))) == Next::kTransmission);
  CHECK(rig.machine.agreement().contexts == std::vector<uint32_t>{1});
}

TEST_CASE("selected contexts hold for their export, until they are selected anew, and while it has them") {
  const auto agreed = [](const std::function<void(Rig&)>& then, const std::string& name) {
    Rig rig;
    rig.ask(Option::kStructuredReply);
    rig.ask(Option::kSetMetaContext, contextData("vm-1/vda", {"base:allocation"}));
    then(rig);
    CHECK(rig.feed(option(Option::kGo, infoData(name, {Info::kBlockSize}))) == Next::kTransmission);
    return rig.machine.agreement().contexts.size();
  };
  CHECK(agreed([](Rig&) {}, "vm-1/vda") == 1);
  CHECK(agreed([](Rig&) {}, "big") == 0);
  CHECK(agreed([](Rig& rig) { rig.ask(Option::kSetMetaContext, contextData("vm-1/vda")); }, "vm-1/vda") == 0);
  CHECK(agreed([](Rig& rig) { rig.ask(Option::kSetMetaContext, contextData("nothing")); }, "vm-1/vda") == 0);
  CHECK(agreed([](Rig& rig) { rig.ask(Option::kSetMetaContext, "x"); }, "vm-1/vda") == 0);
  CHECK(agreed([](Rig& rig) { rig.exports.list[0].contexts = {"other:one"}; }, "vm-1/vda") == 0);
}

TEST_CASE("TLS: off, offered, required") {
  Rig off;
  CHECK(off.ask(Option::kStartTls) == Reply::kErrPolicy);
  CHECK(off.ask(Option::kStartTls, "x") == Reply::kErrInvalid);

  Rig offered(Tls::kOffered);
  CHECK(offered.ask(Option::kList) == Reply::kAck);
  CHECK(offered.ask(Option::kStructuredReply) == Reply::kAck);
  CHECK(offered.feed(option(Option::kStartTls)) == Next::kStartTls);
  CHECK(optionReplies(offered.answer).at(0).type == Reply::kAck);
  offered.machine.tlsStarted();
  CHECK(offered.ask(Option::kStartTls) == Reply::kErrInvalid);
  CHECK(offered.feed(option(Option::kGo, infoData("vm-1/vda"))) == Next::kTransmission);
  CHECK_FALSE(offered.machine.agreement().structured);  // it was agreed on before, by who knows whom

  Rig required(Tls::kRequired);
  for (const Option type : {Option::kList, Option::kInfo, Option::kGo, Option::kStructuredReply,
                            Option::kListMetaContext, Option::kSetMetaContext, static_cast<Option>(77)}) {
    CHECK(required.ask(type) == Reply::kErrTlsReqd);
  }
  CHECK(required.feed(option(Option::kStartTls)) == Next::kStartTls);
  required.machine.tlsStarted();
  CHECK(required.ask(Option::kList) == Reply::kAck);
  CHECK(Rig(Tls::kRequired).feed(option(Option::kExportName, "vm-1/vda")) == Next::kClose);
  CHECK(Rig(Tls::kRequired).feed(option(Option::kAbort)) == Next::kClose);
}
