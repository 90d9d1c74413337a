// The CPUID leaves of a model in a machine, encoded for the vCPU's memory (layout: src/isa/cpuid-table.ts; contents: SDM Vol. 2A CPUID,
// hypervisor leaves after Linux's Documentation/virt and the convention of 40000000H).

import { ANY_SUBLEAF, CPUID_ENTRY, CPUID_HEADER, CPUID_TABLE, CPUID_TABLE_END } from "../isa/cpuid-table.ts";
import { type CpuidRegister, FEATURES } from "../isa/features.ts";
import { CR4_BIT, EFER_BIT, MAXPHYADDR } from "../isa/state.ts";
import { AVX_COMPONENT, HEADER_SIZE, LEGACY_SIZE, XSTATE } from "../isa/system/xsave-layout.ts";
import type { CpuModel } from "./model.ts";
import { type CpuTopology, idWidth } from "./topology.ts";

/** What a vCPU's leaves say besides the model. */
export interface CpuidTopology {
  readonly apicId: number;
  readonly cpus: number;
  /** One socket with as many cores as there are CPUs, unless given. */
  readonly topology?: CpuTopology;
  /** Ticks a second of the TSC, and of the crystal that the local APIC's timer counts. */
  readonly tscHz: number;
  readonly crystalHz: number;
}

