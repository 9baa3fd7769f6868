/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Tells what the block layer does on the devices that are observed: starts, merges, issues and discards, as they
 * happen. Attached to its tracepoints (include/trace/events/block.h) with their own arguments; where each field of the
 * kernel's structures stands is found in its type information when the program is loaded (CO-RE,
 * Documentation/bpf/libbpf). What the map knows already is counted, not told: reads of the known priority, and writes
 * of it that go where one is expected.
 *
 * scripts/build-bpf makes block_events.bpf.inc of it.
 */
/* The others need what the first defines. */
/* clang-format off */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
/* clang-format on */

#include "intercept/kernel/block_events.bpf.h"

char _license[] SEC("license") = "GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct gendisk {
  int major, first_minor;
};
struct request_queue {
  struct gendisk* disk;
};
struct block_device {
  struct gendisk* bd_disk;
};
struct bvec_iter {
  __u64 bi_sector;
  unsigned bi_size;
};
struct bio {
  struct block_device* bi_bdev;
  unsigned bi_opf;
  unsigned short bi_ioprio;
  struct bvec_iter bi_iter;
};
struct request {
  struct request_queue* q;
  unsigned cmd_flags, __data_len;
  __u64 __sector;
  struct bio* bio;
};
struct request___6_12 { /* until Linux 6.12 */
  unsigned short ioprio;
};
#pragma clang attribute pop

/* Values that are not those of the kernel that runs are replaced. */
enum req_op {
  REQ_OP_READ = 0,
  REQ_OP_WRITE = 1,
  REQ_OP_FLUSH = 2,
  REQ_OP_DISCARD = 3,
  REQ_OP_SECURE_ERASE = 5,
};

/* enum sm_op and BlockIo::Kind; the observer asserts that they are the same. */
enum { OP_READ = 1, OP_WRITE, OP_FLUSH, OP_DISCARD, OP_WRITE_ZEROES };
enum { START, BACK_MERGE, FRONT_MERGE, ISSUE, QUEUE };

/* A ring for each CPU: what one CPU has begun to write must not hide what another has written. */
struct ring {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, SM_BLOCK_RING);
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, 1); /* as many as there are CPUs */
  __type(key, unsigned);
  __array(values, struct ring);
} events SEC(".maps");

struct sm_block_memory memory;

struct io {
  int device; /* its place in the memory, or -1 */
  __u64 sector;
  unsigned bytes, flags;
  unsigned short priority;
};

#define inlined static __attribute__((always_inline)) inline
#define is(op, name) ((op) == bpf_core_enum_value(enum req_op, REQ_OP_##name))

/* The place, bounded where the verifier sees it, which the compiler would leave out. */
inlined unsigned place_of(const struct io* io) {
  unsigned place = (unsigned)io->device;
  asm volatile("" : "+r"(place));
  return place & (SM_BLOCK_DEVICES - 1);
}

inlined unsigned operation(unsigned flags) { return flags & 0xff; /* REQ_OP_MASK */ }

inlined int find(struct gendisk* disk) {
  unsigned number = (unsigned)disk->major << 20 | (unsigned)disk->first_minor;
  for (int i = 0; i < SM_BLOCK_DEVICES; ++i) {
    if (i >= (int)memory.devices) break;
    if (memory.device[i].number == number) return i;
  }
  return -1;
}

inlined struct io of_request(struct request* rq) {
  struct io io = {.device = find(rq->q->disk)};
  if (io.device < 0) return io;
  io.sector = rq->__sector;
  io.bytes = rq->__data_len;
  io.flags = rq->cmd_flags;
  struct request___6_12* old = (void*)rq;
  if (bpf_core_field_exists(old->ioprio)) {
    io.priority = old->ioprio;
  } else {
    io.priority = rq->bio->bi_ioprio;
  }
  return io;
}

inlined struct io of_bio(struct bio* bio) {
  struct io io = {.device = find(bio->bi_bdev->bd_disk)};
  if (io.device < 0) return io;
  io.sector = bio->bi_iter.bi_sector;
  io.bytes = bio->bi_iter.bi_size;
  io.flags = bio->bi_opf;
  io.priority = bio->bi_ioprio;
  return io;
}

