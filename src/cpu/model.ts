// CPU models: named sets of CPUID features, changed by flags ("x86-64-v2,+movbe,-sse4_2"). Leaves are made from a model in cpuid-leaves.ts
// (SDM Vol. 2A CPUID; x86-64 psABI 3.1.1 for the levels of x86-64).

import { FEATURES } from "../isa/features.ts";

export class CpuModelError extends Error {
  override readonly name = "CpuModelError";
}

export interface CpuModel {
  readonly name: string;
  /** Twelve characters of CPUID leaf 0. */
  readonly vendor: string;
  /** CPUID 1 EAX: family, model, stepping. */
  readonly signature: number;
  readonly brand: string;
  /** Highest basic leaf, without those that features need. */
  readonly maxBasic: number;
  readonly features: ReadonlySet<string>;
}

const words = (text: string): readonly string[] => text.split(" ").filter((word) => word !== "");

const I486 = words("fpu pse");
const PENTIUM = [...I486, ...words("de tsc msr mce cx8 mmx")];
const PENTIUM3 = [...PENTIUM, ...words("pae apic sep mtrr pge mca cmov pat pse36 fxsr sse")];
const X86_64_V1 = [...PENTIUM3, ...words("clflush sse2 syscall nx lm")];
/** What a machine of today gives at every level, whatever its instruction set: cheap here, and a guest without it is slower (without `bhi_ctrl`
 *  Linux runs a loop of 130 instructions at each system call). */
const PLATFORM = words(
  "hypervisor x2apic tsc_deadline_timer tsc_adjust invariant_tsc arat rdtscp pcid invpcid pdpe1gb smep smap umip " +
    "fsgsbase erms fsrm rdrand rdseed clflushopt arch_capabilities spec_ctrl stibp ssbd bhi_ctrl",
);
const X86_64_V2 = [...X86_64_V1, ...PLATFORM, ...words("sse3 ssse3 sse4_1 sse4_2 popcnt cx16 lahf_lm")];
const MAX = [...X86_64_V2, ...words("movbe xsave xsaveopt xsavec xgetbv1 clwb rdpid prefetchw aes pclmulqdq")];

/** Interrupt messages of devices reach APIC ids beyond 254: a matter of the machine, which has it where it has such ids. */
export const EXTENDED_DESTINATIONS = "kvm_msi_ext_dest_id";
/** All that this processor can do: a flag beyond it is refused. */
const IMPLEMENTED: ReadonlySet<string> = new Set([...MAX, EXTENDED_DESTINATIONS]);

/** Family 6, model 2CH (Westmere), which has just x86-64-v2: C libraries take the functions for it that use REP MOVSB, and for later models
 *  without AVX those that shift between vector registers. */
const FAMILY_6 = 0x000206c2;
const INTEL = "GenuineIntel";

function model(
  name: string,
  signature: number,
  maxBasic: number,
  brand: string,
  features: readonly string[],
): CpuModel {
  return { name, vendor: INTEL, signature, brand, maxBasic, features: new Set(features) };
}

const MODELS: readonly CpuModel[] = [
  model("x86-64-v2", FAMILY_6, 0x1f, "skep x86-64-v2 processor", X86_64_V2),
  model("x86-64", FAMILY_6, 0x1f, "skep x86-64 processor", [...X86_64_V1, ...PLATFORM]),
  model("max", FAMILY_6, 0x1f, "skep processor", MAX),
  model("pentium3", 0x0000068a, 2, "skep pentium3 processor", PENTIUM3),
  model("pentium", 0x00000543, 1, "skep pentium processor", PENTIUM),
  model("486", 0x00000480, 1, "skep 486 processor", I486),
];

export const DEFAULT_CPU_MODEL = "x86-64-v2";
export const CPU_MODEL_NAMES: readonly string[] = MODELS.map(({ name }) => name);

/** Other spellings, of QEMU and of Linux. Dashes and dots count as underscores. */
const ALIASES: { readonly [name: string]: string } = {
  pni: "sse3",
  cmpxchg16b: "cx16",
  cmpxchg8b: "cx8",
  tsc_deadline: "tsc_deadline_timer",
  invtsc: "invariant_tsc",
  nonstop_tsc: "invariant_tsc",
  constant_tsc: "invariant_tsc",
  clfsh: "clflush",
  "3dnowprefetch": "prefetchw",
  ibrs: "spec_ctrl",
  ibpb: "spec_ctrl",
  xd: "nx",
  i64: "lm",
};

/** What a feature stands on: taking one away takes away what needs it, and adding one adds what it needs. */
const NEEDS: { readonly [feature: string]: readonly string[] } = {
  sse: ["fxsr"],
  sse2: ["sse"],
  sse3: ["sse2"],
  ssse3: ["sse3"],
  sse4_1: ["ssse3"],
  sse4_2: ["sse4_1"],
  xsave: ["fxsr"],
  xsaveopt: ["xsave"],
  xsavec: ["xsave"],
  xgetbv1: ["xsave"],
  lm: ["pae", "msr", "syscall"],
  syscall: ["msr"],
  sep: ["msr"],
  nx: ["pae"],
  pcid: ["lm"],
  invpcid: ["pcid"],
  fsgsbase: ["lm"],
  pdpe1gb: ["lm"],
  cx16: ["lm"],
  lahf_lm: ["lm"],
  rdtscp: ["tsc"],
  tsc_deadline_timer: ["apic", "tsc"],
  tsc_adjust: ["tsc", "msr"],
  x2apic: ["apic", "msr"],
  [EXTENDED_DESTINATIONS]: ["hypervisor", "x2apic"],
  pat: ["msr"],
  mtrr: ["msr"],
  mca: ["mce", "msr"],
};

function add(features: Set<string>, name: string): void {
  features.add(name);
  for (const needed of NEEDS[name] ?? []) add(features, needed);
}

function remove(features: Set<string>, name: string): void {
  features.delete(name);
  for (const [feature, needs] of Object.entries(NEEDS)) {
    if (needs.includes(name) && features.has(feature)) remove(features, feature);
  }
}

function featureName(flag: string): string {
  const plain = flag.toLowerCase().replaceAll(/[-.]/g, "_");
  return ALIASES[plain] ?? plain;
}

/** Reads "MODEL[,+flag][,-flag]...". A flag may also be written "flag=on" or "flag=off". Throws CpuModelError with one clear line. */
export function parseCpuModel(text: string): CpuModel {
  const [name, ...flags] = text.split(",").map((part) => part.trim());
  const base = MODELS.find((candidate) => candidate.name === name.toLowerCase());
  if (base === undefined)
    throw new CpuModelError(`unknown CPU model "${name}": known are ${CPU_MODEL_NAMES.join(", ")}`);
  const features = new Set(base.features);
  for (const flag of flags) {
    const match = /^(?:([+-])([^=]+)|([^=+-][^=]*)=(on|off))$/.exec(flag);
    if (match === null) throw new CpuModelError(`CPU flag "${flag}" must be written +name or -name`);
    const spelled = match[2] ?? match[3];
    const wanted = (match[1] ?? match[4]) === "+" || match[4] === "on";
    const feature = featureName(spelled);
    if (!Object.hasOwn(FEATURES, feature)) throw new CpuModelError(`unknown CPU flag "${spelled}"`);
    if (wanted && !IMPLEMENTED.has(feature)) throw new CpuModelError(`CPU flag "${spelled}" is not implemented`);
    if (wanted) add(features, feature);
    else remove(features, feature);
  }
  return { ...base, name: text, features };
}
