// Floating-point workloads: SSE2 double code as compilers make it, and x87 code as long double makes it. Only operations that IEEE 754
// defines exactly, so that the checksums agree bit for bit.

#include "workloads.h"
#include <string.h>

#define BODIES 5

// The same equations of motion for both types. Square roots by instruction: the library's might use an estimate.
#define NBODY(NAME, REAL, ROOT, STEPS)                                                                        \
  static uint64_t NAME(unsigned scale) {                                                                      \
    REAL p[BODIES][3], v[BODIES][3], m[BODIES];                                                               \
    for (int i = 0; i < BODIES; i++) {                                                                        \
      m[i] = (REAL)1 / (i + 1);                                                                               \
      for (int k = 0; k < 3; k++) {                                                                           \
        p[i][k] = (REAL)(i * 3 + k * 2 + 1) / 4 * (k % 2 ? -1 : 1);                                           \
        v[i][k] = (REAL)(k - i) / 16;                                                                         \
      }                                                                                                       \
    }                                                                                                         \
    const REAL dt = (REAL)1 / 1024;                                                                           \
    for (uint64_t step = 0; step < (uint64_t)(STEPS) * scale; step++) {                                       \
      for (int i = 0; i < BODIES; i++)                                                                        \
        for (int j = i + 1; j < BODIES; j++) {                                                                \
          REAL d[3], square = (REAL)1 / 64;                                                                   \
          for (int k = 0; k < 3; k++) {                                                                       \
            d[k] = p[i][k] - p[j][k];                                                                         \
            square += d[k] * d[k];                                                                            \
          }                                                                                                   \
          REAL magnitude = dt / (square * ROOT(square));                                                      \
          for (int k = 0; k < 3; k++) {                                                                       \
            v[i][k] -= d[k] * m[j] * magnitude;                                                               \
            v[j][k] += d[k] * m[i] * magnitude;                                                               \
          }                                                                                                   \
        }                                                                                                     \
      for (int i = 0; i < BODIES; i++)                                                                        \
        for (int k = 0; k < 3; k++) p[i][k] += dt * v[i][k];                                                  \
    }                                                                                                         \
    uint64_t hash = FNV_BASIS;                                                                                \
    for (int i = 0; i < BODIES; i++)                                                                          \
      for (int k = 0; k < 3; k++) {                                                                           \
        uint64_t bits = 0;                                                                                    \
        memcpy(&bits, &p[i][k], 8);                                                                           \
        hash = fnv(hash, bits);                                                                               \
      }                                                                                                       \
    return hash;                                                                                              \
  }

static inline double root64(double x) {
  double r;
  __asm__("sqrtsd %1, %0" : "=x"(r) : "x"(x));
  return r;
}
static inline long double root80(long double x) {
  __asm__("fsqrt" : "+t"(x));
  return x;
}

NBODY(nbody, double, root64, 60000)
NBODY(x87nbody, long double, root80, 20000)

static uint64_t doubleMatrix(unsigned scale) {
  enum { N = 160 };
  static double a[N][N], b[N][N], c[N][N];
  uint32_t state = 11;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      a[i][j] = (double)(lcg(&state) >> 8) / 16777216.0;
      b[i][j] = (double)(lcg(&state) >> 8) / 16777216.0;
    }
  uint64_t hash = FNV_BASIS;
  for (unsigned round = 0; round < 6 * scale; round++) {
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++) {
        double sum = 0;
        for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
        c[i][j] = sum;
      }
    a[round % N][0] += c[1][1] / 1024;
    uint64_t bits;
    memcpy(&bits, &c[N - 1][N / 2], 8);
    hash = fnv(hash, bits);
  }
  return hash;
}

// Packed: gcc makes mulpd and addpd of this with two accumulators in a vector.
typedef double pair __attribute__((vector_size(16)));

static uint64_t dot(unsigned scale) {
  enum { N = 4096 };
  static pair a[N / 2], b[N / 2];
  for (int i = 0; i < N / 2; i++) {
    a[i] = (pair){1.0 / (i + 1), 2.0 / (i + 3)};
    b[i] = (pair){i * 0.5, i * 0.25};
  }
  pair sum = {0, 0};
  for (unsigned round = 0; round < 6000 * scale; round++) {
    for (int i = 0; i < N / 2; i++) sum += a[i] * b[i];
    sum = sum * (pair){0.5, 0.5};
  }
  double total = sum[0] + sum[1];
  uint64_t bits;
  memcpy(&bits, &total, 8);
  return bits;
}

static uint64_t x87loop(unsigned scale) {
  long double x = 1, y = 0;
  for (uint64_t i = 1; i <= 6000000ull * scale; i++) {
    y += x / (long double)i;
    x = x * 0.999999L + 1e-6L;
  }
  uint64_t bits;
  memcpy(&bits, &y, 8);
  return bits;
}

const struct workload floating_workloads[] = {
    {"n-body", nbody, NULL}, {"matrix-double", doubleMatrix, NULL}, {"dot", dot, NULL}, {"x87-loop", x87loop, NULL}, {"x87-n-body", x87nbody, NULL}, {NULL, NULL, NULL},
};
