// Programs in the kernel (bpf(2)), their memory and their rings of records, through libbpf, which is loaded when it is
// first asked for: the addon must load where it is not installed.
//
// Thread contract: one thread at a time; wait and wake from any thread, beside that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace sm {

class BpfObject {
 public:
  // Loads a compiled object (ELF), whose map `rings` is an array of rings of so many bytes: it gets one for each CPU.
  // Nothing runs yet. 0, or a negative errno; `why` then says what the system lacks or
  // refuses, and what to do.
  static int open(std::span<const std::byte> elf, const char* rings, uint32_t bytes, std::unique_ptr<BpfObject>* out,
                  std::string* why);
  ~BpfObject();
  BpfObject(const BpfObject&) = delete;
  BpfObject& operator=(const BpfObject&) = delete;

  // Its zero-initialised variables, which the kernel sees as well, for as long as the object lives; null
  // where they cannot be.
  void* memory(size_t bytes, std::string* why);
  // consume() tells what is in the rings by `told`: of one CPU in order, one CPU after the other.
  void tell(void (*told)(void* context, const void* record, size_t bytes), void* context);
  // Starts one of its programs.
  int attach(const char* program, std::string* why);

  // How often a program was not run, because it would have run within itself: in an interrupt of its own.
  uint64_t missed() const;

  void consume();
  // Waits until a program wakes a ring's reader, or wake() was called, or `timeout` ms have passed.
  void wait(int timeout);
  void wake();

 private:
  struct State;
  explicit BpfObject(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace sm
