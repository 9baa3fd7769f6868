#include "sys/bpf_object.h"

#include <dlfcn.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#if SM_HAVE_LIBBPF
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#endif

namespace sm {

#if SM_HAVE_LIBBPF

namespace {

constexpr const char* kFile = "libbpf.so.1";  // of every release since 1.0
constexpr const char* kTypes = "/sys/kernel/btf/vmlinux";

#define SM_BPF_FUNCTIONS(each)            \
  each(bpf_link__destroy);                \
  each(bpf_map__set_max_entries);         \
  each(bpf_map__value_size);              \
  each(bpf_map_create);                   \
  each(bpf_map_update_elem);              \
  each(bpf_map__fd);                      \
  each(bpf_object__close);                \
  each(bpf_object__find_map_by_name);     \
  each(bpf_object__load);                 \
  each(bpf_object__find_program_by_name); \
  each(bpf_object__open_mem);             \
  each(bpf_obj_get_info_by_fd);           \
  each(bpf_program__attach);              \
  each(bpf_program__fd);                  \
  each(libbpf_set_print);                 \
  each(ring_buffer__add);                 \
  each(ring_buffer__consume);             \
  each(ring_buffer__epoll_fd);            \
  each(ring_buffer__free);                \
  each(ring_buffer__new)

struct Library {
#define SM_BPF_MEMBER(name) decltype(&::name) name = nullptr
  SM_BPF_FUNCTIONS(SM_BPF_MEMBER);
#undef SM_BPF_MEMBER
  std::string why;  // it could not be loaded

  Library() {
    void* handle = dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      why = std::string(kFile) + " is missing: install libbpf (Debian: apt-get install libbpf1)";
      return;
    }
    const auto find = [&](auto& member, const char* symbol) {
      member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(dlsym(handle, symbol));
      if (!member) why = std::string(kFile) + " has no " + symbol;
    };
#define SM_BPF_FIND(name) find(name, #name)
    SM_BPF_FUNCTIONS(SM_BPF_FIND);
#undef SM_BPF_FIND
  }
  static const Library& get() {
    static const Library library;  // stays loaded
    return library;
  }
};

std::string refusal(const char* what, int error) {
  std::string text = std::string(what) + ": " + std::strerror(error);
  if (error == EPERM || error == EACCES) {
    text += ": it takes CAP_BPF and CAP_PERFMON (or root); a kernel that is locked down refuses it all the same";
  } else if (error == ESRCH || error == ENOENT) {
    text += ": the kernel has not all of the tracepoints that are needed: Linux 6.5 has";
  } else if (error == ENOMEM) {
    text += ": allow more locked memory (ulimit -l)";
  }
  return text;
}

}  // namespace

struct BpfObject::State {
  bpf_object* object = nullptr;
  std::vector<bpf_link*> links;
  std::vector<int> programs;     // that run
  ring_buffer* rings = nullptr;  // the reader of all
  std::vector<int> ringMaps;
  void* memory = nullptr;
  size_t memoryBytes = 0;
  int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  void (*told)(void*, const void*, size_t) = nullptr;
  void* context = nullptr;

  int makeRings(const char* name, uint32_t bytes);

  ~State() {
    const Library& bpf = Library::get();
    for (bpf_link* link : links) bpf.bpf_link__destroy(link);
    if (rings) bpf.ring_buffer__free(rings);
    for (const int map : ringMaps) close(map);
    if (memory) munmap(memory, memoryBytes);
    if (object) bpf.bpf_object__close(object);
    if (wake >= 0) close(wake);
  }
};

// Of CPUs that are not online as well: they may come.
int BpfObject::State::makeRings(const char* name, uint32_t bytes) {
  const Library& bpf = Library::get();
  const int outer = bpf.bpf_map__fd(bpf.bpf_object__find_map_by_name(object, name));
  const auto read = [](void* self, void* record, size_t length) {
    const auto* state = static_cast<State*>(self);
    state->told(state->context, record, length);
    return 0;
  };
  const long cpus = sysconf(_SC_NPROCESSORS_CONF);
  for (uint32_t cpu = 0; cpu < cpus; ++cpu) {
    const int map = bpf.bpf_map_create(BPF_MAP_TYPE_RINGBUF, nullptr, 0, 0, bytes, nullptr);
    if (map < 0) return -errno;
    ringMaps.push_back(map);
    if (bpf.bpf_map_update_elem(outer, &cpu, &map, BPF_ANY) != 0) return -errno;
    if (!rings) {
      rings = bpf.ring_buffer__new(map, read, this, nullptr);
      if (!rings) return -errno;
    } else if (const int error = bpf.ring_buffer__add(rings, map, read, this)) {
      return error;
    }
  }
  return 0;
}

