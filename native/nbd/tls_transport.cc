#if SM_HAVE_GNUTLS

#include "nbd/tls_transport.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace sm::nbd {

namespace {

constexpr size_t kRecord = 16 << 10;       // bytes of data in a record, at most
constexpr size_t kRecordSpace = 20 << 10;  // what becomes of one, and of a message that goes before it
constexpr size_t kInBytes = 64 << 10;      // one receive's
constexpr size_t kOutBytes = 128 << 10;    // one send's

}  // namespace

TlsTransport::TlsTransport(const TlsLibrary& library, TlsWorker& worker, gnutls_session_t session,
                           SocketTransport& below)
    : tls_(library),
      worker_(worker),
      session_(session),
      below_(below),
      in_{std::unique_ptr<uint8_t[]>(new uint8_t[kInBytes]), kInBytes},
      out_{std::unique_ptr<uint8_t[]>(new uint8_t[kOutBytes]), kOutBytes},
      record_(new uint8_t[kRecord]) {
  for (Task* task : {&toWorker_, &fromWorker_, &decrypt_, &failSend_}) task->owner = this;
  toWorker_.run = [](sm_task* task) { static_cast<Task*>(task)->owner->step(); };
  fromWorker_.run = [](sm_task* task) { static_cast<Task*>(task)->owner->stepped(); };
  decrypt_.run = [](sm_task* task) { static_cast<Task*>(task)->owner->decrypt(); };
  failSend_.run = [](sm_task* task) {
    TlsTransport* self = static_cast<Task*>(task)->owner;
    self->answerSend(self->written_);
  };
  tls_.gnutls_transport_set_ptr(session_, this);
  tls_.gnutls_transport_set_pull_function(session_, [](gnutls_transport_ptr_t self, void* to, size_t size) {
    return static_cast<TlsTransport*>(self)->pull(to, size);
  });
  tls_.gnutls_transport_set_push_function(session_, [](gnutls_transport_ptr_t self, const void* from, size_t size) {
    return static_cast<TlsTransport*>(self)->push(from, size);
  });
}

TlsTransport::~TlsTransport() { tls_.gnutls_deinit(session_); }

// --- between GnuTLS and the socket
ssize_t TlsTransport::again() const {
  tls_.gnutls_transport_set_errno(session_, EAGAIN);
  return -1;
}

ssize_t TlsTransport::pull(void* to, size_t size) {
  size = std::min(size, in_.end - in_.begin);
  if (size == 0) return arrived_ <= 0 ? 0 : again();
  std::memcpy(to, in_.data.get() + in_.begin, size);
  in_.begin += size;
  return static_cast<ssize_t>(size);
}

ssize_t TlsTransport::push(const void* from, size_t size) {
  size = std::min(size, out_.size - out_.end);
  if (size == 0) return again();
  std::memcpy(out_.data.get() + out_.end, from, size);
  out_.end += size;
  return static_cast<ssize_t>(size);
}

void TlsTransport::receiveBelow() {
  in_.begin = in_.end = 0;
  inPart_ = {in_.data.get(), in_.size};
  below_.receive(*thread_, *this, &inPart_, 1, std::exchange(waits_, true));
}

void TlsTransport::received(int result) {
  arrived_ = result;
  if (result > 0) in_.end = result;
  established_ ? decrypt() : handshake();
}

void TlsTransport::sendBelow() {
  sending_ = true;
  outPart_ = {out_.data.get() + out_.begin, out_.end - out_.begin};
  below_.send(*thread_, *this, &outPart_, 1);
}

void TlsTransport::sent(int result) {
  sending_ = false;
  if (result > 0) {
    out_.begin += result;
    if (!out_.empty()) return sendBelow();
  } else {
    error_ = result < 0 ? result : -EPIPE;
  }
  out_.begin = out_.end = 0;
  if (established_) return answerSend(result > 0 ? written_ : result);
  if (result <= 0) step_ = GNUTLS_E_PUSH_ERROR;
  stepped();
}

// --- the handshake
void TlsTransport::handshake() {
  stepping_ = true;
  worker_.submit(&toWorker_);
}

void TlsTransport::step() {
  do {
    step_ = tls_.gnutls_handshake(session_);
  } while (step_ != GNUTLS_E_SUCCESS && step_ != GNUTLS_E_AGAIN && !tls_.gnutls_error_is_fatal(step_));
  if (step_ < 0 && step_ != GNUTLS_E_AGAIN) tls_.gnutls_alert_send_appropriate(session_, step_);
  thread_->post(&fromWorker_);
}

