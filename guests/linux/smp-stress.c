// Several CPUs at work on everything that makes them talk to one another: `smp-stress SECONDS`. Prints a line for each kind of work that came to
// its end with the right result, `stress NAME ok COUNT`, or `stress NAME FAILED ...`; status 0 if all did.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 64

static time_t end;

static int going(void) { return time(NULL) < end; }

static uint32_t next(uint32_t *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 17;
  return *seed ^= *seed << 5;
}

// Short processes, copy on write: a child changes its memory and the parent's stays.
static long forks(void) {
  long count = 0;
  char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(memory, 7, PAGES * PAGE);
  while (going()) {
    pid_t children[4];
    for (int n = 0; n < 4; n++) {
      children[n] = fork();
      if (children[n] < 0) return -1;
      if (children[n] == 0) {
        for (int page = 0; page < PAGES; page++)
          if (memory[page * PAGE]++ != 7) _exit(99);
        _exit(n);
      }
    }
    for (int n = 0; n < 4; n++) {
      int status;
      if (waitpid(children[n], &status, 0) != children[n] || !WIFEXITED(status) || WEXITSTATUS(status) != n) return -2;
    }
    for (int page = 0; page < PAGES; page++)
      if (memory[page * PAGE] != 7) return -3;
    count += 4;
  }
  return count;
}

// Threads, a mutex and a condition: a ring in which each hands on to the next.
#define RING 4
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long token;
static int ended;
static atomic_long unguarded;
static long guarded;

static void *ringer(void *argument) {
  long me = (long)argument;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (!ended && token % RING != me) pthread_cond_wait(&changed, &lock);
    if (ended) break;
    if (me == 0 && !going()) {
      ended = 1;
      pthread_cond_broadcast(&changed);
      break;
    }
    token++;
    guarded++;
    atomic_fetch_add(&unguarded, 1);
    pthread_cond_broadcast(&changed);
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

static long threads(void) {
  pthread_t ring[RING];
  for (long n = 0; n < RING; n++)
    if (pthread_create(&ring[n], NULL, ringer, (void *)n) != 0) return -1;
  for (int n = 0; n < RING; n++) pthread_join(ring[n], NULL);
  return token == guarded && token == atomic_load(&unguarded) ? token : -2;
}

// A number through a ring of processes.
static long pipes(void) {
  int ends[3][2];
  for (int n = 0; n < 3; n++)
    if (pipe(ends[n]) != 0) return -1;
  for (int n = 0; n < 2; n++) {
    if (fork() != 0) continue;
    for (;;) {
      long number;
      if (read(ends[n][0], &number, sizeof number) != sizeof number) _exit(0);
      number++;
      if (write(ends[n + 1][1], &number, sizeof number) != sizeof number) _exit(1);
      if (number < 0) _exit(0);
    }
  }
  long number = 0, rounds = 0;
  while (going()) {
    if (write(ends[0][1], &number, sizeof number) != sizeof number) return -2;
    if (read(ends[2][0], &number, sizeof number) != sizeof number) return -3;
    rounds++;
  }
  long last = INT64_MIN;
  if (write(ends[0][1], &last, sizeof last) != sizeof last) return -4;
  while (wait(NULL) > 0) continue;
  return number == 2 * rounds ? rounds : -5;
}

// Threads of one process that map, write, protect and unmap: every CPU has to forget translations, and faults must be those that were made.
static atomic_long faults;
static __thread volatile char *expected;

static void fault(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)context;
  if (info->si_addr != (void *)expected) _exit(98);
  atomic_fetch_add(&faults, 1);
  if (mprotect((void *)((uintptr_t)info->si_addr & -PAGE), PAGE, PROT_READ | PROT_WRITE) != 0) _exit(97);
}

static void *mapper(void *argument) {
  uint32_t seed = (uint32_t)(long)argument * 2654435761u + 1;
  long count = 0;
  while (going()) {
    char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return (void *)-1l;
    for (int page = 0; page < PAGES; page++) memory[page * PAGE] = (char)(page + 1);
    for (int n = 0; n < 32; n++) {
      int page = next(&seed) % PAGES;
      if (mprotect(memory + page * PAGE, PAGE, PROT_READ) != 0) return (void *)-2l;
      if (memory[page * PAGE] != (char)(page + 1)) return (void *)-3l;
      expected = memory + page * PAGE;
      *expected = (char)(page + 1);
    }
    if (munmap(memory, PAGES * PAGE) != 0) return (void *)-4l;
    count += 32;
  }
  return (void *)count;
}

