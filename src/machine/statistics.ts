// Counters of a running machine, by name. What each means is said once, here, for programs and for `--stats`.

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
  /** Virtual nanoseconds in which all vCPUs were halted, and how often that began. */
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

export function machineStatistics(pc: Pc): MachineStatistics {
  const { vm } = pc;
  return {
    timeNs: vm.clock.now(),
    idleNs: vm.statistics.nsIdle,
    idles: vm.statistics.idles,
    timerLateMaxNs: vm.statistics.timerLateMaxNs,
    vcpus: vm.vcpus.map((vcpu) => {
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
          ipisSent: apic.statistics.ipisSent,
          ipisReceived: apic.statistics.ipisReceived,
          apicTimer: apic.statistics.timerInterrupts,
          spurious: apic.statistics.spuriousInterrupts,
        },
        msrReads: core.msrReads,
        msrWrites: core.msrWrites,
        engine: { ...vcpu.engine.statistics() },
      };
    }),
    io: { ...pc.io.statistics },
    disks: pc.disks.map((disk) => {
      const { device } = disk;
      return { ...NO_DISK, ...("statistics" in device ? (device.statistics as DiskStatistics) : {}) };
    }),
    anomalies: pc.anomalies.statistics(),
  };
}