void TlsTransport::stepped() {
  stepping_ = false;
  if (shutDown_) return answerReceive(-ECANCELED);
  // The alert of a failure too.
  if (!out_.empty() && step_ != GNUTLS_E_PUSH_ERROR) return sendBelow();
  if (step_ == GNUTLS_E_SUCCESS) {
    established_ = true;
    return decrypt();  // something may have come with the last of the handshake
  }
  if (step_ != GNUTLS_E_AGAIN) {
    error_ = -EACCES;
    return answerReceive(error_);
  }
  // What it waits for: room, of which there is some again, or bytes.
  tls_.gnutls_record_get_direction(session_) ? handshake() : receiveBelow();
}

// --- the stream in
void TlsTransport::receive(IoThread& thread, Transport::User& user, iovec* parts, uint32_t count, bool waits) {
  thread_ = &thread;
  reader_ = &user;
  parts_ = parts;
  count_ = count;
  waits_ = waits;
  if (!established_ && !error_) return handshake();
  const bool something = error_ || arrived_ <= 0 || !in_.empty() || tls_.gnutls_record_check_pending(session_) > 0;
  something ? thread_->atEndOfPass(&decrypt_) : receiveBelow();
}

// Fills the reader's parts with what there is.
void TlsTransport::decrypt() {
  size_t done = 0;
  uint32_t index = 0;
  size_t from = 0;  // in that part
  bool over = false;
  while (!error_ && !over && index < count_) {
    const size_t seen = in_.begin;
    const ssize_t got = tls_.gnutls_record_recv(session_, static_cast<uint8_t*>(parts_[index].iov_base) + from,
                                                parts_[index].iov_len - from);
    if (got > 0) {
      done += got;
      from += got;
      if (from == parts_[index].iov_len) ++index, from = 0;
    } else if (got == 0 || got == GNUTLS_E_PREMATURE_TERMINATION) {
      arrived_ = std::min(arrived_, 0);
      over = true;
    } else if (got == GNUTLS_E_AGAIN && in_.empty()) {
      break;
    } else if ((got != GNUTLS_E_AGAIN && got != GNUTLS_E_INTERRUPTED) || in_.begin == seen) {
      error_ = -EPROTO;  // a handshake anew among others
    }
  }
  if (done) return answerReceive(static_cast<int>(done));
  if (error_) return answerReceive(error_);
  if (over) return answerReceive(arrived_);
  receiveBelow();
}

void TlsTransport::answerReceive(int result) { std::exchange(reader_, nullptr)->received(result); }

// --- the stream out
void TlsTransport::send(IoThread& thread, Transport::User& user, iovec* parts, uint32_t count) {
  thread_ = &thread;
  writer_ = &user;
  written_ = static_cast<int>(encrypt(parts, count));
  if (written_ > 0) return sendBelow();
  thread_->atEndOfPass(&failSend_);
}

// As much as there is room for, in records that are full where they can be; returns how many bytes of `parts`, or a
// negative errno.
ssize_t TlsTransport::encrypt(const iovec* parts, uint32_t count) {
  ssize_t done = 0;
  uint32_t index = 0;
  size_t from = 0;  // in that part
  while (!error_ && index < count && out_.size - out_.end >= kRecordSpace) {
    const auto* data = static_cast<const uint8_t*>(parts[index].iov_base) + from;
    size_t size = std::min(parts[index].iov_len - from, kRecord);
    if (size < kRecord && index + 1 < count) {
      std::memcpy(record_.get(), data, size);
      for (uint32_t next = index + 1; next < count && size < kRecord; ++next) {
        const size_t more = std::min(parts[next].iov_len, kRecord - size);
        std::memcpy(record_.get() + size, parts[next].iov_base, more);
        size += more;
      }
      data = record_.get();
    }
    const ssize_t taken = tls_.gnutls_record_send(session_, data, size);
    if (taken <= 0) {
      error_ = -EPROTO;
      break;
    }
    done += taken;
    for (size_t left = taken; left > 0;) {
      const size_t step = std::min(parts[index].iov_len - from, left);
      left -= step;
      from += step;
      if (from == parts[index].iov_len) ++index, from = 0;
    }
  }
  return error_ ? error_ : done;
}

void TlsTransport::answerSend(int result) { std::exchange(writer_, nullptr)->sent(result); }

// --- the end
void TlsTransport::shutDown() {
  if (std::exchange(shutDown_, true)) return below_.shutDown();
  // The client is told that this is the end, where that can be said without waiting.
  if (!stepping_ && !sending_) {
    if (established_ && !error_) tls_.gnutls_bye(session_, GNUTLS_SHUT_WR);
    if (!out_.empty()) below_.sendAtOnce(out_.data.get() + out_.begin, out_.end - out_.begin);
    out_.begin = out_.end = 0;
  }
  below_.shutDown();
}

}  // namespace sm::nbd

#endif
