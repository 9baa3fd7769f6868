// `serial`: an identifier that the request already has. The host numbers its requests; a clone carries its parent's
// number (US 8,886,867: association by a pre-existing identifier).
#include "correlate/associations.h"
#include "correlate/context_table.h"

namespace sm {

namespace {

class Serial : public Association {
 public:
  explicit Serial(uint32_t capacity) : table_(capacity) {}
  bool record(uint32_t context, const sm_request* above) override {
    return table_.bind<kOne>(above->serial, context) == ContextTable::Bind::kBound;
  }
  void forget(uint32_t, const sm_request* above) override { table_.release<kOne>(above->serial); }
  uint32_t find(const sm_request* below) const override {
    uint32_t context = kNone;
    table_.find(below->serial, &context);
    return context;
  }
  uint64_t key(const sm_request* request) const override { return request->serial; }

 private:
  static constexpr ContextTable::Writers kOne = ContextTable::Writers::kOne;  // the map's lock
  ContextTable table_;
};

}  // namespace

std::unique_ptr<Association> makeSerialAssociation(uint32_t capacity, const LiveBuffers&) {
  return std::make_unique<Serial>(capacity);
}

}  // namespace sm