static long mappings(void) {
  struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  pthread_t all[3];
  long count = 0;
  for (long n = 0; n < 3; n++)
    if (pthread_create(&all[n], NULL, mapper, (void *)(n + 1)) != 0) return -1;
  for (int n = 0; n < 3; n++) {
    void *result;
    pthread_join(all[n], &result);
    if ((long)result < 0) return (long)result - 10;
    count += (long)result;
  }
  return atomic_load(&faults) == count ? count : -20;
}

// Signals between two processes, turn by turn.
static atomic_int came;
static void note(int number) {
  (void)number;
  atomic_store(&came, 1);
}

static long signals(void) {
  struct sigaction action = {.sa_handler = note};
  sigset_t blocked, open;
  sigaction(SIGUSR1, &action, NULL);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigprocmask(SIG_BLOCK, &blocked, &open);
  sigdelset(&open, SIGUSR1);
  pid_t parent = getpid();
  pid_t child = fork();
  if (child == 0)
    for (;;) {
      while (!atomic_load(&came)) sigsuspend(&open);
      atomic_store(&came, 0);
      if (kill(parent, SIGUSR1) != 0) _exit(0);
    }
  long count = 0;
  while (going()) {
    kill(child, SIGUSR1);
    while (!atomic_load(&came)) sigsuspend(&open);
    atomic_store(&came, 0);
    count++;
  }
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  return count;
}

// Code that is written while others run it: each version is another page, made executable and given back.
static long codeWriting(void) {
  long count = 0;
  uint32_t seed = 77;
  while (going()) {
    uint32_t value = next(&seed);
    unsigned char *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED) return -1;
    code[0] = 0xb8; // MOV EAX, imm32; RET
    memcpy(code + 1, &value, 4);
    code[5] = 0xc3;
    if (mprotect(code, PAGE, PROT_READ | PROT_EXEC) != 0) return -2;
    uint32_t (*function)(void) = (uint32_t (*)(void))(uintptr_t)code;
    for (int n = 0; n < 50; n++)
      if (function() != value) return -3;
    munmap(code, PAGE);
    count++;
  }
  return count;
}

// Files in memory: what is written is read back.
static long files(void) {
  char name[] = "/tmp/stressXXXXXX";
  int file = mkstemp(name);
  if (file < 0) return -1;
  uint32_t seed = (uint32_t)getpid(), block[256];
  long count = 0;
  while (going()) {
    uint32_t start = seed;
    for (int n = 0; n < 64; n++) {
      for (int word = 0; word < 256; word++) block[word] = next(&seed);
      if (pwrite(file, block, sizeof block, n * sizeof block) != sizeof block) return -2;
    }
    for (int n = 0; n < 64; n++) {
      if (pread(file, block, sizeof block, n * sizeof block) != sizeof block) return -3;
      for (int word = 0; word < 256; word++)
        if (block[word] != next(&start)) return -4;
    }
    count++;
  }
  unlink(name);
  return count;
}

static const struct {
  const char *name;
  long (*run)(void);
} WORK[] = {{"forks", forks},     {"threads", threads}, {"pipes", pipes}, {"mappings", mappings},
            {"signals", signals}, {"code", codeWriting}, {"files", files}};
#define WORKS (sizeof WORK / sizeof WORK[0])

int main(int count, char **arguments) {
  if (count != 2 || atoi(arguments[1]) <= 0) return 2;
  end = time(NULL) + atoi(arguments[1]);
  pid_t children[WORKS];
  for (size_t n = 0; n < WORKS; n++) {
    children[n] = fork();
    if (children[n] != 0) continue;
    long result = WORK[n].run();
    printf("stress %s %s %ld\n", WORK[n].name, result > 0 ? "ok" : "FAILED", result);
    fflush(stdout);
    _exit(result <= 0);
  }
  int failed = 0;
  for (size_t n = 0; n < WORKS; n++) {
    int status;
    waitpid(children[n], &status, 0);
    if (status != 0) {
      printf("stress %s FAILED status %d\n", WORK[n].name, status);
      failed = 1;
    }
  }
  return failed;
}