/* What is not known may change the medium. */
inlined unsigned char op_of(unsigned flags) {
  unsigned op = operation(flags);
  if (is(op, READ)) return OP_READ;
  if (is(op, WRITE)) return OP_WRITE;
  if (is(op, FLUSH)) return OP_FLUSH;
  if (is(op, DISCARD) || is(op, SECURE_ERASE)) return OP_DISCARD;
  return OP_WRITE_ZEROES;
}

inlined int tell(unsigned char kind, const struct io* io) {
  unsigned cpu = bpf_get_smp_processor_id();
  void* ring = bpf_map_lookup_elem(&events, &cpu);
  if (!ring) return 0; /* there is one for each CPU */
  struct sm_block_event* event = bpf_ringbuf_reserve(ring, sizeof *event, 0);
  if (!event) {
    __sync_fetch_and_add(&memory.lost, 1);
    return 0;
  }
  event->time = bpf_ktime_get_ns();
  event->sector = io->sector;
  event->bytes = io->bytes;
  event->device = memory.device[place_of(io)].name;
  event->thread = (unsigned)bpf_get_current_pid_tgid();
  event->priority = io->priority;
  event->kind = kind;
  event->op = op_of(io->flags);
  /* Nobody waits for a record; but the ring must be emptied in time. */
  int full = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) > SM_BLOCK_RING / 2;
  bpf_ringbuf_submit(event, full ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
  return 0;
}

/* Once for each word: the second time nothing is expected any more. */
inlined int take(sm_expected_word* slot, sm_expected_word word) {
  return *slot == word && __sync_val_compare_and_swap(slot, word, word | SM_EXPECTED_BEGUN) == word;
}

inlined int is_expected(const struct io* io) {
  unsigned name = memory.device[place_of(io)].name;
  sm_expected_word word = sm_expected(name, io->sector, io->bytes >> 9);
  unsigned slot = sm_expected_slot(word) & (SM_EXPECTED_SLOTS - 1);
  return word != 0 && (take(&memory.expected[slot], word) || take(&memory.expected[slot ^ 1], word));
}

inlined int began(unsigned char kind, const struct io* io) {
  if (io->device < 0) return 0;
  unsigned op = operation(io->flags);
  if (io->priority != memory.known || !(is(op, READ) || (is(op, WRITE) && is_expected(io)))) return tell(kind, io);
  if (kind == START) {
    unsigned cpu = bpf_get_smp_processor_id() & (SM_BLOCK_CPUS - 1);
    __sync_fetch_and_add(&memory.known_begun[cpu][place_of(io)], 1);
  }
  return 0;
}

SEC("tp_btf/block_io_start")
int BPF_PROG(start, struct request* rq) {
  struct io io = of_request(rq);
  return began(START, &io);
}

SEC("tp_btf/block_bio_backmerge")
int BPF_PROG(back_merge, struct bio* bio) {
  struct io io = of_bio(bio);
  return began(BACK_MERGE, &io);
}

SEC("tp_btf/block_bio_frontmerge")
int BPF_PROG(front_merge, struct bio* bio) {
  struct io io = of_bio(bio);
  return began(FRONT_MERGE, &io);
}

/* Of what has a tag: best effort, and a hint above the limits of commands' duration. */
SEC("tp_btf/block_rq_issue")
int BPF_PROG(issue, struct request* rq) {
  struct io io = of_request(rq);
  if (io.device < 0 || io.priority < (2 << 13 | 8 << 3) || io.priority >= 3 << 13 || io.priority == memory.known)
    return 0;
  return tell(ISSUE, &io);
}

/* Several discards may become one request, of which only the first is told. */
SEC("tp_btf/block_bio_queue")
int BPF_PROG(queue, struct bio* bio) {
  unsigned op = operation(bio->bi_opf);
  if (!is(op, DISCARD) && !is(op, SECURE_ERASE)) return 0;
  struct io io = of_bio(bio);
  return io.device < 0 ? 0 : tell(QUEUE, &io);
}
