// Runs single SSE or MMX instructions on the host's processor: records of machine state on standard input, the same after the
// instruction on standard output (test/isa/sse/host.ts has the layout).
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

struct record {
  uint8_t fx[512];
  uint64_t rax, rcx, rdx, rbx, rsi, unused[3];
  uint8_t memory[32];
  uint8_t code[32];
  uint64_t rflags;
  uint32_t signal, length;
} __attribute__((aligned(16)));

static sigjmp_buf back;
static struct record *current;

static void caught(int number, siginfo_t *info, void *context) {
  ucontext_t *uc = context;
  (void)info;
  memcpy(current->fx, uc->uc_mcontext.fpregs, 512);
  current->signal = number;
  siglongjmp(back, 1);
}

void run(struct record *record, void *code);
__asm__(
    ".intel_syntax noprefix\n"
    "run: push rbx\n push rbp\n push r12\n push r13\n push r14\n"
    "mov r12, rdi\n mov r13, rsi\n"
    "fxrstor [r12]\n"
    "mov rax, [r12+512]\n mov rcx, [r12+520]\n mov rdx, [r12+528]\n mov rbx, [r12+536]\n mov rsi, [r12+544]\n"
    "lea rdi, [r12+576]\n"
    "push [r12+640]\n popfq\n"
    "call r13\n"
    "pushfq\n pop [r12+640]\n"
    "mov [r12+512], rax\n mov [r12+520], rcx\n mov [r12+528], rdx\n mov [r12+536], rbx\n mov [r12+544], rsi\n"
    "fxsave [r12]\n"
    "pop r14\n pop r13\n pop r12\n pop rbp\n pop rbx\n ret\n"
    ".att_syntax\n");

int main(void) {
  size_t size = 0, room = 1 << 20;
  uint8_t *input = aligned_alloc(64, room);
  for (size_t got; (got = fread(input + size, 1, room - size, stdin)) > 0;) {
    size += got;
    if (size == room) {
      uint8_t *larger = aligned_alloc(64, room * 2);
      memcpy(larger, input, size);
      input = larger;
      room *= 2;
    }
  }
  uint8_t *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
  int signals[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS};
  for (int i = 0; i < 4; i++) sigaction(signals[i], &action, 0);
  uint32_t mxcsr = 0x1f80;
  for (size_t at = 0; at + sizeof(struct record) <= size; at += sizeof(struct record)) {
    current = (struct record *)(input + at);
    memcpy(page, current->code, current->length);
    page[current->length] = 0xc3;
    if (sigsetjmp(back, 1) == 0) run(current, page);
    __asm__ volatile("ldmxcsr %0\n fninit" ::"m"(mxcsr));
  }
  fwrite(input, 1, size, stdout);
  return 0;
}
