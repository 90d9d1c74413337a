// Moving and filling 64 MiB: the string instructions themselves, and the C library's functions.

#include "workloads.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SIZE = 64 << 20 };

static uint8_t *from, *to;

// Mapped and touched before the time counts: page faults have a workload of their own.
static void prepare(void) {
  if (from) return;
  uint8_t *both = mmap(NULL, 2 * (size_t)SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (both == MAP_FAILED) abort();
  for (size_t i = 0; i < SIZE; i += 64) both[i] = (uint8_t)(i >> 6);
  from = both;
  to = both + SIZE;
}

static uint64_t sample(void) {
  uint64_t hash = FNV_BASIS;
  for (size_t i = 0; i < SIZE; i += 65472) hash = fnv(hash, to[i]);
  return hash;
}

static uint64_t repMovs(unsigned scale) {
  for (unsigned round = 0; round < scale; round++) {
    void *d = to, *s = from;
    size_t n = SIZE;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
  }
  return sample();
}

static uint64_t repStos(unsigned scale) {
  for (unsigned round = 0; round < scale; round++) {
    void *d = to;
    size_t n = SIZE / 8;
    __asm__ volatile("rep stosq" : "+D"(d), "+c"(n) : "a"(0x0102030405060708u + round) : "memory");
  }
  return sample();
}

static uint64_t copy(unsigned scale) {
  for (unsigned round = 0; round < scale; round++) {
    memcpy(to, from, SIZE);
    __asm__ volatile("" : : : "memory");
  }
  return sample();
}

static uint64_t fill(unsigned scale) {
  for (unsigned round = 0; round < scale; round++) {
    memset(to, (int)(0x5a + round), SIZE);
    __asm__ volatile("" : : : "memory");
  }
  return sample();
}

const struct workload memory_workloads[] = {
    {"rep-movs", repMovs, prepare}, {"rep-stos", repStos, prepare}, {"memcpy", copy, prepare}, {"memset", fill, prepare}, {NULL, NULL, NULL},
};