interface Leaf {
  readonly leaf: number;
  readonly subleaf: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

type Words = Partial<Record<CpuidRegister, number>>;

const LINEAR_BITS = 48;
const HYPERVISOR = 0x40000000;
const EXTENDED = 0x80000000;
const HYPERVISOR_SIGNATURE = "SkepSkepSkep";
/** Guests look for other hypervisors' interfaces at steps of 100H (Linux, `hypervisor_cpuid_base`). */
const KVM = HYPERVISOR + 0x100;
const KVM_SIGNATURE = "KVMKVMKVM";

/** Four characters as a little-endian word. */
function word(text: string, at: number): number {
  let value = 0;
  for (let i = 3; i >= 0; i--) value = value * 256 + (text.charCodeAt(at + i) || 0);
  return value;
}

/** The bits of a model's features in one register of a leaf. */
function featureBits(model: CpuModel, leaf: number, subleaf: number, register: CpuidRegister): number {
  let bits = 0;
  for (const name of model.features) {
    const feature = FEATURES[name];
    if (feature.leaf === leaf && feature.subleaf === subleaf && feature.register === register) bits += 2 ** feature.bit;
  }
  return bits;
}

/** Deterministic cache parameters: type (1 data, 2 instructions, 3 unified), level, ways, sets; lines of 64 bytes. */
function cache(type: number, level: number, ways: number, sets: number, { cores, threads }: CpuTopology): Words {
  // Bits 25:14 and 31:26 are ids to reserve, less one: the processors that share the cache (a core's, or the package's), and the cores of a package.
  const sharing = Math.min(2 ** (idWidth(threads) + (level === 3 ? idWidth(cores) : 0)), 4096) - 1;
  const package_ = Math.min(2 ** idWidth(cores), 64) - 1;
  return {
    eax: type + level * 0x20 + 0x100 + sharing * 0x4000 + package_ * 0x4000000,
    ebx: 63 + (ways - 1) * 0x400000,
    ecx: sets - 1,
  };
}

/** Bits that XCR0 may hold. */
function xcr0(model: CpuModel): number {
  if (!model.features.has("xsave")) return 0;
  const sse = model.features.has("sse") ? XSTATE.SSE : 0;
  const avx = model.features.has("avx") ? XSTATE.AVX : 0;
  return XSTATE.X87 | sse | avx;
}

/** The fraction that gives the TSC's frequency from the crystal's (leaf 15H). */
function ratio(tscHz: number, crystalHz: number): readonly [numerator: number, denominator: number] {
  let [a, b] = [tscHz, crystalHz];
  while (b !== 0) [a, b] = [b, a % b];
  return [tscHz / a, crystalHz / a];
}

function basicLeaves(model: CpuModel, topology: CpuidTopology): Leaf[] {
  const { apicId, cpus } = topology;
  const groups = topology.topology ?? { sockets: 1, cores: cpus, threads: 1 };
  const perPackage = groups.cores * groups.threads;
  const packageBits = idWidth(groups.cores) + idWidth(groups.threads);
  const leaves: Leaf[] = [];
  const put = (leaf: number, words: Words, subleaf = ANY_SUBLEAF): void => {
    leaves.push({ leaf, subleaf, eax: 0, ebx: 0, ecx: 0, edx: 0, ...words });
  };
  const bits = (leaf: number, register: CpuidRegister, subleaf = 0): number =>
    featureBits(model, leaf, subleaf, register);
  put(0, { eax: model.maxBasic, ebx: word(model.vendor, 0), edx: word(model.vendor, 4), ecx: word(model.vendor, 8) });
  const several = perPackage > 1 ? 2 ** 28 : 0;
  const clflush = model.features.has("clflush") ? 8 * 0x100 : 0;
  const logical = perPackage > 1 ? Math.min(2 ** packageBits, 128) * 0x10000 : 0;
  put(1, {
    eax: model.signature,
    ebx: clflush + logical + (apicId & 0xff) * 0x1000000,
    ecx: bits(1, "ecx"),
    edx: bits(1, "edx") + several,
  });
  if (model.maxBasic < 2) return leaves;
  // One descriptor: all about caches is in leaf 4.
  put(2, { eax: 0x00ff0001 });
  if (model.maxBasic < 4) return leaves;
  put(4, cache(1, 1, 8, 64, groups), 0);
  put(4, cache(2, 1, 8, 64, groups), 1);
  put(4, cache(3, 2, 8, 512, groups), 2);
  // 128 MiB. C libraries move less than three quarters of it with REP MOVSB, which is the fastest way here, and more with loops.
  put(4, cache(3, 3, 16, 131072, groups), 3);
  put(6, { eax: bits(6, "eax") });
  put(7, { eax: 2, ebx: bits(7, "ebx"), ecx: bits(7, "ecx"), edx: bits(7, "edx") }, 0);
  put(7, { edx: bits(7, "edx", 2) }, 2);
  for (const leaf of model.maxBasic >= 0x1f ? [0xb, 0x1f] : [0xb]) {
    put(leaf, { eax: idWidth(groups.threads), ebx: groups.threads, ecx: 0x100, edx: apicId }, 0);
    put(leaf, { eax: packageBits, ebx: perPackage, ecx: 0x201, edx: apicId }, 1);
  }
  const components = xcr0(model);
  if (components !== 0) {
    const avx = (components & XSTATE.AVX) !== 0;
    const legacy = LEGACY_SIZE + HEADER_SIZE;
    const size = avx ? AVX_COMPONENT.offset + AVX_COMPONENT.size : legacy;
    put(0xd, { eax: components, ebx: legacy, ecx: size }, 0);
    put(0xd, { eax: bits(0xd, "eax", 1), ebx: legacy }, 1);
    if (avx) put(0xd, { eax: AVX_COMPONENT.size, ebx: AVX_COMPONENT.offset }, 2);
  }
  const [numerator, denominator] = ratio(topology.tscHz, topology.crystalHz);
  put(0x15, { eax: denominator, ebx: numerator, ecx: topology.crystalHz });
  const megahertz = Math.round(topology.tscHz / 1e6);
  put(0x16, { eax: megahertz, ebx: megahertz, ecx: 100 });
  return leaves;
}

function otherLeaves(model: CpuModel): Leaf[] {
  const leaves: Leaf[] = [];
  const put = (leaf: number, words: Words): void => {
    leaves.push({ leaf, subleaf: ANY_SUBLEAF, eax: 0, ebx: 0, ecx: 0, edx: 0, ...words });
  };
  if (model.features.has("hypervisor")) {
    const [ebx, ecx, edx] = [0, 4, 8].map((at) => word(HYPERVISOR_SIGNATURE, at));
    put(HYPERVISOR, { eax: HYPERVISOR, ebx, ecx, edx });
    const kvmFeatures = featureBits(model, KVM + 1, 0, "eax");
    if (kvmFeatures !== 0) {
      const [first, second, third] = [0, 4, 8].map((at) => word(KVM_SIGNATURE, at));
      put(KVM, { eax: KVM + 1, ebx: first, ecx: second, edx: third });
      put(KVM + 1, { eax: kvmFeatures });
    }
  }
  const extended = model.features.has("lm") || model.features.has("nx") || model.features.has("syscall");
  if (!extended) {
    // Processors before these leaves answer with what they have for the highest basic one.
    put(EXTENDED, { eax: 0 });
    return leaves;
  }
  put(EXTENDED, { eax: EXTENDED + 8 });
  put(EXTENDED + 1, {
    ecx: featureBits(model, EXTENDED + 1, 0, "ecx"),
    edx: featureBits(model, EXTENDED + 1, 0, "edx"),
  });
  for (let n = 0; n < 3; n++) {
    const [eax, ebx, ecx, edx] = [0, 4, 8, 12].map((at) => word(model.brand, n * 16 + at));
    put(EXTENDED + 2 + n, { eax, ebx, ecx, edx });
  }
  // Second-level cache: 256 KiB, 8 ways, lines of 64 bytes.
  put(EXTENDED + 6, { ecx: 256 * 0x10000 + 6 * 0x1000 + 64 });
  put(EXTENDED + 7, { edx: featureBits(model, EXTENDED + 7, 0, "edx") });
  put(EXTENDED + 8, { eax: MAXPHYADDR + LINEAR_BITS * 0x100 });
  return leaves;
}

/** Bits that may be set in CR4, by the feature that brings them (SDM Vol. 3A 2.5). */
const CR4_BY_FEATURE: readonly (readonly [feature: string, bits: number])[] = [
  ["tsc", CR4_BIT.TSD],
  ["de", CR4_BIT.DE],
  ["pse", CR4_BIT.PSE],
  ["pae", CR4_BIT.PAE],
  ["mce", CR4_BIT.MCE],
  ["pge", CR4_BIT.PGE],
  ["mmx", CR4_BIT.PCE],
  ["fxsr", CR4_BIT.OSFXSR],
  ["sse", CR4_BIT.OSXMMEXCPT],
  ["umip", CR4_BIT.UMIP],
  ["fsgsbase", CR4_BIT.FSGSBASE],
  ["pcid", CR4_BIT.PCIDE],
  ["xsave", CR4_BIT.OSXSAVE],
  ["smep", CR4_BIT.SMEP],
  ["smap", CR4_BIT.SMAP],
];
const EFER_BY_FEATURE: readonly (readonly [feature: string, bits: number])[] = [
  ["syscall", EFER_BIT.SCE],
  ["lm", EFER_BIT.LME | EFER_BIT.LMA],
  ["nx", EFER_BIT.NXE],
];

function allowed(model: CpuModel, table: readonly (readonly [feature: string, bits: number])[]): number {
  return table.reduce((bits, [feature, more]) => (model.features.has(feature) ? bits | more : bits), 0);
}

/** The table as it stands at CPUID_TABLE in the memory of a vCPU. */
export function cpuidTable(model: CpuModel, topology: CpuidTopology): Uint8Array {
  const leaves = [...basicLeaves(model, topology), ...otherLeaves(model)];
  const size = CPUID_HEADER.SIZE + leaves.length * CPUID_ENTRY.SIZE;
  if (CPUID_TABLE + size > CPUID_TABLE_END) throw new RangeError("the CPUID leaves do not fit their place");
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  const header = (at: number, value: number): void => view.setUint32(at, value, true);
  header(CPUID_HEADER.COUNT, leaves.length);
  header(CPUID_HEADER.MAX_BASIC, model.maxBasic);
  header(CPUID_HEADER.CR4_ALLOWED, allowed(model, CR4_BY_FEATURE));
  header(CPUID_HEADER.EFER_ALLOWED, allowed(model, EFER_BY_FEATURE));
  header(CPUID_HEADER.XCR0_ALLOWED, xcr0(model));
  header(CPUID_HEADER.APIC_ID, topology.apicId);
  for (const [n, leaf] of leaves.entries()) {
    const at = CPUID_HEADER.SIZE + n * CPUID_ENTRY.SIZE;
    view.setUint32(at + CPUID_ENTRY.LEAF, leaf.leaf, true);
    view.setUint32(at + CPUID_ENTRY.SUBLEAF, leaf.subleaf, true);
    view.setUint32(at + CPUID_ENTRY.EAX, leaf.eax, true);
    view.setUint32(at + CPUID_ENTRY.EBX, leaf.ebx, true);
    view.setUint32(at + CPUID_ENTRY.ECX, leaf.ecx, true);
    view.setUint32(at + CPUID_ENTRY.EDX, leaf.edx, true);
  }
  return bytes;
}

/** A model in the form that the engine takes (`EngineModel` in engine.ts). */
export function engineModel(
  model: CpuModel,
  topology: CpuidTopology,
): { features: ReadonlySet<string>; cpuidTable: Uint8Array; cpuidTableAddress: number; signature: number } {
  return {
    features: model.features,
    cpuidTable: cpuidTable(model, topology),
    cpuidTableAddress: CPUID_TABLE,
    signature: model.signature,
  };
}
