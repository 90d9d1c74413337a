// The state in which a loader hands over the bootstrap processor: plain data, for whoever sets up the vCPU.
// Segment attributes are VMX access rights (SDM Vol. 3C 25.4.1, table 25-2).

export const GPR_NAMES = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;
export type GprName = (typeof GPR_NAMES)[number];

export const SEGMENT_NAMES = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;
export type SegmentName = (typeof SEGMENT_NAMES)[number];

export interface SegmentState {
  readonly selector: number;
  readonly base: bigint;
  readonly limit: number;
  /** Type in bits 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16. */
  readonly attributes: number;
}

export interface DescriptorTable {
  readonly base: bigint;
  readonly limit: number;
}

export interface InitialCpuState {
  readonly gprs: Readonly<Record<GprName, bigint>>;
  readonly rip: bigint;
  readonly rflags: bigint;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly segments: Readonly<Record<SegmentName, SegmentState>>;
  readonly gdtr: DescriptorTable;
  readonly idtr: DescriptorTable;
}

export const CR0 = { PE: 1n << 0n, ET: 1n << 4n, NE: 1n << 5n, PG: 1n << 31n } as const;
export const CR4 = { PAE: 1n << 5n } as const;
export const EFER = { LME: 1n << 8n, LMA: 1n << 10n } as const;
/** Bit 1 always reads as one; interrupts are off. */
export const RFLAGS_RESET = 2n;

export const UNUSABLE: SegmentState = { selector: 0, base: 0n, limit: 0, attributes: 1 << 16 };

const FLAT_LIMIT = 0xffffffff;
const ATTRIBUTES = {
  /** Code, read and execute, accessed; S, P, D, G. */
  code32: 0xc09b,
  /** The same with L in place of D. */
  code64: 0xa09b,
  /** Data, read and write, accessed; S, P, B, G. */
  data: 0xc093,
  /** Busy 32-bit TSS (in IA-32e mode: 64-bit TSS); P. */
  busyTss: 0x008b,
} as const;

function flat(selector: number, attributes: number): SegmentState {
  return { selector, base: 0n, limit: FLAT_LIMIT, attributes };
}

export type CodeSize = 32 | 64;

/** Flat code in CS, flat data in the others, no LDT, and a task register as VM entry and every later task switch want it: a busy TSS. */
export function flatSegments(size: CodeSize, cs: number, ds: number): Record<SegmentName, SegmentState> {
  const data = flat(ds, ATTRIBUTES.data);
  return {
    es: data,
    cs: flat(cs, size === 64 ? ATTRIBUTES.code64 : ATTRIBUTES.code32),
    ss: data,
    ds: data,
    fs: data,
    gs: data,
    ldtr: UNUSABLE,
    tr: { selector: 0, base: 0n, limit: 0x67, attributes: ATTRIBUTES.busyTss },
  };
}

/** The segment descriptor (SDM Vol. 3A 3.4.5) whose loading gives `segment`; base zero, limit all ones. */
export function flatDescriptor(segment: SegmentState): bigint {
  const access = BigInt(segment.attributes & 0xff);
  const flags = BigInt((segment.attributes >> 12) & 0xf);
  return 0xffffn | (access << 40n) | (0xfn << 48n) | (flags << 52n);
}

/** All sixteen registers, zero but for those given. */
export function gprs(set: Partial<Record<GprName, bigint>>): Record<GprName, bigint> {
  const all = Object.fromEntries(GPR_NAMES.map((name) => [name, 0n])) as Record<GprName, bigint>;
  return { ...all, ...set };
}

/** Protected mode without paging, as PVH and Multiboot hand over. There is no GDT or IDT: the kernel brings its own. */
export function protectedModeState(entry: number, set: Partial<Record<GprName, bigint>>): InitialCpuState {
  return {
    gprs: gprs(set),
    rip: BigInt(entry),
    rflags: RFLAGS_RESET,
    cr0: CR0.PE | CR0.ET,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    segments: flatSegments(32, 0x08, 0x10),
    gdtr: { base: 0n, limit: 0 },
    idtr: { base: 0n, limit: 0 },
  };
}
