// Runs single instructions natively: the host CPU as oracle (records in record.ts).
//
// A case is entered by returning from a signal handler whose frame was rewritten to hold the case's registers, and it ends in the
// signal that its last instruction raises: the INT3 that fills the code pages, or a fault. One signal and one sigreturn a case.
//
// stdin:  configuration { u32 code, u32 data, u32 limit of 16-bit code, u32 base and u32 limit of its data, u8 pattern[DATA_BYTES] }, then batches { u32 count, count * REQUEST_BYTES }.
// stdout: u32 whether it has 16-bit code; for each batch { u32 bytes, results }; a result is RESULT_HEAD bytes and 8 bytes for each changed word of the data pages.

#define _GNU_SOURCE
#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

enum {
  PAGE = 4096,
  CODE_BYTES = 2 * PAGE,
  DATA_BYTES = 2 * PAGE,
  REQUEST_BYTES = 1536,
  RESULT_HEAD = 608,
  FX_BYTES = 416, // x87, MXCSR and XMM part of an FXSAVE image (SDM Vol. 1 Table 10-2)
  BATCH_MAX = 8192,
};

// Selectors of user code in Linux (arch/x86/include/asm/segment.h).
enum { USER32_CS = 0x23, USER_DS = 0x2b, USER_CS = 0x33 };
// Segments of 16-bit code, made in the LDT.
enum { CS_16 = 0x07, DS_16 = 0x0f };

struct request {
  uint32_t mode; // 0, 1, 2: 64-, 32-, 16-bit code
  uint32_t code_length;
  uint8_t code[16];
  uint64_t rip, rflags;
  struct {
    uint32_t address, length;
  } patch[2];
  uint64_t pad;
  uint64_t gpr[16];
  uint8_t fx[512];
  uint8_t patch0[128];
  uint8_t patch1[704];
};

struct result {
  uint32_t vector, error;
  uint64_t cr2, rip, rflags;
  uint32_t changed, code_and_stack, ds_and_es;
  uint32_t pad[5];
  uint64_t gpr[16];
  uint8_t fx[FX_BYTES];
  struct {
    uint32_t index, value;
  } words[];
};

_Static_assert(sizeof(struct request) == REQUEST_BYTES, "request");
_Static_assert(sizeof(struct result) == RESULT_HEAD, "result");

static uint8_t *code, *data;
static uint8_t pattern[DATA_BYTES];
static struct request requests[BATCH_MAX];
static uint8_t *results;
static uint8_t *out;
static uint32_t count, current, watched;
static gregset_t home;
static volatile int hung;

