// Workloads of several CPUs as one static program: `smp [--scale N] NAME...` or `smp --list`. Each runs twice and prints
// `BENCH name run nanoseconds checksum`; the checksum is that of the work, the same on every correct machine.

#define _GNU_SOURCE
#include <inttypes.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) die("sched_setaffinity");
}

static long futex(atomic_int *word, int operation, int value) {
  return syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

// ---- Processes that have nothing to do with one another ----

#define TABLE (1 << 16)

// Arithmetic, and loads and stores over half a megabyte.
static uint64_t busy(unsigned scale) {
  static uint64_t table[TABLE];
  uint64_t x = 88172645463325252u, sum = 0;
  for (uint64_t n = 0; n < (uint64_t)40000000 * scale; n++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    sum += table[x & (TABLE - 1)];
    table[(x >> 32) & (TABLE - 1)] = x + sum;
  }
  return sum;
}

static void child(int cpu, unsigned scale) {
  if (fork() != 0) return;
  pin(cpu);
  _exit(busy(scale) == 1);
}

static uint64_t processes(int count, unsigned scale) {
  for (int n = 0; n < count; n++) child(n, scale);
  for (int n = 0; n < count; n++) {
    int status;
    if (wait(&status) < 0 || status != 0) die("child");
  }
  return 1;
}

static uint64_t oneBusy(unsigned scale) { return processes(1, scale); }
static uint64_t twoBusy(unsigned scale) { return processes(2, scale); }

// ---- Two threads that take turns ----

static atomic_int turn;
static unsigned turns;

static void *player(void *argument) {
  int me = (int)(intptr_t)argument;
  pin(me);
  for (unsigned n = 0; n < turns; n++) {
    while (atomic_load(&turn) != me) futex(&turn, FUTEX_WAIT_PRIVATE, !me);
    atomic_store(&turn, !me);
    futex(&turn, FUTEX_WAKE_PRIVATE, 1);
  }
  return NULL;
}

static void twoThreads(void *(*run)(void *)) {
  pthread_t threads[2];
  for (intptr_t n = 0; n < 2; n++)
    if (pthread_create(&threads[n], NULL, run, (void *)n) != 0) die("pthread_create");
  for (int n = 0; n < 2; n++) pthread_join(threads[n], NULL);
}

static uint64_t futexTurns(unsigned scale) {
  turns = 10000 * scale;
  turn = 0;
  twoThreads(player);
  return turns;
}

// Turns without the kernel: how soon one CPU sees what another writes.
static void *spinner(void *argument) {
  int me = (int)(intptr_t)argument;
  pin(me);
  for (unsigned n = 0; n < turns; n++) {
    while (atomic_load(&turn) != me) __builtin_ia32_pause();
    atomic_store(&turn, !me);
  }
  return NULL;
}

static uint64_t spinTurns(unsigned scale) {
  turns = 200000 * scale;
  turn = 0;
  twoThreads(spinner);
  return turns;
}

// ---- Two threads and one lock ----

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t guarded;

static void *locker(void *argument) {
  pin((int)(intptr_t)argument);
  for (unsigned n = 0; n < turns; n++) {
    pthread_mutex_lock(&lock);
    guarded += n;
    pthread_mutex_unlock(&lock);
  }
  return NULL;
}

static uint64_t mutex(unsigned scale) {
  turns = 400000 * scale;
  guarded = 0;
  twoThreads(locker);
  return guarded;
}

static atomic_ulong counter;

static void *incrementer(void *argument) {
  pin((int)(intptr_t)argument);
  for (unsigned n = 0; n < turns; n++) atomic_fetch_add(&counter, n);
  return NULL;
}

static uint64_t increments(unsigned scale) {
  turns = 4000000 * scale;
  counter = 0;
  twoThreads(incrementer);
  return counter;
}

// ---- Interrupts between CPUs: CPU 1 executes, CPU 0 interrupts it and waits until it has seen it ----

static atomic_int stop;

static void *executes(void *argument) {
  pin((int)(intptr_t)argument);
  volatile uint64_t n = 0;
  while (!atomic_load_explicit(&stop, memory_order_relaxed)) n++;
  return NULL;
}

static uint64_t interrupting(void (*interrupt)(void *), unsigned count) {
  pthread_t other;
  stop = 0;
  if (pthread_create(&other, NULL, executes, (void *)1) != 0) die("pthread_create");
  pin(0);
  char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) die("mmap");
  for (unsigned n = 0; n < count; n++) interrupt(page);
  munmap(page, 4096);
  stop = 1;
  pthread_join(other, NULL);
  return count;
}

