// Prints the results of many floating-point operations, bit for bit, so that a guest can be compared with the host.
// Only operations whose results IEEE 754 and the Intel manuals (SDM Vol. 1, 4.8 and chapter 8) define exactly: no library functions,
// whose variants the C library chooses by CPU, and no transcendental instructions. Built with: gcc -O2 -static -ffp-contract=off

#include <fenv.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint64_t next(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static const uint64_t edges64[] = {
    0x0000000000000000u, 0x8000000000000000u, 0x3ff0000000000000u, 0xbff0000000000000u, 0x0000000000000001u, 0x000fffffffffffffu,
    0x0010000000000000u, 0x7fefffffffffffffu, 0x7ff0000000000000u, 0xfff0000000000000u, 0x7ff8000000000000u, 0x7ff8000000001234u,
    0x7ff0000000000001u, 0x4340000000000000u, 0x43e0000000000000u, 0xc3e0000000000000u, 0x41dfffffffc00000u, 0x3fe0000000000000u,
    0x4008000000000000u, 0x3cb0000000000000u,
};
static const uint32_t edges32[] = {
    0x00000000u, 0x80000000u, 0x3f800000u, 0xbf800000u, 0x00000001u, 0x007fffffu, 0x00800000u, 0x7f7fffffu, 0x7f800000u, 0xff800000u,
    0x7fc00000u, 0x7fc01234u, 0x7f800001u, 0x4b800000u, 0x4f000000u, 0xcf000000u, 0x3f000000u, 0x40400000u,
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static double asDouble(uint64_t bits) {
  double value;
  memcpy(&value, &bits, 8);
  return value;
}
static float asFloat(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// A hash over everything that one group of operations produced, and the flags they left.
static uint64_t hash;
static void mix(const void *data, size_t size) {
  const unsigned char *bytes = data;
  for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
}
static void mix64(double value) { mix(&value, 8); }
static void mix32(float value) { mix(&value, 4); }
static void mix80(long double value) { mix(&value, 10); }
static void mixInt(long long value) { mix(&value, 8); }

static uint64_t operand64(int i) {
  if (i < (int)COUNT(edges64)) return edges64[i];
  return i & 1 ? next() : (next() & 0x800fffffffffffffu) | ((uint64_t)(1023 - 40 + next() % 80) << 52);
}
static uint32_t operand32(int i) {
  if (i < (int)COUNT(edges32)) return edges32[i];
  return i & 1 ? (uint32_t)next() : ((uint32_t)next() & 0x807fffffu) | ((uint32_t)(127 - 20 + next() % 40) << 23);
}

#define OPERANDS 120

#define EACH_PAIR(NAME, TYPE, OPERAND, BODY)                                                    \
  static void NAME(void) {                                                                      \
    for (int i = 0; i < OPERANDS; i++)                                                          \
      for (int j = 0; j < 60; j++) {                                                            \
        volatile TYPE va = OPERAND(i), vb = OPERAND(j);                                         \
        TYPE a = va, b = vb;                                                                    \
        BODY                                                                                    \
      }                                                                                         \
  }

#define D(i) asDouble(operand64(i))
#define F(i) asFloat(operand32(i))
#define L(i) ((long double)asDouble(operand64(i)))

EACH_PAIR(doubleAdd, double, D, mix64(a + b); mix64(a - b);)
EACH_PAIR(doubleMul, double, D, mix64(a * b);)
EACH_PAIR(doubleDiv, double, D, mix64(a / b);)
EACH_PAIR(doubleCompare, double, D, mixInt((a < b) + 2 * (a <= b) + 4 * (a == b) + 8 * (a > b) + 16 * (a != b));)
EACH_PAIR(floatAdd, float, F, mix32(a + b); mix32(a - b);)
EACH_PAIR(floatMul, float, F, mix32(a * b);)
EACH_PAIR(floatDiv, float, F, mix32(a / b);)
EACH_PAIR(extendedAdd, long double, L, mix80(a + b); mix80(a - b);)
EACH_PAIR(extendedMul, long double, L, mix80(a * b);)
EACH_PAIR(extendedDiv, long double, L, mix80(a / b);)
EACH_PAIR(extendedMixed, long double, L, mix80((a * b + a) / (b + 3) - b); mix64((double)(a * b)); mix32((float)(a + b));)
EACH_PAIR(extendedCompare, long double, L, mixInt((a < b) + 2 * (a <= b) + 4 * (a == b) + 8 * (a > b) + 16 * (a != b));)

static void squareRoots(void) {
  for (int i = 0; i < OPERANDS * 20; i++) {
    double d = D(i % OPERANDS), rd;
    float f = F(i % OPERANDS), rf;
    long double l = L(i % OPERANDS), rl = l;
    __asm__ volatile("sqrtsd %1, %0" : "=x"(rd) : "x"(d));
    __asm__ volatile("sqrtss %1, %0" : "=x"(rf) : "x"(f));
    __asm__ volatile("fsqrt" : "+t"(rl));
    mix64(rd);
    mix32(rf);
    mix80(rl);
  }
}

static void conversions(void) {
  for (int i = 0; i < OPERANDS * 20; i++) {
    double d = D(i % OPERANDS);
    float f = F(i % OPERANDS);
    long long integer = (long long)(next() >> (next() % 64));
    if (i & 1) integer = -integer;
    int32_t i32;
    int64_t i64;
    __asm__ volatile("cvtsd2sil %1, %0" : "=r"(i32) : "x"(d));
    mixInt(i32);
    __asm__ volatile("cvttsd2siq %1, %0" : "=r"(i64) : "x"(d));
    mixInt(i64);
    __asm__ volatile("cvtss2siq %1, %0" : "=r"(i64) : "x"(f));
    mixInt(i64);
    volatile double fromInteger = (double)integer;
    volatile float narrow = (float)integer;
    mix64(fromInteger);
    mix32(narrow);
    narrow = (float)d;
    mix32(narrow);
    mix64((double)f);
    mix80((long double)integer);
    long double rounded = (long double)d + 0.25L;
    __asm__ volatile("frndint" : "+t"(rounded));
    mix80(rounded);
    __asm__ volatile("fistpll %0" : "=m"(i64) : "t"((long double)d) : "st");
    mixInt(i64);
  }
}

// A longer computation of each kind, where one wrong bit early shows at the end.
static void chains(void) {
  double d = 1.5;
  float f = 1.5f;
  long double l = 1.5L;
  for (int i = 1; i < 20000; i++) {
    d = d * 1.0000001 + 1.0 / i - d * d * 1e-9;
    f = f * 1.0001f + 1.0f / i - f * f * 1e-6f;
    l = l * 1.0000001L + 1.0L / i - l * l * 1e-9L;
    if ((i & 1023) == 0) {
      mix64(d);
      mix32(f);
      mix80(l);
    }
  }
  printf("chains %a %a %La\n", d, (double)f, l);
}

static const struct {
  const char *name;
  void (*run)(void);
} groups[] = {
    {"double-add", doubleAdd},       {"double-mul", doubleMul},         {"double-div", doubleDiv},
    {"double-compare", doubleCompare}, {"float-add", floatAdd},         {"float-mul", floatMul},
    {"float-div", floatDiv},         {"extended-add", extendedAdd},     {"extended-mul", extendedMul},
    {"extended-div", extendedDiv},   {"extended-mixed", extendedMixed}, {"extended-compare", extendedCompare},
    {"square-roots", squareRoots},   {"conversions", conversions},      {"chains", chains},
};

static const struct {
  const char *name;
  int mode;
} modes[] = {{"nearest", FE_TONEAREST}, {"down", FE_DOWNWARD}, {"up", FE_UPWARD}, {"zero", FE_TOWARDZERO}};

int main(void) {
  for (size_t m = 0; m < COUNT(modes); m++)
    for (size_t g = 0; g < COUNT(groups); g++) {
      seed = 0x9e3779b97f4a7c15u + g;
      hash = 0xcbf29ce484222325u;
      fesetround(modes[m].mode);
      feclearexcept(FE_ALL_EXCEPT);
      groups[g].run();
      // The sticky flags of both units: MXCSR's and the x87 status word's, with the denormal flag that C does not name.
      uint32_t mxcsr;
      uint16_t status;
      __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
      __asm__ volatile("fnstsw %0" : "=m"(status));
      fesetround(FE_TONEAREST);
      printf("%s %s %016llx mxcsr %02x x87 %02x\n", modes[m].name, groups[g].name, (unsigned long long)hash, mxcsr & 0x3f, status & 0x3f);
    }
  return 0;
}