// GPRs in the order of their numbers.
static const int GREG[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                             REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

// Legacy code needs usable data segments; Linux keeps DS and ES of a process.
static void data_segments(uint32_t selector) {
  __asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"(selector));
}

// Instruction bytes that lie on the code pages; the rest would be behind their end.
static size_t room(const struct request *q) {
  const size_t left = (uintptr_t)code + CODE_BYTES - q->rip;
  return q->code_length < left ? q->code_length : left;
}

static void enter(ucontext_t *u) {
  const struct request *q = &requests[current];
  greg_t *g = u->uc_mcontext.gregs;
  memcpy(code + (q->rip - (uintptr_t)code), q->code, room(q));
  for (int i = 0; i < 2; i++)
    if (q->patch[i].length)
      memcpy((void *)(uintptr_t)q->patch[i].address, i ? q->patch1 : q->patch0, q->patch[i].length);
  for (int i = 0; i < 16; i++) g[GREG[i]] = (greg_t)q->gpr[i];
  const int narrow = q->mode == 2;
  g[REG_RIP] = (greg_t)(narrow ? q->rip - (uintptr_t)code : q->rip);
  g[REG_EFL] = (greg_t)q->rflags;
  g[REG_CSGSFS] = (g[REG_CSGSFS] & 0x0000ffffffff0000) | ((greg_t)(narrow ? DS_16 : USER_DS) << 48) |
                  (narrow ? CS_16 : q->mode ? USER32_CS : USER_CS);
  data_segments(narrow ? DS_16 : USER_DS);
  uint8_t *fp = (uint8_t *)u->uc_mcontext.fpregs;
  memcpy(fp, q->fx, FX_BYTES);
  // XSTATE_BV of the frame: x87 and SSE state are present (SDM Vol. 1 13.4.2).
  *(uint64_t *)(fp + 512) |= 3;
}

static void leave(const ucontext_t *u) {
  const struct request *q = &requests[current];
  const greg_t *g = u->uc_mcontext.gregs;
  struct result *r = (struct result *)out;
  memset(r, 0, RESULT_HEAD);
  if (hung) {
    r->vector = 255;
    hung = 0;
  } else {
    r->vector = (uint32_t)g[REG_TRAPNO];
    r->error = (uint32_t)g[REG_ERR];
    if (r->vector == 14) r->cr2 = (uint64_t)g[REG_CR2];
    else if (r->vector == 3 || r->vector == 1) r->error = 0;
  }
  r->rip = (uint64_t)g[REG_RIP];
  r->rflags = (uint64_t)g[REG_EFL];
  r->code_and_stack = (uint32_t)(g[REG_CSGSFS] & 0xffff) | (uint32_t)((uint64_t)g[REG_CSGSFS] >> 48 << 16);
  uint32_t ds, es;
  __asm__ volatile("mov %%ds, %0; mov %%es, %1" : "=r"(ds), "=r"(es));
  r->ds_and_es = ds | es << 16;
  for (int i = 0; i < 16; i++) r->gpr[i] = (uint64_t)g[GREG[i]];
  memcpy(r->fx, u->uc_mcontext.fpregs, FX_BYTES);
  memset(code + (q->rip - (uintptr_t)code), 0xcc, room(q));
  const uint32_t *now = (const uint32_t *)data, *was = (const uint32_t *)pattern;
  for (uint32_t i = 0; i < DATA_BYTES / 4; i += 16) {
    if (memcmp(now + i, was + i, 64) == 0) continue;
    for (uint32_t k = i; k < i + 16; k++)
      if (now[k] != was[k]) {
        r->words[r->changed].index = k;
        r->words[r->changed++].value = now[k];
      }
    memcpy((uint32_t *)data + i, was + i, 64);
  }
  out += RESULT_HEAD + 8 * (size_t)r->changed;
}

static void handler(int signal, siginfo_t *info, void *context) {
  (void)info;
  // The handler inherits NT and ID from the case.
  __asm__ volatile("pushq $0x202; popfq" ::: "cc", "memory");
  ucontext_t *u = context;
  if (signal == SIGALRM) {
    // Only a case that was running at the last alarm too has hung.
    const int same = watched == current;
    watched = current;
    if (current >= count || !same) return;
    hung = 1;
  }
  if (current == UINT32_MAX) {
    memcpy(home, u->uc_mcontext.gregs, sizeof home);
    current = 0;
  } else {
    leave(u);
    current++;
  }
  if (current < count) enter(u);
  else memcpy(u->uc_mcontext.gregs, home, sizeof home);
}

static void *map(uint32_t address, size_t bytes, int protection) {
  void *at = mmap((void *)(uintptr_t)address, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (at != (void *)(uintptr_t)address) {
    fprintf(stderr, "harness: no memory at %#x: %s\n", address, strerror(errno));
    exit(1);
  }
  return at;
}

static int local_segment(unsigned entry, unsigned contents, uint32_t base, uint32_t limit) {
  struct user_desc segment = {.entry_number = entry, .base_addr = base, .limit = limit, .contents = contents};
  return syscall(SYS_modify_ldt, 1, &segment, sizeof segment) == 0;
}

static int get(void *to, size_t bytes) {
  for (size_t n = 0; n < bytes;) {
    ssize_t k = read(0, (uint8_t *)to + n, bytes - n);
    if (k <= 0) return 0;
    n += (size_t)k;
  }
  return 1;
}

static void put(const void *from, size_t bytes) {
  for (size_t n = 0; n < bytes;) {
    ssize_t k = write(1, (const uint8_t *)from + n, bytes - n);
    if (k <= 0) exit(1);
    n += (size_t)k;
  }
}

int main(void) {
  struct {
    uint32_t code, data, code_limit, data_base, data_limit;
  } places;
  if (!get(&places, sizeof places) || !get(pattern, sizeof pattern)) return 1;
  code = map(places.code, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
  data = map(places.data, DATA_BYTES, PROT_READ | PROT_WRITE);
  // Kernels can be built without it; 16-bit cases are left out then.
  const uint32_t narrow = local_segment(0, MODIFY_LDT_CONTENTS_CODE, places.code, places.code_limit) &&
                          local_segment(1, MODIFY_LDT_CONTENTS_DATA, places.data_base, places.data_limit);
  memset(code, 0xcc, CODE_BYTES);
  memcpy(data, pattern, DATA_BYTES);
  results = malloc((size_t)BATCH_MAX * (RESULT_HEAD + 2 * DATA_BYTES));
  data_segments(USER_DS);
  static uint8_t stack[1 << 16] __attribute__((aligned(64)));
  stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternative, NULL);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigfillset(&action.sa_mask);
  const int signals[] = {SIGILL, SIGSEGV, SIGFPE, SIGTRAP, SIGBUS, SIGALRM};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
  put(&narrow, sizeof narrow);
  while (get(&count, sizeof count)) {
    if (count > BATCH_MAX || !get(requests, (size_t)count * REQUEST_BYTES)) return 1;
    out = results;
    current = watched = UINT32_MAX;
    // An instruction that never ends is reported as vector 255.
    struct itimerval watch = {.it_interval = {1, 0}, .it_value = {1, 0}}, off = {0};
    setitimer(ITIMER_REAL, &watch, NULL);
    if (count) __asm__ volatile("int3" ::: "memory");
    setitimer(ITIMER_REAL, &off, NULL);
    uint32_t bytes = (uint32_t)(out - results);
    put(&bytes, sizeof bytes);
    put(results, bytes);
  }
  return 0;
}
