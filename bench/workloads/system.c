// Workloads of the kernel's: system calls, switches between processes, page faults, process creation.

#define _GNU_SOURCE
#include "workloads.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t getpids(unsigned scale) {
  pid_t first = (pid_t)syscall(SYS_getpid);
  uint64_t same = 0;
  for (uint64_t i = 0; i < 400000ull * scale; i++) same += syscall(SYS_getpid) == first;
  return same;
}

static uint64_t pingPong(unsigned scale) {
  int there[2], back[2];
  if (pipe(there) || pipe(back)) return 0;
  pid_t child = fork();
  uint8_t byte = 0;
  if (child == 0) {
    close(there[1]);
    while (read(there[0], &byte, 1) == 1) {
      byte++;
      if (write(back[1], &byte, 1) != 1) break;
    }
    _exit(0);
  }
  close(there[0]);
  uint64_t hash = FNV_BASIS;
  for (unsigned i = 0; i < 20000 * scale; i++) {
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) break;
    hash = fnv(hash, byte);
  }
  close(there[1]);
  close(back[0]);
  close(back[1]);
  waitpid(child, NULL, 0);
  return hash;
}

static uint64_t pageFaults(unsigned scale) {
  const size_t size = 32u << 20;
  uint64_t sum = 0;
  for (unsigned round = 0; round < 5 * scale; round++) {
    uint8_t *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) return 0;
    madvise(area, size, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < size; at += 4096) area[at] = (uint8_t)(at >> 12);
    for (size_t at = 0; at < size; at += 4096) sum += area[at];
    munmap(area, size);
  }
  return sum;
}

static uint64_t forkWait(unsigned scale) {
  uint64_t sum = 0;
  for (unsigned i = 0; i < 300 * scale; i++) {
    pid_t child = fork();
    if (child == 0) _exit((int)(i & 127));
    int status = 0;
    waitpid(child, &status, 0);
    sum += (uint64_t)WEXITSTATUS(status);
  }
  return sum;
}

static uint64_t forkExec(unsigned scale) {
  uint64_t sum = 0;
  for (unsigned i = 0; i < 150 * scale; i++) {
    pid_t child = fork();
    if (child == 0) {
      execl("/proc/self/exe", "workloads", "--nothing", (char *)NULL);
      _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    sum += WEXITSTATUS(status) == 0;
  }
  return sum;
}

const struct workload system_workloads[] = {
    {"getpid", getpids, NULL},      {"ping-pong", pingPong, NULL}, {"page-fault", pageFaults, NULL},
    {"fork-wait", forkWait, NULL}, {"fork-exec", forkExec, NULL}, {NULL, NULL, NULL},
};
