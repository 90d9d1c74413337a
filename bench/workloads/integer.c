// Integer workloads: arithmetic, memory access and control flow of the kinds that ordinary programs are made of.

#include "workloads.h"
#include <stdlib.h>
#include <string.h>

// Ten instructions an iteration, exactly, so that time gives instructions per second.
static uint64_t loop(unsigned scale) {
  uint64_t a = 1, b = 2, c = 3, n = 20000000ull * scale;
  __asm__ volatile("1:\n\t"
                   "add %1, %0\n\t"
                   "xor %2, %1\n\t"
                   "lea 7(%2,%0), %2\n\t"
                   "rol $5, %0\n\t"
                   "sub %2, %1\n\t"
                   "mov %1, %%rdx\n\t"
                   "and $0xff, %%edx\n\t"
                   "add %%rdx, %2\n\t"
                   "dec %3\n\t"
                   "jnz 1b"
                   : "+r"(a), "+r"(b), "+r"(c), "+r"(n)
                   :
                   : "rdx", "cc");
  return fnv(fnv(fnv(FNV_BASIS, a), b), c);
}

static uint64_t sieve(unsigned scale) {
  enum { N = 1 << 20 };
  static uint8_t composite[N];
  uint64_t hash = FNV_BASIS;
  for (unsigned round = 0; round < 12 * scale; round++) {
    memset(composite, 0, N);
    unsigned count = 0;
    for (unsigned i = 2; i < N; i++) {
      if (composite[i]) continue;
      count++;
      for (unsigned j = i * 2; j < N; j += i) composite[j] = 1;
    }
    hash = fnv(hash, count);
  }
  return hash;
}

static uint64_t matrix(unsigned scale) {
  enum { N = 192 };
  static int a[N][N], b[N][N], c[N][N];
  uint32_t state = 1;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      a[i][j] = (int)(lcg(&state) >> 16);
      b[i][j] = (int)(lcg(&state) >> 16);
    }
  uint64_t hash = FNV_BASIS;
  for (unsigned round = 0; round < 8 * scale; round++) {
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++) {
        int sum = 0;
        for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
        c[i][j] = sum;
      }
    a[round % N][0] ^= c[1][1];
    for (int i = 0; i < N; i++) hash = fnv(hash, (uint32_t)c[i][(i * 7) % N]);
  }
  return hash;
}

static uint64_t crc32(unsigned scale) {
  static uint32_t table[256];
  static uint8_t data[1 << 16];
  uint32_t state = 2;
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(lcg(&state) >> 24);
  uint32_t crc = ~0u;
  for (unsigned round = 0; round < 1200 * scale; round++)
    for (size_t i = 0; i < sizeof data; i++) crc = table[(crc ^ data[i]) & 255] ^ (crc >> 8);
  return ~crc;
}

struct node {
  struct node *next;
  uint64_t value;
};

