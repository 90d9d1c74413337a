// The records that the harness (harness.c) and the engine runner exchange with the test: one case's input, one case's outcome.
// An FXSAVE image (SDM Vol. 1 Table 10-2) carries x87, MXCSR and XMM state in both.

export const PAGE = 4096;
/** Below 2 GiB, so that 32-bit code, absolute and RIP-relative operands reach both. Two pages each, the page behind is not mapped. */
export const CODE_BASE = 0x1000_0000;
export const DATA_BASE = 0x2000_0000;
export const AREA_BYTES = 2 * PAGE;
export const DATA_END = DATA_BASE + AREA_BYTES;

/** Selectors of user code in Linux; the guest's descriptor table is laid out to match. */
export const SELECTOR = { CODE_32: 0x23, DATA: 0x2b, CODE_64: 0x33, CODE_16: 0x07, DATA_16: 0x0f } as const;

/** Segments of 16-bit code, in the LDT: the code pages begin at offset 0, the data pages at DATA_16_OFFSET. Beyond the data pages the
 *  segment goes on for a while, so that there are page faults before its limit. */
export const DATA_16_OFFSET = 0x2000;
export const SEGMENT_16 = {
  CODE: { base: CODE_BASE, limit: 0xffff },
  DATA: { base: DATA_BASE - DATA_16_OFFSET, limit: 0x47ff },
} as const;

export const REQUEST = {
  /** 0 for 64-, 1 for 32-, 2 for 16-bit code. */
  MODE: 0,
  LENGTH: 4,
  CODE: 8,
  /** Linear. */
  RIP: 24,
  RFLAGS: 32,
  PATCHES: 40,
  GPR: 64,
  FX: 192,
  PATCH_0: 704,
  PATCH_1: 832,
  BYTES: 1536,
} as const;
export const PATCH_ROOM = [128, 704] as const;

export const RESULT = {
  VECTOR: 0,
  ERROR: 4,
  CR2: 8,
  RIP: 16,
  RFLAGS: 24,
  CHANGED: 32,
  CODE_AND_STACK: 36,
  DS_AND_ES: 40,
  GPR: 64,
  FX: 192,
  HEAD: 608,
} as const;

export const FX = { FCW: 0, FSW: 2, FTW: 4, FOP: 6, FIP: 8, FDP: 16, MXCSR: 24, ST: 32, XMM: 160, BYTES: 416 } as const;

/** Bytes of the data pages before each case. */
export function dataPattern(): Uint8Array {
  const bytes = new Uint8Array(AREA_BYTES);
  let state = 0x2545f491;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
