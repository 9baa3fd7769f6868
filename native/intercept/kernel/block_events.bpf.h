/* What a program in the kernel and the observer have in common: the records that it writes, and its memory. */
#pragma once

#include "correlate/expected_write.h"

enum { SM_BLOCK_DEVICES = 16, SM_BLOCK_CPUS = 128, SM_BLOCK_RING = 512 << 10 };

struct sm_block_event {
  unsigned long long time;   /* ns of CLOCK_MONOTONIC */
  unsigned long long sector; /* of 512 bytes, on the whole disk */
  unsigned bytes;
  unsigned device;         /* as its user named it */
  unsigned thread;         /* that did it */
  unsigned short priority; /* include/uapi/linux/ioprio.h */
  unsigned char kind;      /* BlockIo::Kind */
  unsigned char op;        /* enum sm_op */
};

struct sm_block_memory {
  unsigned long long lost; /* records for which there was no room */
  unsigned known;          /* the priority of requests of which the map knows where they go */
  unsigned devices;        /* how many of `device` are used */
  struct {
    unsigned number; /* major << 20 | minor */
    unsigned name;
  } device[SM_BLOCK_DEVICES];
  sm_expected_word expected[SM_EXPECTED_SLOTS];
  /* Requests of the known priority that began and that nobody was told of. */
  unsigned long long known_begun[SM_BLOCK_CPUS][SM_BLOCK_DEVICES];
};
