// `serial`: an identifier that the request already has. The host numbers its requests; a clone carries its parent's
// number (US 8,886,867: association by a pre-existing identifier).
#include "correlate/association.h"
#include "correlate/context_table.h"

namespace sm {

namespace {

class Serial : public Association {
 public:
  explicit Serial(uint32_t capacity) : table_(capacity) {}
  bool bind(uint32_t context, sm_request* above) override {
    return table_.bind(above->serial, context) == ContextTable::Bind::kBound;
  }
  uint32_t find(const sm_request* below) const override {
    uint32_t context = kNone;
    table_.find(below->serial, &context);
    return context;
  }
  void release(uint32_t, sm_request* above) override { table_.release(above->serial); }

 private:
  ContextTable table_;
};

}  // namespace

std::unique_ptr<Association> makeSerialAssociation(uint32_t capacity) { return std::make_unique<Serial>(capacity); }

}  // namespace sm
