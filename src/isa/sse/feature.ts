// The CPUID features that SSE and MMX instructions belong to, by their names in src/isa/features.ts.

export const FEATURE = {
  MMX: "mmx",
  SSE: "sse",
  SSE2: "sse2",
  SSE3: "sse3",
  SSSE3: "ssse3",
  SSE41: "sse4_1",
  SSE42: "sse4_2",
  PCLMULQDQ: "pclmulqdq",
  AES: "aes",
} as const;
