// The driver `nbd`: a client of an NBD server, on a unix socket or the loopback, through the I/O thread's ring. With a
// server that allows it (NBD_FLAG_CAN_MULTI_CONN) every I/O thread has a connection of its own; with another one, the
// first has it, and requests of the others pass through there.
//
// Nothing can keep others from writing to what the server serves: the device is shared, whatever was asked for.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "devices/check.h"
#include "devices/device.h"
#include "devices/nbd_channel.h"

namespace sm::nbd {

namespace {

class NbdDevice final : public Device {
 public:
  NbdDevice(DeviceFacts facts, std::vector<std::unique_ptr<RemoteChannel>> channels, bool flushes)
      : channels_(std::move(channels)), flushes_(flushes) {
    facts_ = std::move(facts);
    static constexpr sm_device_ops kOps = {SM_CONTRACT_VERSION, sizeof(sm_device_ops), submit};
    publish(&kOps);
  }

 private:
  static void submit(const sm_device_ops*, sm_device* device, sm_request* request) {
    const auto* self = static_cast<NbdDevice*>(device->driver);
    IoThread* here = IoThread::current();
    int32_t status;
    if (endsEarly(*device, *request, &status) || (request->op == SM_OP_FLUSH && !self->flushes_)) {
      return here->completeLater(request, status);
    }
    RemoteChannel* channel = self->channels_[here->index() % self->channels_.size()].get();
    auto* link = new (request->driver) RemoteChannel::Link{{}, nullptr, channel};
    if (&channel->thread() == here) return channel->submit(request);
    link->home = here;
    link->task.run = [](sm_task* task) {
      auto* link = reinterpret_cast<RemoteChannel::Link*>(task);
      link->channel->submit(link->request());
    };
    channel->thread().post(&link->task);
  }

  const std::vector<std::unique_ptr<RemoteChannel>> channels_;
  const bool flushes_;
};

Failure describe(const DeviceSpec& spec, const RemoteFacts& remote, DeviceFacts* facts) {
  *facts = {.name = spec.name, .path = spec.path, .driver = "nbd", .shared = true, .readOnly = spec.readOnly};
  facts->blockSize = std::max(remote.minimumBlock, kDefaultBlock);
  facts->bytes = remote.bytes / facts->blockSize * facts->blockSize;
  facts->maxTransfer = std::min(kDeviceMaxTransfer, remote.maximumPayload) / facts->blockSize * facts->blockSize;
  facts->discard = !spec.readOnly && (remote.flags & kSendTrim);
  if (facts->bytes == 0) {
    return openFailure(spec, EINVAL, "ERR_STRATAMAP_SIZE", "it holds not one block; give it a size first");
  }
  if (facts->maxTransfer == 0) {
    return openFailure(spec, EINVAL, "ERR_STRATAMAP_SIZE", "the server takes no request of as much as one block");
  }
  if ((remote.flags & kReadOnly) && !spec.readOnly) {
    return openFailure(spec, EROFS, nullptr, "the server serves it read-only; see readOnly: true");
  }
  if (!(remote.flags & kSendFlush)) {
    facts->notices.push_back("device '" + spec.name +
                             "': the server does not know flushes: what is durable when, it alone knows");
  }
  return {};
}

}  // namespace

Failure open(const DeviceSpec& spec, const std::vector<IoThread*>& threads, std::unique_ptr<Device>* out) {
  for (IoThread* thread : threads) {
    if (!thread->ring()) return openFailure(spec, ENOSYS, nullptr, "it needs io_uring, and " + thread->whyNoRing());
  }
  RemoteAddress address;
  std::string why;
  if (!parseUri(spec.path, &address, &why)) return openFailure(spec, EINVAL, "ERR_STRATAMAP_URI", why);
  RemoteFacts remote;
  DeviceFacts facts;
  std::vector<std::unique_ptr<RemoteChannel>> channels;
  do {
    int fd;
    if (const int error = connectTo(address, &fd, &why)) return openFailure(spec, -error, nullptr, why);
    RemoteFacts found;
    int error = negotiate(fd, address.name, &found, &why);
    if (!error && !channels.empty() && !(found == remote)) {
      error = -EPROTO;
      why = "the server says one thing to its first client, and another to its second";
    }
    if (error) {
      close(fd);
      return openFailure(spec, -error, nullptr, why);
    }
    remote = found;
    channels.push_back(std::make_unique<RemoteChannel>(*threads[channels.size()], fd, remote));
  } while ((remote.flags & kCanMultiConn) && channels.size() < threads.size());
  if (Failure refused = describe(spec, remote, &facts)) return refused;
  *out = std::make_unique<NbdDevice>(std::move(facts), std::move(channels), remote.flags & kSendFlush);
  return {};
}

}  // namespace sm::nbd