static void barrier(void *page) {
  (void)page;
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) die("membarrier");
}

static uint64_t ipi(unsigned scale) {
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) die("membarrier");
  return interrupting(barrier, 20000 * scale);
}

// Takes a right away from a page that was written: every CPU must forget its translation.
static void protect(void *page) {
  if (mprotect(page, 4096, PROT_READ | PROT_WRITE) != 0) die("mprotect");
  *(volatile char *)page = 1;
  if (mprotect(page, 4096, PROT_READ) != 0) die("mprotect");
}

static uint64_t shootdown(unsigned scale) { return interrupting(protect, 10000 * scale); }

// ---- As `make -j2`: two processes that start many short ones ----

static const char *self;

static uint64_t make2(unsigned scale) {
  for (int worker = 0; worker < 2; worker++) {
    if (fork() != 0) continue;
    for (unsigned n = 0; n < 150 * scale; n++) {
      pid_t job = fork();
      if (job == 0) {
        execl(self, self, "--job", (char *)NULL);
        _exit(1);
      }
      int status;
      if (waitpid(job, &status, 0) != job || status != 0) _exit(1);
    }
    _exit(0);
  }
  for (int worker = 0; worker < 2; worker++) {
    int status;
    if (wait(&status) < 0 || status != 0) die("job");
  }
  return 1;
}

// What a compiler does, in small: new memory, a little work, an end.
static int job(void) {
  size_t bytes = 1 << 20;
  char *memory = malloc(bytes);
  if (memory == NULL) return 1;
  for (size_t n = 0; n < bytes; n += 64) memory[n] = (char)n;
  uint32_t hash = 1;
  for (size_t n = 0; n < bytes; n += 16) hash = hash * 31 + (unsigned char)memory[n];
  return hash == 0;
}

static uint64_t pipes(unsigned scale) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) die("pipe");
  unsigned count = 5000 * scale;
  char byte = 0;
  pid_t other = fork();
  if (other == 0) {
    pin(1);
    for (unsigned n = 0; n < count; n++)
      if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1) _exit(1);
    _exit(0);
  }
  pin(0);
  for (unsigned n = 0; n < count; n++)
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) die("pipe");
  waitpid(other, NULL, 0);
  close(there[0]), close(there[1]), close(back[0]), close(back[1]);
  return count;
}

static const struct {
  const char *name;
  uint64_t (*run)(unsigned scale);
} workloads[] = {
    {"one-busy", oneBusy}, {"two-busy", twoBusy},     {"futex-turns", futexTurns}, {"spin-turns", spinTurns},
    {"mutex", mutex},      {"increments", increments}, {"ipi", ipi},                {"shootdown", shootdown},
    {"make-2", make2},     {"pipes", pipes},
};
#define COUNT (sizeof workloads / sizeof workloads[0])

int main(int argc, char **argv) {
  unsigned scale = 1;
  self = argv[0];
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--job") == 0) return job();
    if (strcmp(argv[i], "--list") == 0) {
      for (size_t n = 0; n < COUNT; n++) puts(workloads[n].name);
      continue;
    }
    if (strcmp(argv[i], "--scale") == 0 && i + 1 < argc) {
      scale = (unsigned)strtoul(argv[++i], NULL, 10);
      continue;
    }
    for (size_t n = 0; n < COUNT; n++) {
      if (strcmp(argv[i], workloads[n].name) != 0) continue;
      for (int run = 1; run <= 2; run++) {
        cpu_set_t all;
        memset(&all, 0xff, sizeof all);
        sched_setaffinity(0, sizeof all, &all);
        uint64_t start = now();
        uint64_t checksum = workloads[n].run(scale);
        printf("BENCH %s %d %" PRIu64 " %016" PRIx64 "\n", workloads[n].name, run, now() - start, checksum);
      }
    }
  }
  return 0;
}