static uint64_t list(unsigned scale) {
  enum { N = 1 << 17 };
  static struct node nodes[N];
  static uint32_t order[N];
  uint32_t state = 3;
  for (uint32_t i = 0; i < N; i++) order[i] = i;
  for (uint32_t i = N - 1; i > 0; i--) {
    uint32_t j = lcg(&state) % (i + 1), t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
  for (uint32_t i = 0; i < N; i++) {
    nodes[order[i]].next = &nodes[order[(i + 1) % N]];
    nodes[order[i]].value = i;
  }
  uint64_t sum = 0;
  struct node *at = nodes;
  for (uint64_t i = 0; i < 12000000ull * scale; i++) {
    sum += at->value;
    at = at->next;
  }
  return sum;
}

static int byString(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static uint64_t stringSort(unsigned scale) {
  enum { N = 30000, LENGTH = 16 };
  static char text[N][LENGTH];
  static const char *pointers[N];
  uint32_t state = 4;
  uint64_t hash = FNV_BASIS;
  for (unsigned round = 0; round < 5 * scale; round++) {
    for (int i = 0; i < N; i++) {
      int length = 6 + (int)(lcg(&state) >> 29);
      for (int k = 0; k < length; k++) text[i][k] = (char)('a' + (lcg(&state) >> 16) % 4);
      text[i][length] = 0;
      pointers[i] = text[i];
    }
    qsort(pointers, N, sizeof pointers[0], byString);
    for (int i = 0; i < N; i += 100) hash = fnv(hash, (uint64_t)pointers[i][0] << 8 | (uint64_t)pointers[i][3]);
  }
  return hash;
}

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

// FIPS 180-4, section 6.2.2, on blocks that are not padded: a checksum, not a digest.
static void sha256Block(uint32_t state[8], const uint8_t *block) {
  uint32_t w[64], v[8];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
    uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  memcpy(v, state, sizeof v);
  for (int i = 0; i < 64; i++) {
    uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
    uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
    uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
    uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof v[0]);
    v[4] += t1;
    v[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) state[i] += v[i];
}

static uint64_t sha256(unsigned scale) {
  static uint8_t data[1 << 15];
  uint32_t random = 5;
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(lcg(&random) >> 24);
  for (unsigned round = 0; round < 400 * scale; round++)
    for (size_t i = 0; i < sizeof data; i += 64) sha256Block(state, data + i);
  return (uint64_t)state[0] << 32 | state[7];
}

static void quickSort(uint32_t *low, uint32_t *high) {
  while (low < high) {
    uint32_t pivot = low[(high - low) / 2], *i = low, *j = high;
    while (i <= j) {
      while (*i < pivot) i++;
      while (*j > pivot) j--;
      if (i <= j) {
        uint32_t t = *i;
        *i++ = *j;
        *j-- = t;
      }
    }
    if (j - low < high - i) {
      quickSort(low, j);
      low = i;
    } else {
      quickSort(i, high);
      high = j;
    }
  }
}

static uint64_t quicksort(unsigned scale) {
  enum { N = 200000 };
  static uint32_t values[N];
  uint32_t state = 6;
  uint64_t hash = FNV_BASIS;
  for (unsigned round = 0; round < 10 * scale; round++) {
    for (int i = 0; i < N; i++) values[i] = lcg(&state);
    quickSort(values, values + N - 1);
    for (int i = 0; i < N; i += 1000) hash = fnv(hash, values[i]);
  }
  return hash;
}

// Without inlining, so that the calls are calls.
__attribute__((noinline, optimize("no-optimize-sibling-calls"))) static uint64_t fibonacci(unsigned n) {
  if (n < 2) return n;
  __asm__ volatile("");
  return fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t fib(unsigned scale) {
  uint64_t sum = 0;
  for (unsigned round = 0; round < 4 * scale; round++) sum += fibonacci(30);
  return sum;
}

typedef uint32_t (*operation)(uint32_t);
#define OPERATION(name, body) \
  __attribute__((noinline)) static uint32_t name(uint32_t x) { return body; }
OPERATION(op0, x + 0x9e3779b9u)
OPERATION(op1, x ^ x >> 7)
OPERATION(op2, x * 5 + 1)
OPERATION(op3, x << 3 | x >> 29)
OPERATION(op4, ~x)
OPERATION(op5, x - (x >> 3))
OPERATION(op6, x ^ 0x55aa55aau)
OPERATION(op7, x + (x << 4))

static uint64_t indirect(unsigned scale) {
  static const operation operations[8] = {op0, op1, op2, op3, op4, op5, op6, op7};
  uint32_t x = 7;
  uint64_t hash = FNV_BASIS;
  for (uint64_t i = 0; i < 15000000ull * scale; i++) {
    x = operations[(x >> 11 ^ i) & 7](x);
    if ((i & 0xffff) == 0) hash = fnv(hash, x);
  }
  return fnv(hash, x);
}

// A register machine with a dispatch loop, which runs a small program over and over.
enum opcode { ADD, SUB, XOR, SHIFT, LOAD, STORE, JUMP_NONZERO, END };
struct code {
  uint8_t opcode, a, b, c;
};

static uint64_t bytecode(unsigned scale) {
  static const struct code program[] = {
      {LOAD, 1, 0, 0},  {ADD, 2, 1, 2},   {XOR, 3, 2, 1}, {SHIFT, 3, 3, 5}, {SUB, 4, 3, 2},
      {STORE, 4, 0, 0}, {ADD, 0, 0, 6},   {ADD, 1, 4, 3}, {SUB, 5, 5, 6},   {JUMP_NONZERO, 5, 0, 0},
      {END, 0, 0, 0},
  };
  static uint32_t memory[256];
  uint64_t hash = FNV_BASIS;
  for (unsigned i = 0; i < 256; i++) memory[i] = i * 2654435761u;
  for (unsigned round = 0; round < 30 * scale; round++) {
    uint32_t r[8] = {round, 0, 1, 0, 0, 100000, 1, 0};
    for (const struct code *pc = program;; pc++) {
      switch (pc->opcode) {
      case ADD: r[pc->a] = r[pc->b] + r[pc->c]; continue;
      case SUB: r[pc->a] = r[pc->b] - r[pc->c]; continue;
      case XOR: r[pc->a] = r[pc->b] ^ r[pc->c]; continue;
      case SHIFT: r[pc->a] = r[pc->b] << pc->c | r[pc->b] >> (32 - pc->c); continue;
      case LOAD: r[pc->a] = memory[r[pc->b] & 255]; continue;
      case STORE: memory[r[pc->b] & 255] = r[pc->a]; continue;
      case JUMP_NONZERO:
        if (r[pc->a]) pc = program + pc->b - 1;
        continue;
      default: break;
      }
      break;
    }
    hash = fnv(fnv(hash, r[3]), r[4]);
  }
  return hash;
}

const struct workload integer_workloads[] = {
    {"loop", loop, NULL},           {"sieve", sieve, NULL},   {"matrix", matrix, NULL},       {"crc32", crc32, NULL},
    {"list", list, NULL},           {"string-sort", stringSort, NULL}, {"sha256", sha256, NULL}, {"quicksort", quicksort, NULL},
    {"fibonacci", fib, NULL},       {"indirect", indirect, NULL}, {"bytecode", bytecode, NULL}, {NULL, NULL, NULL},
};
