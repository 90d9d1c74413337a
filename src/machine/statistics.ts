// Counters of a running machine, by name. What each means is said once, here, for programs and for `--stats`.

import type { Vcpu } from "../vmm/vcpu.ts";
import type { Pc } from "./pc.ts";

export interface VcpuStatistics {
  /** Instructions retired. */
  readonly instructions: number;
  /** Runs of the engine, and why they ended. */
  readonly entries: number;
  readonly exits: {
    /** The slice was used up, or something wanted the vCPU to stop and look. */
    readonly budget: number;
    readonly halt: number;
    readonly interruptWindow: number;
    readonly other: number;
  };
  readonly interrupts: {
    /** Taken from the local APIC, from the 8259 pair, NMIs. */
    readonly apic: number;
    readonly pic: number;
    readonly nmi: number;
    /** INITs and start-up IPIs that it took. */
    readonly inits: number;
    readonly startups: number;
    readonly ipisSent: number;
    readonly ipisReceived: number;
    readonly apicTimer: number;
    readonly spurious: number;
  };
  /** MSR accesses that the core answered. */
  readonly msrReads: number;
  readonly msrWrites: number;
  /** Counters of the engine, under its own names. */
  readonly engine: { readonly [name: string]: number };
  /** Of a vCPU that has a thread of its own. */
  readonly thread?: VcpuThreadStatistics;
}

export interface VcpuThreadStatistics {
  /** Virtual nanoseconds in which it was halted, and how often that began. */
  readonly idleNs: number;
  readonly idles: number;
  readonly timerLateMaxNs: number;
  /** Accesses that the devices' thread answered, those among them that were waited for asleep, and writes that nobody waited for. */
  readonly exits: number;
  readonly exitsSlept: number;
  readonly writesPosted: number;
  /** How often other vCPUs were told of pages that hold translated code, and of code that was changed. */
  readonly pagesProtected: number;
  readonly codeWrites: number;
}

export interface DiskStatistics {
  readonly reads: number;
  readonly writes: number;
  readonly flushes: number;
  readonly discards: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly errors: number;
}

export interface MachineStatistics {
  /** Virtual nanoseconds since the machine was created. */
  readonly timeNs: number;
  /** Virtual nanoseconds in which all vCPUs were halted (where each has a thread: in which the busiest was), and how often that began. */
  readonly idleNs: number;
  readonly idles: number;
  /** The most that a timer came too late, in nanoseconds. */
  readonly timerLateMaxNs: number;
  readonly vcpus: readonly VcpuStatistics[];
  readonly io: {
    readonly portReads: number;
    readonly portWrites: number;
    readonly mmioReads: number;
    readonly mmioWrites: number;
    /** Accesses to what nobody claims. */
    readonly unclaimed: number;
  };
  /** Interrupts of the 8254, or the HPET in its place, that came late, after the guest had served the one before; and those that it owed too many of to keep. */
  readonly ticks: { readonly reinjected: number; readonly dropped: number };
  readonly disks: readonly DiskStatistics[];
  /** Mistakes and oddities of the guest, by kind. */
  readonly anomalies: { readonly [kind: string]: number };
}

const NO_DISK: DiskStatistics = {
  reads: 0,
  writes: 0,
  flushes: 0,
  discards: 0,
  bytesRead: 0,
  bytesWritten: 0,
  errors: 0,
};

export function vcpuStatistics(vcpu: Vcpu): VcpuStatistics {
  const { statistics: core, apic } = vcpu;
  return {
    instructions: vcpu.engine.retired(),
    entries: core.entries,
    exits: {
      budget: core.exitsBudget,
      halt: core.exitsHalt,
      interruptWindow: core.exitsWindow,
      other: core.exitsOther,
    },
    interrupts: {
      apic: core.interruptsInjected,
      pic: core.picInterruptsInjected,
      nmi: core.nmisInjected,
      inits: core.inits,
      startups: core.startups,
      ipisSent: apic.statistics.ipisSent,
      ipisReceived: apic.statistics.ipisReceived,
      apicTimer: apic.statistics.timerInterrupts,
      spurious: apic.statistics.spuriousInterrupts,
    },
    msrReads: core.msrReads,
    msrWrites: core.msrWrites,
    engine: { ...vcpu.engine.statistics() },
  };
}

/** What a vCPU counts that has executed nothing yet. */
export const NO_VCPU_STATISTICS: VcpuStatistics = {
  instructions: 0,
  entries: 0,
  exits: { budget: 0, halt: 0, interruptWindow: 0, other: 0 },
  interrupts: {
    apic: 0,
    pic: 0,
    nmi: 0,
    inits: 0,
    startups: 0,
    ipisSent: 0,
    ipisReceived: 0,
    apicTimer: 0,
    spurious: 0,
  },
  msrReads: 0,
  msrWrites: 0,
  engine: {},
};

function sum(counts: readonly { readonly [kind: string]: number }[]): { [kind: string]: number } {
  const all: { [kind: string]: number } = {};
  for (const some of counts) for (const [kind, count] of Object.entries(some)) all[kind] = (all[kind] ?? 0) + count;
  return all;
}

export function machineStatistics(pc: Pc): MachineStatistics {
  const { vm, processors } = pc;
  const counted = processors.statistics();
  const vcpus = counted.map(({ vcpu }) => vcpu);
  const least = (of: (thread: VcpuThreadStatistics) => number): number =>
    Math.min(...vcpus.map(({ thread }) => (thread === undefined ? 0 : of(thread))));
  return {
    timeNs: vm.clock.now(),
    idleNs: processors.parallel ? least(({ idleNs }) => idleNs) : vm.statistics.nsIdle,
    idles: processors.parallel ? least(({ idles }) => idles) : vm.statistics.idles,
    timerLateMaxNs: Math.max(vm.statistics.timerLateMaxNs, ...vcpus.map(({ thread }) => thread?.timerLateMaxNs ?? 0)),
    vcpus,
    io: { ...pc.io.statistics },
    ticks: sum([pc.pit.ticks.statistics, pc.hpet.ticks.statistics]) as { reinjected: number; dropped: number },
    disks: pc.disks.map((disk) => {
      const { device } = disk;
      return { ...NO_DISK, ...("statistics" in device ? (device.statistics as DiskStatistics) : {}) };
    }),
    anomalies: sum([pc.anomalies.statistics(), ...counted.map(({ anomalies }) => anomalies)]),
  };
}
