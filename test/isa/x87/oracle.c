// Runs x87 instructions on the host CPU. Input: a count of instructions (u32) with 16 bytes each (length, code; memory operand at [rsi]), then
// records of { u32 instruction, u32 flags, u8 state[112], u8 memory[16] }; output for each: { u32 ax, u32 flags, state, memory }.
// The state is FNSAVE's 32-bit image, so that unmasked exceptions can be seen without being raised (Intel SDM Vol. 1 8.1.10).
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct record {
  uint32_t first, flags;
  uint8_t state[112], memory[16];
};

static uint8_t *emit(uint8_t *p, const char *bytes, int n) {
  memcpy(p, bytes, n);
  return p + n;
}

int main(void) {
  uint32_t count;
  if (fread(&count, 4, 1, stdin) != 1) return 1;
  uint8_t *code = mmap(0, 64 * (size_t)count + 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) return 1;
  for (uint32_t i = 0; i < count; i++) {
    uint8_t in[16], *p = code + 64 * (size_t)i;
    if (fread(in, 16, 1, stdin) != 1) return 1;
    // rdi = record; rsi = its memory
    p = emit(p, "\x48\x8d\x77\x78", 4);         // lea rsi, [rdi + 120]
    p = emit(p, "\xdd\x67\x08", 3);             // frstor [rdi + 8]
    p = emit(p, "\x8b\x47\x04\x50\x31\xc0\x9d", 7); // mov eax, [rdi + 4]; push rax; xor eax, eax; popfq
    p = emit(p, (char *)in + 1, in[0]);
    p = emit(p, "\x9c\x5a", 2);                 // pushfq; pop rdx
    p = emit(p, "\x89\x07\x89\x57\x04", 5);     // mov [rdi], eax; mov [rdi + 4], edx
    p = emit(p, "\xdd\x77\x08", 3);             // fnsave [rdi + 8]
    p = emit(p, "\x52\x6a\x02\x9d\x5a\xc3", 6); // plain flags again; ret
  }
  struct record r;
  static struct record spare[2];
  while (fread(&r, sizeof r, 1, stdin) == 1) {
    spare[0] = r;
    spare[0].flags = (r.flags & 0x8d5) | 2;
    ((void (*)(struct record *))(code + 64 * (size_t)r.first))(&spare[0]);
    spare[0].flags &= 0x8d5;
    if (fwrite(&spare[0], sizeof r, 1, stdout) != 1) return 1;
  }
  return 0;
}