int BpfObject::open(std::span<const std::byte> elf, const char* rings, uint32_t bytes, std::unique_ptr<BpfObject>* out,
                    std::string* why) {
  const Library& bpf = Library::get();
  if (!bpf.why.empty()) {
    *why = bpf.why;
    return -ENOSYS;
  }
  if (access(kTypes, R_OK) != 0) {
    *why = std::string(kTypes) + " cannot be read: the kernel must tell its types (CONFIG_DEBUG_INFO_BTF)";
    return -ENOSYS;
  }
  auto state = std::make_unique<State>();
  // It prints what it thinks of each object; what is of use to a user is in the errors here.
  const libbpf_print_fn_t print = bpf.libbpf_set_print(nullptr);
  state->object = bpf.bpf_object__open_mem(elf.data(), elf.size(), nullptr);
  int error = state->object ? 0 : -errno;
  if (error == 0) {
    const auto cpus = static_cast<uint32_t>(sysconf(_SC_NPROCESSORS_CONF));
    bpf.bpf_map__set_max_entries(bpf.bpf_object__find_map_by_name(state->object, rings), cpus);
    error = bpf.bpf_object__load(state->object);
  }
  bpf.libbpf_set_print(print);
  if (error != 0) {
    *why = refusal("the kernel does not take a program", -error);
    return error;
  }
  error = state->makeRings(rings, bytes);
  if (error != 0) {
    *why = refusal("the rings of a program", -error);
    return error;
  }
  out->reset(new BpfObject(std::move(state)));
  return 0;
}

BpfObject::BpfObject(std::unique_ptr<State> state) : state_(std::move(state)) {}
BpfObject::~BpfObject() = default;

void* BpfObject::memory(size_t bytes, std::string* why) {
  const Library& bpf = Library::get();
  const bpf_map* map = bpf.bpf_object__find_map_by_name(state_->object, ".bss");
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t whole = (bytes + page - 1) / page * page;
  if (!map || bpf.bpf_map__value_size(map) != bytes) {
    *why = "a program's memory is not what it was built for";
    return nullptr;
  }
  void* memory = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_SHARED, bpf.bpf_map__fd(map), 0);
  if (memory == MAP_FAILED) {
    *why = refusal("mmap of a program's memory", errno);
    return nullptr;
  }
  state_->memory = memory;
  state_->memoryBytes = whole;
  return memory;
}

void BpfObject::tell(void (*told)(void*, const void*, size_t), void* context) {
  state_->told = told;
  state_->context = context;
}

int BpfObject::attach(const char* name, std::string* why) {
  const Library& bpf = Library::get();
  bpf_program* program = bpf.bpf_object__find_program_by_name(state_->object, name);
  bpf_link* link = bpf.bpf_program__attach(program);
  if (!link) {
    const int error = errno;
    *why = refusal("a program for a tracepoint", error);
    return -error;
  }
  state_->links.push_back(link);
  state_->programs.push_back(bpf.bpf_program__fd(program));
  return 0;
}

uint64_t BpfObject::missed() const {
  uint64_t sum = 0;
  for (const int program : state_->programs) {
    bpf_prog_info info{};
    uint32_t bytes = sizeof info;
    if (Library::get().bpf_obj_get_info_by_fd(program, &info, &bytes) == 0) sum += info.recursion_misses;
  }
  return sum;
}

void BpfObject::consume() { Library::get().ring_buffer__consume(state_->rings); }

void BpfObject::wait(int timeout) {
  pollfd files[] = {{Library::get().ring_buffer__epoll_fd(state_->rings), POLLIN, 0}, {state_->wake, POLLIN, 0}};
  if (poll(files, 2, timeout) <= 0 || !(files[1].revents & POLLIN)) return;
  uint64_t count;
  [[maybe_unused]] const ssize_t got = ::read(state_->wake, &count, sizeof count);
}

void BpfObject::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t put = write(state_->wake, &one, sizeof one);
}

#else

struct BpfObject::State {};
BpfObject::~BpfObject() = default;

int BpfObject::open(std::span<const std::byte>, const char*, uint32_t, std::unique_ptr<BpfObject>*, std::string* why) {
  *why = "this addon was built without libbpf; install its header (Debian: apt-get install libbpf-dev) and build again";
  return -ENOSYS;
}
void* BpfObject::memory(size_t, std::string*) { return nullptr; }
void BpfObject::tell(void (*)(void*, const void*, size_t), void*) {}
int BpfObject::attach(const char*, std::string*) { return -ENOSYS; }
uint64_t BpfObject::missed() const { return 0; }
void BpfObject::consume() {}
void BpfObject::wait(int) {}
void BpfObject::wake() {}

#endif

}  // namespace sm
