// The workloads as one static program: `workloads [--scale N] NAME...` or `workloads --list`. Runs each named workload twice, so that the
// cost of new code shows against its later speed, and prints `BENCH name run nanoseconds checksum`.

#include "workloads.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct workload *const groups[] = {integer_workloads, floating_workloads, system_workloads, memory_workloads};

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static const struct workload *find(const char *name) {
  for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++)
    for (const struct workload *w = groups[g]; w->name; w++)
      if (strcmp(w->name, name) == 0) return w;
  return NULL;
}

int main(int argc, char **argv) {
  unsigned scale = 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--nothing") == 0) return 0; // what fork-exec executes
    if (strcmp(argv[i], "--list") == 0) {
      for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++)
        for (const struct workload *w = groups[g]; w->name; w++) puts(w->name);
      continue;
    }
    if (strcmp(argv[i], "--scale") == 0 && i + 1 < argc) {
      scale = (unsigned)strtoul(argv[++i], NULL, 10);
      continue;
    }
    const struct workload *w = find(argv[i]);
    if (!w) {
      fprintf(stderr, "workloads: no workload '%s'\n", argv[i]);
      return 1;
    }
    if (w->prepare) w->prepare();
    for (int run = 1; run <= 2; run++) {
      uint64_t start = now();
      uint64_t checksum = w->run(scale);
      printf("BENCH %s %d %" PRIu64 " %016" PRIx64 "\n", w->name, run, now() - start, checksum);
    }
  }
  return 0;
}
