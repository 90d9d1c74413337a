// CPUID feature flags by name: where each is reported (SDM Vol. 2A CPUID, tables 3-8, 3-10 and 3-11 of leaves 1, 7, 0DH; 80000001H with
// AMD's bits from APM Vol. 3 appendix E). Names are lower case, as in /proc/cpuinfo where that has one.

export type CpuidRegister = "eax" | "ebx" | "ecx" | "edx";

/** The place of a feature flag. */
export interface Feature {
  readonly leaf: number;
  readonly subleaf: number;
  readonly register: CpuidRegister;
  readonly bit: number;
}

type Names = { readonly [name: string]: number };

function at(leaf: number, subleaf: number, register: CpuidRegister, bits: Names): [string, Feature][] {
  return Object.entries(bits).map(([name, bit]) => [name, { leaf, subleaf, register, bit }]);
}

const LEAF_1_EDX: Names = {
  fpu: 0,
  vme: 1,
  de: 2,
  pse: 3,
  tsc: 4,
  msr: 5,
  pae: 6,
  mce: 7,
  cx8: 8,
  apic: 9,
  sep: 11,
  mtrr: 12,
  pge: 13,
  mca: 14,
  cmov: 15,
  pat: 16,
  pse36: 17,
  clflush: 19,
  mmx: 23,
  fxsr: 24,
  sse: 25,
  sse2: 26,
  ht: 28,
};

const LEAF_1_ECX: Names = {
  sse3: 0,
  pclmulqdq: 1,
  monitor: 3,
  vmx: 5,
  ssse3: 9,
  fma: 12,
  cx16: 13,
  pcid: 17,
  sse4_1: 19,
  sse4_2: 20,
  x2apic: 21,
  movbe: 22,
  popcnt: 23,
  tsc_deadline_timer: 24,
  aes: 25,
  xsave: 26,
  avx: 28,
  f16c: 29,
  rdrand: 30,
  hypervisor: 31,
};

const LEAF_7_EBX: Names = {
  fsgsbase: 0,
  tsc_adjust: 1,
  bmi1: 3,
  avx2: 5,
  smep: 7,
  bmi2: 8,
  erms: 9,
  invpcid: 10,
  rdseed: 18,
  adx: 19,
  smap: 20,
  clflushopt: 23,
  clwb: 24,
  sha: 29,
};

const LEAF_7_ECX: Names = { umip: 2, pku: 3, la57: 16, rdpid: 22 };
const LEAF_6_EAX: Names = { arat: 2 };
const LEAF_7_EDX: Names = { fsrm: 4, spec_ctrl: 26, stibp: 27, arch_capabilities: 29, ssbd: 31 };
const LEAF_7_2_EDX: Names = { bhi_ctrl: 4 };
const LEAF_D_1_EAX: Names = { xsaveopt: 0, xsavec: 1, xgetbv1: 2, xsaves: 3 };
const LEAF_80000001_EDX: Names = { syscall: 11, nx: 20, pdpe1gb: 26, rdtscp: 27, lm: 29 };
const LEAF_80000001_ECX: Names = { lahf_lm: 0, svm: 2, lzcnt: 5, sse4a: 6, prefetchw: 8 };
const LEAF_80000007_EDX: Names = { invariant_tsc: 8 };
/** KVM's features (Linux, Documentation/virt/kvm/x86/cpuid.rst), where its leaves are second to another hypervisor's. */
const LEAF_40000101_EAX: Names = { kvm_msi_ext_dest_id: 15 };

export const FEATURES: { readonly [name: string]: Feature } = Object.fromEntries([
  ...at(1, 0, "edx", LEAF_1_EDX),
  ...at(1, 0, "ecx", LEAF_1_ECX),
  ...at(6, 0, "eax", LEAF_6_EAX),
  ...at(7, 0, "ebx", LEAF_7_EBX),
  ...at(7, 0, "ecx", LEAF_7_ECX),
  ...at(7, 0, "edx", LEAF_7_EDX),
  ...at(7, 2, "edx", LEAF_7_2_EDX),
  ...at(0xd, 1, "eax", LEAF_D_1_EAX),
  ...at(0x80000001, 0, "edx", LEAF_80000001_EDX),
  ...at(0x80000001, 0, "ecx", LEAF_80000001_ECX),
  ...at(0x80000007, 0, "edx", LEAF_80000007_EDX),
  ...at(0x40000101, 0, "eax", LEAF_40000101_EAX),
]);

/** Feature names as bit numbers of the bit map that the engine holds (`CPUID_HEADER.FEATURES`). */
export const FEATURE_NAMES: readonly string[] = Object.keys(FEATURES);

export function featureNumber(name: string): number {
  const number = FEATURE_NAMES.indexOf(name);
  if (number < 0) throw new Error(`feature ${name} is not in the table of features`);
  return number;
}
