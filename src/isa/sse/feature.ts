// Names of the CPUID features that the groups of SSE and MMX instructions belong to, as CPUID.01H lists them (Intel SDM Vol. 2A CPUID, tables 3-10 and 3-11).

export const FEATURE = {
  MMX: "MMX",
  SSE: "SSE",
  SSE2: "SSE2",
  SSE3: "SSE3",
  SSSE3: "SSSE3",
  SSE41: "SSE4_1",
  SSE42: "SSE4_2",
  PCLMULQDQ: "PCLMULQDQ",
  AES: "AESNI",
} as const;
