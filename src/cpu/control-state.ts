// Which control registers and flags go together. The processor's own instructions see to it (MOV to CR, WRMSR, IRET); state that comes from
// outside, from a snapshot or a debugger, is held against the same rules before it is taken.

import { CPUID_HEADER } from "../isa/cpuid-table.ts";
import { CR0_BIT, CR4_BIT, EFER_BIT, FLAG, MAXPHYADDR } from "../isa/state.ts";

export interface ControlState {
  readonly cr0: number;
  readonly cr3: bigint;
  readonly cr4: number;
  readonly efer: number;
  readonly rflags: number;
  readonly activity: number;
}

/** Running, halted, shut down, waiting for a SIPI. */
const ACTIVITIES = 4;

type Rule = (state: ControlState, cpuid: DataView) => boolean;
const long = ({ efer }: ControlState): boolean => (efer & EFER_BIT.LMA) !== 0;
const paging = ({ cr0 }: ControlState): boolean => (cr0 & CR0_BIT.PG) !== 0;

/** What is wrong where a rule is true. */
const RULES: readonly (readonly [what: string, wrong: Rule])[] = [
  // SDM Vol. 3A 2.5.
  ["CR0.PG needs CR0.PE", (s) => paging(s) && (s.cr0 & CR0_BIT.PE) === 0],
  ["CR0.NW needs CR0.CD", ({ cr0 }) => (cr0 & CR0_BIT.NW) !== 0 && (cr0 & CR0_BIT.CD) === 0],
  [
    "CR4 has bits that this CPU model has not",
    ({ cr4 }, cpuid) => (cr4 & ~cpuid.getUint32(CPUID_HEADER.CR4_ALLOWED, true)) !== 0,
  ],
  ["CR4.PCIDE needs IA-32e mode", (s) => (s.cr4 & CR4_BIT.PCIDE) !== 0 && !long(s)],
  // Vol. 3A 2.2.1 and 10.8.5.
  [
    "EFER has bits that this CPU model has not",
    ({ efer }, cpuid) => (efer & ~cpuid.getUint32(CPUID_HEADER.EFER_ALLOWED, true)) !== 0,
  ],
  ["EFER.LMA is EFER.LME and CR0.PG", (s) => long(s) !== (paging(s) && (s.efer & EFER_BIT.LME) !== 0)],
  ["EFER.LMA needs CR4.PAE", (s) => long(s) && (s.cr4 & CR4_BIT.PAE) === 0],
  ["CR3 is longer than physical addresses", (s) => long(s) && s.cr3 >> BigInt(MAXPHYADDR) !== 0n],
  // Vol. 3A 21.2: IA-32e mode has no virtual-8086 mode.
  [
    "RFLAGS.VM needs protected mode without EFER.LMA",
    (s) => (s.rflags & FLAG.VM) !== 0 && (long(s) || (s.cr0 & CR0_BIT.PE) === 0),
  ],
  ["there is no such activity", ({ activity }) => activity >>> 0 >= ACTIVITIES],
];

/** What no processor would be in, in words, or undefined. `cpuid` is the vCPU's table (`CPUID_HEADER`). */
export function impossibleState(state: ControlState, cpuid: DataView): string | undefined {
  return RULES.find(([, wrong]) => wrong(state, cpuid))?.[0];
}
