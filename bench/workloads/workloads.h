// What the workload files share: each is a function that does a fixed amount of work, `scale` times, and returns a checksum of its results,
// which is the same on every correct machine.

#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint64_t (*workload_fn)(unsigned scale);

struct workload {
  const char *name;
  workload_fn run;
  void (*prepare)(void); // before the time counts, or null
};

// Each list ends with a null name.
extern const struct workload integer_workloads[];
extern const struct workload floating_workloads[];
extern const struct workload system_workloads[];
extern const struct workload memory_workloads[];

#define FNV_BASIS 0xcbf29ce484222325u
static inline uint64_t fnv(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x100000001b3u; }

// A generator with a state of its own per workload, so that the order of workloads changes nothing.
static inline uint32_t lcg(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state;
}
